/**
 * A process's page tables, in the shape of the real ones from the 1 GiB level down. They are the host kernel's private structure (no
 * processor walks them here), so an entry is one int32 word:
 *
 *  31  30   29     28    27      26    25    24    23    22    21   20      19 .............. 0
 *   -  FREE POISON SWAP  SPECIAL ANON  EXCL  YOUNG DIRTY WRITE USER PRESENT frame or swap slot
 *
 * The same word is a leaf at every level; 0 is no entry.
 */
import { hiOf, loOf } from '../arch/halves.ts';

/** The word maps a frame. Without it, only SWAP or POISON can be set. */
export const PTE_PRESENT = 1 << 20;
/** The process may access the page; clear for PROT_NONE, which keeps the page. */
export const PTE_USER = 1 << 21;
export const PTE_WRITE = 1 << 22;
export const PTE_DIRTY = 1 << 23;
/** Accessed since somebody last cleared it. */
export const PTE_YOUNG = 1 << 24;
/** The anonymous page belongs to this mapping alone: a write needs no copy. */
export const PTE_EXCLUSIVE = 1 << 25;
/** The page is anonymous memory, not the page cache's. */
export const PTE_ANON = 1 << 26;
/** The frame has no reference count: the zero page, or a frame mapped by number. */
export const PTE_SPECIAL = 1 << 27;
/** Not present: the frame field is a swap slot. */
export const PTE_SWAP = 1 << 28;
/** Not present: the page was lost to a memory error. */
export const PTE_POISON = 1 << 29;
/** MADV_FREE: the contents may be dropped unless the page is written again. */
export const PTE_LAZYFREE = 1 << 30;
export const PTE_FRAME_MASK = 0xfffff;

export const SIZE_4K = 0x1000;
export const SIZE_2M = 0x20_0000;
export const SIZE_1G = 0x4000_0000;

/** Page size of a level: 1 is 4 KiB, 2 is 2 MiB, 3 is 1 GiB. */
export function levelSize(level: number): number {
  return level === 1 ? SIZE_4K : level === 2 ? SIZE_2M : SIZE_1G;
}

export function alignDown(value: number, size: number): number {
  return value - (value % size);
}

export function alignUp(value: number, size: number): number {
  const rest = value % size;
  return rest === 0 ? value : value - rest + size;
}

/** What lies below one 1 GiB entry. */
export class HostGigabyte {
  /** A 1 GiB leaf, or 0. */
  leaf = 0;
  /** 2 MiB leaves; 0 where there is none or a table. */
  readonly pmd = new Int32Array(512);
  /** Tables of 4 KiB words. */
  readonly tables: (Int32Array | null)[] = new Array(512).fill(null);
}

/** Number of the 1 GiB entry of the address with these halves. HOT */
function gigabyteIndex(hvaLo: number, hvaHi: number): number {
  return (hvaHi << 2) | (hvaLo >>> 30);
}

/** Number of the 2 MiB entry within its gigabyte; the low half of the address says it. */
export function pmdIndex(hva: number): number {
  return (hva >>> 21) & 511;
}

/** Number of the 4 KiB word within its table; the low half of the address says it. */
export function pteIndex(hva: number): number {
  return (hva >>> 12) & 511;
}

export class HostPageTable {
  /** By hva / 1 GiB. A gigabyte without an entry has no tables at all. */
  readonly gigabytes = new Map<number, HostGigabyte>();
  /** Set by `lookup`: the level of the word it returned, 0 when it found none. */
  level = 0;
  private lastNumber = -1;
  private last: HostGigabyte | null = null;

  /** The gigabyte that `hva` is in, or null. */
  gigabyte(hva: number): HostGigabyte | null {
    return this.gigabyteAt(loOf(hva), hiOf(hva));
  }

  /** The same by halves. HOT */
  gigabyteAt(hvaLo: number, hvaHi: number): HostGigabyte | null {
    const n = gigabyteIndex(hvaLo, hvaHi);
    if (n === this.lastNumber) return this.last;
    const g = this.gigabytes.get(n) ?? null;
    if (g !== null) {
      this.lastNumber = n;
      this.last = g;
    }
    return g;
  }

  /** The gigabyte that `hva` is in, made if there is none. */
  makeGigabyte(hva: number): HostGigabyte {
    return this.makeGigabyteAt(loOf(hva), hiOf(hva));
  }

  /** The same by halves. HOT */
  makeGigabyteAt(hvaLo: number, hvaHi: number): HostGigabyte {
    const found = this.gigabyteAt(hvaLo, hvaHi);
    if (found !== null) return found;
    const g = new HostGigabyte();
    this.gigabytes.set(gigabyteIndex(hvaLo, hvaHi), g);
    return g;
  }

  /** The leaf word that covers `hva`, present or not; its level is in `this.level`. */
  lookup(hva: number): number {
    return this.lookupAt(loOf(hva), hiOf(hva));
  }

  /** The same by halves: an address as a number would be a heap object wherever a call is not inlined. HOT */
  lookupAt(hvaLo: number, hvaHi: number): number {
    this.level = 0;
    const g = this.gigabyteAt(hvaLo, hvaHi);
    if (g === null) return 0;
    if (g.leaf !== 0) {
      this.level = 3;
      return g.leaf;
    }
    const i = pmdIndex(hvaLo);
    const table = g.tables[i]!;
    if (table !== null) {
      this.level = 1;
      return table[pteIndex(hvaLo)]!;
    }
    if (g.pmd[i] !== 0) this.level = 2;
    return g.pmd[i]!;
  }

  /** Writes the 4 KiB word of `hva`, making its table if there is none. The caller knows that no huge leaf is there. */
  setPte(hva: number, word: number): void {
    const g = this.makeGigabyte(hva);
    const i = pmdIndex(hva);
    let table = g.tables[i]!;
    if (table === null) {
      table = new Int32Array(512);
      g.tables[i] = table;
    }
    table[pteIndex(hva)] = word;
  }

  /** Replaces the word that `lookup(hva)` found, at the level it was found. */
  replace(hva: number, level: number, word: number): void {
    const g = this.makeGigabyte(hva);
    if (level === 3) g.leaf = word;
    else if (level === 2) g.pmd[pmdIndex(hva)] = word;
    else this.setPte(hva, word);
  }

  /** Replaces everything, for a restore. */
  reset(gigabytes: ReadonlyMap<number, HostGigabyte>): void {
    this.gigabytes.clear();
    this.lastNumber = -1;
    this.last = null;
    for (const [n, g] of gigabytes) this.gigabytes.set(n, g);
  }

  /** True when a table of 2 MiB entries exists for `hva`. @kvm rmap.c mm_find_pmd */
  hasPmdTable(hva: number): boolean {
    const g = this.gigabyte(hva);
    return g !== null && g.leaf === 0;
  }

  /**
   * Drops the tables of [start, end), which has no entries left. Tables that also serve addresses outside are kept: the caller
   * widens the range to the neighbours first. @kvm memory.c free_pgtables
   */
  freeTables(start: number, end: number): void {
    for (const [n, g] of this.gigabytes) {
      const base = n * SIZE_1G;
      if (base >= end || base + SIZE_1G <= start) continue;
      if (base >= start && base + SIZE_1G <= end) {
        this.gigabytes.delete(n);
        if (n === this.lastNumber) {
          this.lastNumber = -1;
          this.last = null;
        }
        continue;
      }
      for (let i = 0; i < 512; i++) {
        const at = base + i * SIZE_2M;
        if (at >= start && at + SIZE_2M <= end) g.tables[i] = null;
      }
    }
  }
}
