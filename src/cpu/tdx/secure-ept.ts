/**
 * The secure EPT: tables in EPT's own format that only the TDX module writes (@tdx base spec, "Secure EPT"). The processor walks them
 * like any other EPT; what an entry is to the module is in bits that hardware ignores:
 *
 *  63  62..55 54..52  51 ... 12  11..8  7   6    5..3  2 1 0
 *  SVE   -    state   frame        -    PS IPAT  MT    X W R
 *
 * Only MAPPED entries, and the ones that lead to a table, have rights. FREE suppresses #VE, so that an access leaves the TD; PENDING does
 * it when the TD was built with ATTRIBUTES.SEPT_VE_DISABLE.
 */
import {
  EPT_IPAT_MASK,
  EPT_MT_SHIFT,
  EPT_PAGE_SIZE_MASK,
  EPT_RWX_MASK,
  EPT_SUPPRESS_VE_HI,
  PT64_FRAME_HI,
} from '../../arch/paging.ts';

/** States, as TDH.MEM.SEPT.RD reports them. PRESENT is MAPPED for a leaf. */
export const SEPT_FREE = 0;
export const SEPT_BLOCKED = 1;
export const SEPT_PENDING = 2;
export const SEPT_PENDING_BLOCKED = 3;
export const SEPT_PRESENT = 4;
export const SEPT_STATE_NAMES = ['FREE', 'BLOCKED', 'PENDING', 'PENDING_BLOCKED', 'PRESENT'] as const;

const STATE_SHIFT = 20;
const STATE_MASK = 7 << STATE_SHIFT;
const MT_WB = 6 << EPT_MT_SHIFT;
export const SEPT_FREE_HI = EPT_SUPPRESS_VE_HI;

/** Entries of a table. */
const ENTRIES = 512;

export function septState(hi: number): number {
  return (hi & STATE_MASK) >>> STATE_SHIFT;
}

export function septPfn(lo: number, hi: number): number {
  return (hi & PT64_FRAME_HI) * 0x100000 + (lo >>> 12);
}

/** The entry leads to a table rather than to a page. */
export function septIsTable(lo: number, level: number): boolean {
  return level > 0 && (lo & EPT_PAGE_SIZE_MASK) === 0;
}

/** A frame full of FREE entries. */
export function clearSept(i32: Int32Array, pfn: number): void {
  for (let i = 0; i < ENTRIES; i++) {
    i32[(pfn << 10) | (i << 1)] = 0;
    i32[(pfn << 10) | (i << 1) | 1] = SEPT_FREE_HI;
  }
}

/** Index of `gfn` in the table whose entries are of `level` (0: 4 KiB). */
function indexAt(gfn: number, level: number): number {
  return Math.floor(gfn / 512 ** level) % 512;
}

export interface SeptEntry {
  /** The entry's place, as an index of 32-bit words of memory. */
  readonly word: number;
  /** Where the walk ended: the level asked for, or above it where nothing leads further. */
  readonly level: number;
}

/** Walks from the root (entries of level 3) to the entry of `level` for `gfn`, through present tables. */
export function walkSept(i32: Int32Array, root: number, gfn: number, level: number): SeptEntry {
  let table = root;
  for (let at = 3; ; at--) {
    const word = (table << 10) | (indexAt(gfn, at) << 1);
    const lo = i32[word]!;
    const hi = i32[word + 1]!;
    if (at === level || septState(hi) !== SEPT_PRESENT || !septIsTable(lo, at)) return { word, level: at };
    table = septPfn(lo, hi);
  }
}

/** Writes an entry that leads to a page or, when `table` is set, to a table. `suppressVe` matters for PENDING alone. */
export function writeSept(
  i32: Int32Array,
  word: number,
  pfn: number,
  state: number,
  how: { readonly table: boolean; readonly level: number; readonly suppressVe: boolean },
): void {
  const rights = state === SEPT_PRESENT ? EPT_RWX_MASK : 0;
  const leaf = how.table ? 0 : MT_WB | EPT_IPAT_MASK | (how.level > 0 ? EPT_PAGE_SIZE_MASK : 0);
  const suppress = state === SEPT_PENDING && !how.suppressVe ? 0 : EPT_SUPPRESS_VE_HI;
  i32[word] = (pfn << 12) | leaf | rights;
  i32[word + 1] = Math.floor(pfn / 0x100000) | (state << STATE_SHIFT) | suppress;
}

export function freeSept(i32: Int32Array, word: number): void {
  i32[word] = 0;
  i32[word + 1] = SEPT_FREE_HI;
}

/** True when no entry of the table is in use. */
export function septIsEmpty(i32: Int32Array, pfn: number): boolean {
  for (let i = 0; i < ENTRIES; i++) if (septState(i32[(pfn << 10) | (i << 1) | 1]!) !== SEPT_FREE) return false;
  return true;
}
