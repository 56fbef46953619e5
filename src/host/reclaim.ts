/**
 * Pages that leave memory although their mapping stays: paged out, migrated, lost to a memory error. All of them find the page
 * through the mappings that show it, and announce it mapping by mapping.
 *
 * @kvm vmscan.c, rmap.c try_to_unmap_one, memory-failure.c
 */
import { EBUSY, EHWPOISON, ENOMEM } from './errno.ts';
import { copyOf } from './fault.ts';
import { SIGBUS } from './host-signal.ts';
import type { Mm } from './mm.ts';
import { MMU_NOTIFY_CLEAR } from './mmu-notifier.ts';
import { FRAME_DIRTY } from './page-allocator.ts';
import {
  alignDown,
  levelSize,
  PTE_ANON,
  PTE_DIRTY,
  PTE_FRAME_MASK,
  PTE_LAZYFREE,
  PTE_POISON,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_SWAP,
  SIZE_2M,
  SIZE_4K,
} from './page-table.ts';
import { PAGE_SIZE } from './physical-memory.ts';
import type { Vma } from './vma.ts';
import { adjustForPmdSharing, releaseEntry, splitHugePmd } from './zap.ts';

/** One place where a page is mapped. */
interface PageMapping {
  readonly mm: Mm;
  readonly vma: Vma;
  /** First address of the mapped folio. */
  readonly hva: number;
}

/**
 * Makes small pages of the 2 MiB folio mapped at `hva`, if it is one. The walk that unmaps the folio announces its range and, within
 * it, the split of the entry does again. @kvm huge_memory.c split_huge_page_to_list_to_order, unmap_folio
 */
function splitFolio(mm: Mm, hva: number): void {
  const word = mm.table.lookup(hva);
  if (mm.table.level !== 2 || (word & PTE_ANON) === 0) return;
  const start = alignDown(hva, SIZE_2M);
  mm.notifiers.start(start, start + SIZE_2M, MMU_NOTIFY_CLEAR);
  splitHugePmd(mm, hva);
  mm.notifiers.end(start, start + SIZE_2M);
}

/** Every mapping of the page that `mm` maps at `hva` with `word`. @kvm rmap.c rmap_walk */
export function mappingsOf(mm: Mm, hva: number, word: number, level: number): PageMapping[] {
  const vma = mm.vmas.find(hva);
  if (vma === null) return [];
  const size = levelSize(level);
  if ((word & PTE_ANON) !== 0 || vma.file === null) return [{ mm, vma, hva: alignDown(hva, size) }];
  const offset = vma.offsetOf(alignDown(hva, size));
  const found: PageMapping[] = [];
  for (const [other, owner] of vma.file.mappings) {
    const at = other.start + offset - other.offset;
    if (at < other.start || at >= other.end) continue;
    const theirs = owner.table.lookup(at);
    if ((theirs & PTE_PRESENT) !== 0 && (theirs & (PTE_FRAME_MASK | PTE_ANON)) === (word & PTE_FRAME_MASK)) {
      found.push({ mm: owner, vma: other, hva: at });
    }
  }
  return found;
}

/** Replaces the entry of one mapping by `entry`, announced; returns the old one. @kvm rmap.c try_to_unmap_one */
function unmapOne(at: PageMapping, level: number, entry: number): number {
  const range = { start: at.hva, end: at.hva + levelSize(level) };
  if (level > 1 && at.vma.hugetlbLevel > 1) adjustForPmdSharing(at.vma, range);
  at.mm.notifiers.start(range.start, range.end, MMU_NOTIFY_CLEAR);
  const old = at.mm.table.lookup(at.hva);
  at.mm.table.replace(at.hva, level, entry);
  at.mm.notifiers.end(range.start, range.end);
  return old;
}

/**
 * Pages out [start, end) of one mapping: written pages go to swap, lazily freed ones that stayed clean are dropped, pages of
 * shared files only lose their mapping (the file keeps them). @kvm madvise.c madvise_pageout
 */
