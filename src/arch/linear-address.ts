/**
 * Linear addresses of 64-bit mode: 48 bits of them are implemented, or 57, and those above must be copies of the topmost (@sdm 3.3.7.1).
 *
 * Two widths are asked about. What is accessed, or jumped to, follows the paging mode: 57 bits with CR4.LA57. What is only kept for
 * later (bases of segments and tables, addresses in MSRs) or forgotten (INVLPG, INVPCID) follows the processor, whatever CR4 says.
 */

/** True when the high half `hi` is that of a canonical address, of 57 bits (`wide`) or 48. HOT */
export function isCanonical(hi: number, wide: boolean): boolean {
  const sign = hi >> (wide ? 24 : 15);
  return sign === 0 || sign === -1;
}

/** High half of the canonical address that agrees with `hi` in the implemented bits. */
export function canonicalHi(hi: number, wide: boolean): number {
  const unused = wide ? 7 : 16;
  return (hi << unused) >> unused;
}
