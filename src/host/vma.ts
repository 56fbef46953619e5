/** Ranges of a process's addresses with one meaning, kept sorted; split and joined as the kernel does. */
import { numberOf } from '../arch/halves.ts';
import type { BackingFile } from './backing-file.ts';

export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const PROT_EXEC = 4;

/** MADV_HUGEPAGE, MADV_NOHUGEPAGE or neither. */
export type ThpAdvice = 'none' | 'hugepage' | 'nohugepage';

/** How a touch of a missing page is answered when userfaultfd watches: by SIGBUS, or by sleeping until somebody provides it. */
export type UffdMode = 'off' | 'sigbus' | 'block';

export class Vma {
  start: number;
  end: number;
  /** PROT_* bits. */
  prot: number;
  /** MAP_SHARED. */
  readonly shared: boolean;
  /** The file that backs it, null for anonymous memory. */
  readonly file: BackingFile | null;
  /** Byte offset in the file of `start`. */
  offset: number;
  /** Frames mapped by number, without reference counts (device memory). */
  readonly pfnmap: boolean;
  thp: ThpAdvice = 'none';
  uffd: UffdMode = 'off';
  /** A private page was written here once, so a fork must copy. */
  hasAnonVma = false;

  constructor(
    start: number,
    end: number,
    prot: number,
    shared: boolean,
    file: BackingFile | null,
    offset: number,
    pfnmap: boolean,
  ) {
    this.start = start;
    this.end = end;
    this.prot = prot;
    this.shared = shared;
    this.file = file;
    this.offset = offset;
    this.pfnmap = pfnmap;
  }

  /** Private memory of no file: a missing page reads as zeros. */
  get isAnonymous(): boolean {
    return this.file === null && !this.pfnmap;
  }

  /** Level of its pages when it is hugetlb memory, else 1. */
  get hugetlbLevel(): number {
    return this.file === null ? 1 : this.file.level;
  }

  /** Byte offset in the file of `hva`. */
  offsetOf(hva: number): number {
    return this.offset + (hva - this.start);
  }

  /** A second record like this one, for a part of it or for a snapshot. */
  copy(start: number, end: number): Vma {
    const v = new Vma(start, end, this.prot, this.shared, this.file, this.offset + (start - this.start), this.pfnmap);
    v.thp = this.thp;
    v.uffd = this.uffd;
    v.hasAnonVma = this.hasAnonVma;
    return v;
  }

  /** True when `next` continues this mapping, so that one record can do for both. @kvm vma.c can_vma_merge_after */
  continuesIn(next: Vma): boolean {
    return (
      this.end === next.start &&
      this.prot === next.prot &&
      this.shared === next.shared &&
      this.file === next.file &&
      (this.file === null || this.offset + (this.end - this.start) === next.offset) &&
      !this.pfnmap &&
      !next.pfnmap &&
      this.thp === next.thp &&
      this.uffd === next.uffd &&
      (this.hasAnonVma === next.hasAnonVma || this.isAnonymous)
    );
  }
}

/** The mappings of one process in address order. */
export class VmaList {
  readonly list: Vma[] = [];
  private last: Vma | null = null;

  /** The mapping that contains the address with these halves, or null. HOT */
  findAt(hvaLo: number, hvaHi: number): Vma | null {
    const hva = numberOf(hvaLo, hvaHi);
    const last = this.last;
    return last !== null && hva >= last.start && hva < last.end ? last : this.find(hva);
  }

  /** The mapping that contains `hva`, or null. */
  find(hva: number): Vma | null {
    const last = this.last;
    if (last !== null && hva >= last.start && hva < last.end) return last;
    const i = this.firstEndingAfter(hva);
    const v = this.list[i];
    if (v === undefined || v.start > hva) return null;
    this.last = v;
    return v;
  }

  /** Index of the first mapping that ends above `hva`. */
  firstEndingAfter(hva: number): number {
    let lo = 0;
    let hi = this.list.length;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if (this.list[mid]!.end > hva) hi = mid;
      else lo = mid + 1;
    }
    return lo;
  }

  /** The mappings that overlap [start, end), in address order; a copy, so that callers may change the list. */
  overlapping(start: number, end: number): Vma[] {
    const found: Vma[] = [];
    for (let i = this.firstEndingAfter(start); i < this.list.length && this.list[i]!.start < end; i++) {
      found.push(this.list[i]!);
    }
    return found;
  }

  /** True when every page of [start, end) is mapped. */
  covers(start: number, end: number): boolean {
    let at = start;
    for (let i = this.firstEndingAfter(start); i < this.list.length && at < end; i++) {
      const v = this.list[i]!;
      if (v.start > at) return false;
      at = v.end;
    }
    return at >= end;
  }

  insert(vma: Vma): void {
    this.list.splice(this.firstEndingAfter(vma.start), 0, vma);
    this.last = null;
  }

  remove(vma: Vma): void {
    const i = this.list.indexOf(vma);
    if (i >= 0) this.list.splice(i, 1);
    this.last = null;
  }

  /** Replaces everything, for a restore. */
  reset(vmas: readonly Vma[]): void {
    this.list.length = 0;
    this.list.push(...vmas);
    this.last = null;
  }

  /** First address above the mapping before `hva` (0 if none) and start of the one at or after `end`. */
  gapAround(start: number, end: number): { floor: number; ceiling: number } {
    const i = this.firstEndingAfter(start);
    const before = this.list[i - 1];
    let j = i;
    while (j < this.list.length && this.list[j]!.start < end) j++;
    return { floor: before === undefined ? 0 : before.end, ceiling: this.list[j]?.start ?? Number.MAX_SAFE_INTEGER };
  }
}
