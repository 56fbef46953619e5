/** Which bits of a guest's entries are reserved in its paging mode (@kvm mmu.c __reset_rsvds_bits_mask). */
import type { RsvdBits } from './rsvd-bits.ts';

/** High half of bits 51:32 and of 62:32: what of the physical bits an entry's mode can reserve. */
const BITS_51_32_HI = 0x000fffff;
const BITS_62_32_HI = 0x7fffffff;
const BIT_63_HI = 1 << 31;

/** Low-half mask of bits `first` to `last`. */
function bits(first: number, last: number): number {
  let mask = 0;
  for (let bit = first; bit <= last; bit++) mask |= 1 << bit;
  return mask;
}

export interface RsvdBitsMode {
  /** Levels of the guest's tables: 2 (32-bit), 3 (PAE), 4 or 5. */
  readonly level: number;
  /** High half of the bits at and above the physical address width. */
  readonly paBitsHi: number;
  readonly nx: boolean;
  readonly gbPages: boolean;
  readonly pse: boolean;
  /** Bit 8 is reserved in upper levels. */
  readonly amd: boolean;
}

/** Repeats an 8-bit set of R, W and X for four memory types. */
const BYTES = 0x01010101;

/**
 * The same of L1's EPT: reserved bits, and combinations of rights and memory types that are misconfigurations.
 * @param hugePageLevel largest page: 1, 2 or 3 @kvm mmu.c __reset_rsvds_bits_mask_ept
 */
export function resetRsvdBitsEpt(rsvd: RsvdBits, paBitsHi: number, executeOnly: boolean, hugePageLevel: number): void {
  rsvd.clear();
  const high = paBitsHi & BITS_51_32_HI;
  const no1G = hugePageLevel < 3 ? bits(7, 7) : 0;
  const no2M = hugePageLevel < 2 ? bits(7, 7) : 0;
  for (const level of [4, 5]) {
    rsvd.set(0, level, bits(3, 7), high);
    rsvd.copy(1, level, 0, level);
  }
  rsvd.set(0, 3, bits(3, 6) | no1G, high);
  rsvd.set(0, 2, bits(3, 6) | no2M, high);
  rsvd.set(0, 1, 0, high);
  rsvd.set(1, 3, bits(12, 29) | no1G, high);
  rsvd.set(1, 2, bits(12, 20) | no2M, high);
  rsvd.copy(1, 1, 0, 1);
  // Writable without readable, with and without executable; executable alone where the processor does not know it.
  const rights = (BYTES << 2) | (BYTES << 6) | (executeOnly ? 0 : BYTES << 4);
  // Memory types 2, 3 and 7 do not exist.
  rsvd.badMtXwrLo = rights | (0xffff << 16);
  rsvd.badMtXwrHi = rights | (0xff << 24);
}

/** @kvm mmu.c __reset_rsvds_bits_mask */
export function resetRsvdBits(rsvd: RsvdBits, mode: RsvdBitsMode): void {
  rsvd.clear();
  const noNx = mode.nx ? 0 : BIT_63_HI;
  const high = (mode.paBitsHi & (mode.level === 3 ? BITS_62_32_HI : BITS_51_32_HI)) | noNx;
  if (mode.level === 2) {
    // 32-bit entries: only the 4 MiB leaf has reserved bits, above those that PSE-36 uses.
    if (mode.pse) rsvd.set(1, 2, bits(17, 21), 0);
    return;
  }
  if (mode.level === 3) {
    rsvd.set(0, 3, bits(5, 8) | bits(1, 2), high | BIT_63_HI);
    rsvd.set(0, 2, 0, high);
    rsvd.set(0, 1, 0, high);
    rsvd.set(1, 2, bits(13, 20), high);
    rsvd.copy(1, 1, 0, 1);
    return;
  }
  const upper = bits(7, 7) | (mode.amd ? bits(8, 8) : 0);
  const noGb = mode.gbPages ? 0 : bits(7, 7);
  for (let level = 4; level <= mode.level; level++) {
    rsvd.set(0, level, upper, high);
    rsvd.copy(1, level, 0, level);
  }
  rsvd.set(0, 3, noGb, high);
  rsvd.set(0, 2, 0, high);
  rsvd.set(0, 1, 0, high);
  rsvd.set(1, 3, noGb | bits(13, 29), high);
  rsvd.set(1, 2, bits(13, 20), high);
  rsvd.copy(1, 1, 0, 1);
}
