/**
 * Files that live in memory: shmem (memfd, shared anonymous memory) and hugetlbfs. A file owns folios by index and knows the mappings
 * that show it.
 */
import { EINVAL, ENOMEM } from './errno.ts';
import type { Mm } from './mm.ts';
import type { PageAllocator } from './page-allocator.ts';
import { alignDown, alignUp, levelSize } from './page-table.ts';
import { PAGE_SIZE, type PhysicalMemory } from './physical-memory.ts';
import type { Vma } from './vma.ts';
import { unmapMappingRange } from './zap.ts';

/** What `BackingFile.capture` returns. */
export interface BackingFileState {
  readonly size: number;
  readonly folios: ReadonlyMap<number, number>;
  readonly users: number;
}

export class BackingFile {
  readonly memory: PhysicalMemory;
  readonly pages: PageAllocator;
  /** Level of the folios: 1 for shmem, 2 or 3 for hugetlbfs. */
  readonly level: number;
  /** Size in bytes; an access beyond it is SIGBUS. */
  size: number;
  /** First frame of each folio, by file offset in folios. */
  readonly folios = new Map<number, number>();
  /** The mappings that show the file, in the order they were made. */
  readonly mappings = new Map<Vma, Mm>();
  /** Open descriptors and mappings; the last one to go frees the folios. */
  private users = 1;

  constructor(memory: PhysicalMemory, pages: PageAllocator, level: number, size: number) {
    this.memory = memory;
    this.pages = pages;
    this.level = level;
    this.size = size;
  }

  attach(vma: Vma, mm: Mm): void {
    this.mappings.set(vma, mm);
    this.users++;
  }

  detach(vma: Vma): void {
    if (this.mappings.delete(vma)) this.release();
  }

  /** Drops the descriptor (or a mapping). */
  release(): void {
    if (--this.users === 0) this.dropFolios(0, Number.MAX_SAFE_INTEGER);
  }

  /** The folio that holds byte `offset`, allocated (zeroed) when there is none; -1 when memory is full. */
  folioAt(offset: number): number {
    const index = Math.floor(offset / levelSize(this.level));
    const found = this.folios.get(index);
    if (found !== undefined) return found;
    const pfn = this.pages.allocLevel(this.level);
    if (pfn >= 0) this.folios.set(index, pfn);
    return pfn;
  }

  /** True when byte `offset` has memory. */
  hasFolioAt(offset: number): boolean {
    return this.folios.has(Math.floor(offset / levelSize(this.level)));
  }

  /**
   * Sets the size. Shrinking unmaps what is cut off, before and (shmem) again after the folios are dropped.
   * Returns 0 or -EINVAL. @kvm shmem.c shmem_setattr, hugetlbfs_setattr
   */
  truncate(size: number): number {
    if (size < 0 || !Number.isSafeInteger(size)) return -EINVAL;
    const unit = levelSize(this.level);
    if (this.level > 1 && size % unit !== 0) return -EINVAL;
    const old = this.size;
    this.size = size;
    if (size > old || (this.level > 1 && size === old)) return 0;
    const begin = alignUp(size, unit);
    if (old > begin) unmapMappingRange(this, begin, Number.MAX_SAFE_INTEGER, true);
    this.zeroBytes(size, begin);
    this.dropFolios(begin, Number.MAX_SAFE_INTEGER);
    if (old > begin && this.level === 1) unmapMappingRange(this, begin, Number.MAX_SAFE_INTEGER, true);
    return 0;
  }

  /** Frees the memory of [offset, offset + length); it reads as zeros. Returns 0 or -EINVAL. @kvm shmem.c shmem_fallocate */
  punchHole(offset: number, length: number): number {
    if (offset < 0 || length <= 0) return -EINVAL;
    const unit = levelSize(this.level);
    const first = alignUp(offset, unit);
    const last = alignDown(offset + length, unit);
    if (last > first) unmapMappingRange(this, first, last, false);
    if (last < first) {
      this.zeroBytes(offset, offset + length);
      return 0;
    }
    this.zeroBytes(offset, first);
    this.zeroBytes(last, offset + length);
    this.dropFolios(first, last);
    return 0;
  }

  /** Allocates the memory of [offset, offset + length) and grows the file to hold it. Returns 0, -EINVAL or -ENOMEM. */
  allocate(offset: number, length: number): number {
    if (offset < 0 || length <= 0) return -EINVAL;
    const unit = levelSize(this.level);
    for (let at = alignDown(offset, unit); at < offset + length; at += unit) if (this.folioAt(at) < 0) return -ENOMEM;
    this.size = Math.max(this.size, this.level > 1 ? alignUp(offset + length, unit) : offset + length);
    return 0;
  }

  /** A copy of the file's books. */
  capture(): BackingFileState {
    return { size: this.size, folios: new Map(this.folios), users: this.users };
  }

  /** Back to a captured state; the mappings are restored by their processes. */
  restore(state: BackingFileState): void {
    this.size = state.size;
    this.users = state.users;
    this.folios.clear();
    for (const [index, pfn] of state.folios) this.folios.set(index, pfn);
    this.mappings.clear();
  }

  private dropFolios(start: number, end: number): void {
    const unit = levelSize(this.level);
    for (const [index, pfn] of this.folios) {
      if (index * unit < start || index * unit >= end) continue;
      this.folios.delete(index);
      this.pages.put(pfn, this.level);
    }
  }

  private zeroBytes(start: number, end: number): void {
    const unit = levelSize(this.level);
    for (let at = start; at < end; ) {
      const stop = Math.min(end, alignDown(at, PAGE_SIZE) + PAGE_SIZE);
      const folio = this.folios.get(Math.floor(at / unit));
      if (folio !== undefined) {
        const pfn = folio + Math.floor((at % unit) / PAGE_SIZE);
        this.memory.noteWrite(pfn);
        this.memory.u8.fill(0, pfn * PAGE_SIZE + (at % PAGE_SIZE), pfn * PAGE_SIZE + (at % PAGE_SIZE) + stop - at);
      }
      at = stop;
    }
  }
}