export function pageOut(mm: Mm, vma: Vma, start: number, end: number): void {
  if (vma.hugetlbLevel > 1 || vma.pfnmap) return;
  for (let at = start; at < end; at += SIZE_4K) {
    const word = mm.table.lookup(at);
    if ((word & PTE_PRESENT) === 0 || (word & PTE_SPECIAL) !== 0) continue;
    if (mm.table.level === 2) splitFolio(mm, at);
    pageOutOne(mm, vma, at);
  }
}

function pageOutOne(mm: Mm, vma: Vma, hva: number): void {
  const word = mm.table.lookup(hva);
  const pfn = word & PTE_FRAME_MASK;
  if ((word & PTE_ANON) === 0) {
    for (const m of mappingsOf(mm, hva, word, 1)) releaseEntry(m.mm, unmapOne(m, 1, 0), 1);
    return;
  }
  if (mm.pages.refs[pfn] !== 1) return;
  mm.notifiers.start(hva, hva + SIZE_4K, MMU_NOTIFY_CLEAR);
  const now = mm.table.lookup(hva);
  const dirty = (now & PTE_DIRTY) !== 0 || (mm.pages.flags[pfn]! & FRAME_DIRTY) !== 0;
  if ((now & PTE_LAZYFREE) !== 0 && !dirty) {
    mm.table.setPte(hva, 0);
  } else {
    const slot = mm.swap.store(mm.memory.u8.subarray(pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE));
    mm.table.setPte(hva, PTE_SWAP | slot);
    vma.hasAnonVma = true;
  }
  mm.pages.freePage(pfn);
  mm.notifiers.end(hva, hva + SIZE_4K);
}

/**
 * A memory error in the page at `hva`, which is present: it is unmapped everywhere, its owners get SIGBUS, the frame is lost.
 * Returns 0, -EBUSY (a page of the kernel's own, the zero page), -EHWPOISON (lost already).
 * @kvm memory-failure.c memory_failure
 */
export function memoryFailure(mm: Mm, hva: number): number {
  let word = mm.table.lookup(hva);
  if ((word & PTE_SPECIAL) !== 0) return -EBUSY;
  if (mm.table.level === 2 && (word & PTE_ANON) !== 0) {
    splitFolio(mm, hva);
    word = mm.table.lookup(hva);
  }
  const level = mm.table.level;
  const pfn = word & PTE_FRAME_MASK;
  if (mm.pages.isPoisoned(pfn)) return -EHWPOISON;
  mm.pages.poison(pfn);
  for (const m of mappingsOf(mm, hva, word, level)) {
    const old = unmapOne(m, level, PTE_POISON);
    const lsb = level === 1 ? 12 : level === 2 ? 21 : 30;
    m.mm.signals.push({ signal: SIGBUS, code: 'MCEERR_AR', address: m.hva, lsb });
    releaseEntry(m.mm, old, level);
  }
  return 0;
}

/**
 * Takes the page at `hva`, which is present, out of use before it fails: its contents move to another frame.
 * Returns 0, -EBUSY (cannot move) or -ENOMEM. @kvm memory-failure.c soft_offline_page
 */
export function softOffline(mm: Mm, hva: number): number {
  let word = mm.table.lookup(hva);
  if ((word & PTE_SPECIAL) !== 0) return -EBUSY;
  splitFolio(mm, hva);
  word = mm.table.lookup(hva);
  if (mm.table.level !== 1 || (word & PTE_ANON) === 0) return -EBUSY;
  const pfn = word & PTE_FRAME_MASK;
  const moved = copyOf(mm, pfn);
  if (moved < 0) return -ENOMEM;
  mm.notifiers.start(hva, hva + SIZE_4K, MMU_NOTIFY_CLEAR);
  const now = mm.table.lookup(hva);
  // The copy is made again: a guest could write until the notifier took its mapping away.
  mm.memory.u8.copyWithin(moved * PAGE_SIZE, pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE);
  mm.table.setPte(hva, (now & ~PTE_FRAME_MASK) | moved);
  mm.pages.flags[moved]! |= mm.pages.flags[pfn]! & FRAME_DIRTY;
  mm.pages.poison(pfn);
  mm.pages.freePage(pfn);
  mm.notifiers.end(hva, hva + SIZE_4K);
  return 0;
}
