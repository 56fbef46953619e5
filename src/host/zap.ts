/**
 * Taking pages out of page tables, with the notifier ranges that the kernel announces for each way of doing so.
 *
 * @kvm memory.c zap_page_range_single, unmap_vmas; huge_memory.c __split_huge_pmd
 */
import type { BackingFile } from './backing-file.ts';
import type { Mm } from './mm.ts';
import { MMU_NOTIFY_CLEAR } from './mmu-notifier.ts';
import { FRAME_DIRTY } from './page-allocator.ts';
import {
  alignDown,
  alignUp,
  levelSize,
  PTE_ANON,
  PTE_DIRTY,
  PTE_FRAME_MASK,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_SWAP,
  pmdIndex,
  pteIndex,
  SIZE_1G,
  SIZE_2M,
  SIZE_4K,
} from './page-table.ts';
import type { Vma } from './vma.ts';

/** Drops what an entry that was just removed held: a reference to its folio, or its swap slot. */
export function releaseEntry(mm: Mm, word: number, level: number): void {
  if ((word & PTE_PRESENT) !== 0) {
    if ((word & PTE_SPECIAL) !== 0) return;
    const pfn = word & PTE_FRAME_MASK;
    if ((word & PTE_DIRTY) !== 0) mm.pages.flags[pfn]! |= FRAME_DIRTY;
    mm.pages.put(pfn, level);
  } else if ((word & PTE_SWAP) !== 0) {
    mm.swap.release(word & PTE_FRAME_MASK);
  }
}

/**
 * Replaces the 2 MiB entry of `hva`, when there is one, by 512 small ones; the folio becomes 512 pages. The notifier pair is announced
 * either way, as in the kernel. @kvm huge_memory.c __split_huge_pmd
 */
export function splitHugePmd(mm: Mm, hva: number): void {
  const start = alignDown(hva, SIZE_2M);
  mm.notifiers.start(start, start + SIZE_2M, MMU_NOTIFY_CLEAR);
  const g = mm.table.gigabyte(hva);
  const i = pmdIndex(hva);
  const leaf = g === null ? 0 : g.pmd[i]!;
  if (leaf !== 0) {
    const table = new Int32Array(512);
    if ((leaf & PTE_SPECIAL) !== 0) {
      table.fill((leaf & ~PTE_FRAME_MASK) | mm.zero.small);
    } else {
      const first = leaf & PTE_FRAME_MASK;
      mm.pages.splitHuge(first);
      for (let n = 0; n < 512; n++) table[n] = (leaf & ~PTE_FRAME_MASK) | (first + n);
    }
    g!.pmd[i] = 0;
    g!.tables[i] = table;
  }
  mm.notifiers.end(start, start + SIZE_2M);
}

/**
 * Removes the entries of [start, end), which lies in `vma`; with `evenCows` false, private copies of file pages stay.
 * The caller announces the range. @kvm memory.c unmap_page_range
 */
export function zapRange(mm: Mm, vma: Vma, start: number, end: number, evenCows: boolean): void {
  for (let at = start; at < end; ) {
    const g = mm.table.gigabyte(at);
    if (g === null) {
      at = alignDown(at, SIZE_1G) + SIZE_1G;
      continue;
    }
    if (g.leaf !== 0) {
      const word = g.leaf;
      g.leaf = 0;
      releaseEntry(mm, word, 3);
      at = alignDown(at, SIZE_1G) + SIZE_1G;
      continue;
    }
    const i = pmdIndex(at);
    const next = Math.min(end, alignDown(at, SIZE_2M) + SIZE_2M);
    const leaf = g.pmd[i]!;
    if (leaf !== 0 && (vma.hugetlbLevel === 2 || next - at === SIZE_2M)) {
      g.pmd[i] = 0;
      releaseEntry(mm, leaf, 2);
    } else {
      if (leaf !== 0) splitHugePmd(mm, at);
      const table = g.tables[i]!;
      if (table !== null) zapTable(mm, table, pteIndex(at), (next - at) / SIZE_4K, evenCows);
    }
    at = next;
  }
}

function zapTable(mm: Mm, table: Int32Array, first: number, count: number, evenCows: boolean): void {
  for (let n = first; n < first + count; n++) {
    const word = table[n]!;
    if (word === 0 || (!evenCows && (word & (PTE_ANON | PTE_SWAP)) !== 0)) continue;
    table[n] = 0;
    releaseEntry(mm, word, 1);
  }
}

/** Where a change of shared hugetlb memory reaches, as page tables of a whole gigabyte may be shared. */
export interface HvaRange {
  start: number;
  end: number;
}

/** @kvm hugetlb.c adjust_range_if_pmd_sharing_possible */
export function adjustForPmdSharing(vma: Vma, range: HvaRange): void {
  const first = alignUp(vma.start, SIZE_1G);
  const last = alignDown(vma.end, SIZE_1G);
  if (!vma.shared || last <= first || range.end <= first || range.start >= last) return;
  if (range.start > first) range.start = alignDown(range.start, SIZE_1G);
  if (range.end < last) range.end = alignUp(range.end, SIZE_1G);
}

/** Removes the pages of [start, end) of one mapping, with its notifier pair. @kvm memory.c zap_page_range_single */
export function zapPageRangeSingle(mm: Mm, vma: Vma, start: number, end: number, evenCows: boolean): void {
  const range = { start, end };
  if (vma.hugetlbLevel > 1) adjustForPmdSharing(vma, range);
  mm.notifiers.start(range.start, range.end, MMU_NOTIFY_CLEAR);
  zapRange(mm, vma, start, end, evenCows);
  mm.notifiers.end(range.start, range.end);
}

/**
 * Removes the pages of file bytes [from, to) from every mapping of the file. `evenCows`: private copies too.
 * @kvm memory.c unmap_mapping_range
 */
export function unmapMappingRange(file: BackingFile, from: number, to: number, evenCows: boolean): void {
  const unit = levelSize(file.level);
  for (const [vma, mm] of [...file.mappings]) {
    const start = Math.max(vma.start, vma.start + alignDown(from, unit) - vma.offset);
    const end = Math.min(vma.end, vma.start + to - vma.offset);
    if (start < end) zapPageRangeSingle(mm, vma, start, end, evenCows);
  }
}
