/** The reserved bits of a paging entry as one 64-bit number: what tests hold the halves against. */
import { PG_LEVEL_1G, PG_LEVEL_4K, PG_LEVEL_512G, rsvdLargeLo } from './paging.ts';

/**
 * The reserved bits of a guest's or nested 64-bit entry at `level`.
 * `large` says the entry has PS set. NX is reserved where it is not enabled. Entries of 4- and 5-level tables and of NPT; for PAE
 * the directory pointers differ (PAE_PDPTE_RSVD_LO).
 */
export function rsvdMask64(level: number, large: boolean, maxPhyAddr: number, nx: boolean, gbPages: boolean): bigint {
  let mask = 0n;
  if (!nx) mask |= 1n << 63n;
  for (let bit = maxPhyAddr; bit < 52; bit++) mask |= 1n << BigInt(bit);
  if (!large || level === PG_LEVEL_4K) return mask;
  if (level >= PG_LEVEL_512G || (level === PG_LEVEL_1G && !gbPages)) return mask | (1n << 7n);
  return mask | BigInt(rsvdLargeLo(level));
}
