/**
 * Paging-structure entries as the processor reads them: the guest's formats (@sdm 4.3 to 4.5; @apm 5.2 to 5.4), nested page tables
 * (which use the long-mode format, @apm 15.25.5) and EPT (@sdm 28.3.2). A 64-bit entry is two int32 halves; masks name the half.
 */
import { type Flag, flag, formatFlags } from './flags.ts';

/*
 * Long mode, PAE and nested page tables: 64-bit entries.
 *
 *   63 62..59 58..52  51 ............ 12   11..9  8  7   6  5  4   3   2 1 0
 *   NX  PKEY   avail   frame (4 KiB leaf)  avail  G  PS  D  A  PCD PWT U W P
 *                      large leaf: 12 is PAT, the bits between it and the frame are reserved
 *
 * 32-bit paging: the low half alone. A 4 MiB leaf (PSE) has frame bits 31:22, physical bits 39:32 in 20:13 (PSE-36), 21 reserved.
 * PAE's four PDPTEs: P, PWT, PCD and a frame; W, U, A, D, PS, G and everything from MAXPHYADDR up are reserved.
 */

// Low half.
export const PT_PRESENT_MASK = 1 << 0;
export const PT_WRITABLE_MASK = 1 << 1;
export const PT_USER_MASK = 1 << 2;
export const PT_PWT_MASK = 1 << 3;
export const PT_PCD_MASK = 1 << 4;
export const PT_ACCESSED_MASK = 1 << 5;
export const PT_DIRTY_MASK = 1 << 6;
/** In an upper-level entry: this entry maps a large page. In a last-level entry the same bit is PAT. */
export const PT_PAGE_SIZE_MASK = 1 << 7;
export const PT_GLOBAL_MASK = 1 << 8;
/** PAT of a large leaf. */
export const PT_PAT_LARGE_MASK = 1 << 12;

// High half.
export const PT64_NX_HI = 1 << 31;
export const PT64_PKEY_HI_SHIFT = 27;
export const PT64_PKEY_HI = 0xf << PT64_PKEY_HI_SHIFT;
/** Frame bits 51:32 of a 64-bit entry. */
export const PT64_FRAME_HI = 0xfffff;
/** Bits 62:52, which software may use. */
export const PT64_AVAILABLE_HI = 0x7ff00000;

/** Every bit of a 64-bit leaf with a name, in bit order. */
export const PTE_FLAGS: readonly Flag[] = [
  flag('P', 0, 'present'),
  flag('W', 1, 'writable'),
  flag('U', 2, 'usable in user mode'),
  flag('PWT', 3, 'write-through'),
  flag('PCD', 4, 'cache disabled'),
  flag('A', 5, 'accessed'),
  flag('D', 6, 'dirty (leaf)'),
  flag('PS', 7, 'maps a large page (upper levels), PAT (last level)'),
  flag('G', 8, 'global (leaf)'),
  flag('NX', 63, 'not executable'),
];

/*
 * EPT entries.
 *
 *   63  62..52  51 ............ 12  11  10  9 8  7   6    5..3   2 1 0
 *   SVE  avail   frame              -   XU  D A  PS  IPAT  MT    X W R
 */
export const EPT_READABLE_MASK = 1 << 0;
export const EPT_WRITABLE_MASK = 1 << 1;
export const EPT_EXECUTABLE_MASK = 1 << 2;
export const EPT_RWX_MASK = 7;
export const EPT_MT_SHIFT = 3;
export const EPT_MT_MASK = 7 << 3;
export const EPT_IPAT_MASK = 1 << 6;
export const EPT_PAGE_SIZE_MASK = 1 << 7;
export const EPT_ACCESSED_MASK = 1 << 8;
export const EPT_DIRTY_MASK = 1 << 9;
export const EPT_SUPPRESS_VE_HI = 1 << 31;

/** Every bit of an EPT leaf with a name, in bit order. */
export const EPT_FLAGS: readonly Flag[] = [
  flag('R', 0, 'readable'),
  flag('W', 1, 'writable'),
  flag('X', 2, 'executable'),
  flag('MT0', 3, 'memory type, bit 0'),
  flag('MT1', 4, 'memory type, bit 1'),
  flag('MT2', 5, 'memory type, bit 2'),
  flag('IPAT', 6, "the guest's PAT is ignored"),
  flag('PS', 7, 'maps a large page'),
  flag('A', 8, 'accessed'),
  flag('D', 9, 'dirty (leaf)'),
  flag('SUPPRESS_VE', 63, 'an EPT violation here is never turned into #VE'),
];

/** What a paging structure walk is: how many bits a level takes and what an entry looks like. */
export const PAGING_NONE = 0;
export const PAGING_32BIT = 1;
export const PAGING_PAE = 2;
export const PAGING_4LEVEL = 3;
export const PAGING_5LEVEL = 4;

/** Levels as KVM counts them: 1 maps 4 KiB, 2 maps 2 MiB (4 MiB in 32-bit paging), 3 maps 1 GiB. */
export const PG_LEVEL_4K = 1;
export const PG_LEVEL_2M = 2;
export const PG_LEVEL_1G = 3;
export const PG_LEVEL_512G = 4;
export const PG_LEVEL_256T = 5;

/** Frame number in a 64-bit entry, exact (40 bits); for a large leaf its low bits hold PAT and reserved bits. */
export function ptePfn(lo: number, hi: number): number {
  return (hi & PT64_FRAME_HI) * 0x100000 + (lo >>> 12);
}

/** High half of the reserved frame bits: 51 down to `maxPhyAddr` (32 to 52). */
export function rsvdPhysHi(maxPhyAddr: number): number {
  return maxPhyAddr >= 52 ? 0 : PT64_FRAME_HI & ~((1 << (maxPhyAddr - 32)) - 1);
}

/** Reserved bits of a large leaf between PAT and its frame: 20:13 at level 2, 29:13 at level 3 (low half). */
export function rsvdLargeLo(level: number): number {
  return level === PG_LEVEL_2M ? 0x001fe000 : 0x3fffe000;
}

/** Reserved low bits of a PAE page-directory-pointer entry: W, U, A, D, PS, G (@sdm 4.4.1, @apm 5.2.3). */
export const PAE_PDPTE_RSVD_LO = 0x1e6;
/** Reserved high bits of a PAE page-directory-pointer entry besides the physical ones. */
export const PAE_PDPTE_RSVD_HI = 0xfff00000 | 0;
/** Bits 62:52 are reserved in PAE's directory and table entries, where long mode leaves them to software (@apm 5.2.3). */
export const PAE_RSVD_HI = PT64_AVAILABLE_HI;

/** Reserved bit of a 4 MiB leaf of 32-bit paging, where PSE-36 has eight more frame bits. */
export const PSE36_RSVD_LO = 1 << 21;

/** First frame of a 4 MiB leaf of 32-bit paging: bits 31:22, and 39:32 from bits 20:13. */
export function pse36Pfn(pde: number): number {
  return ((pde & 0x001fe000) << 7) | ((pde >>> 12) & 0xffc00);
}

/** An entry's flags and frame, as traces print them. */
export function formatPte(lo: number, hi: number): string {
  const flags = formatFlags(PTE_FLAGS, lo & 0xfff, hi & ~PT64_FRAME_HI);
  return `pfn ${ptePfn(lo, hi).toString(16)} ${flags}`;
}
