/** madvise: what a process tells the kernel about its memory. @kvm madvise.c */
import { hiOf, loOf } from '../arch/halves.ts';
import { unreachable } from '../arch/unreachable.ts';
import { collapseRange } from './collapse.ts';
import { EACCES, EINVAL, ENOMEM } from './errno.ts';
import { FOLL_WRITE, type GupResult, getUserPages } from './gup.ts';
import { changeVmas, checkRange } from './mapping.ts';
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
  PTE_LAZYFREE,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_SWAP,
  SIZE_2M,
  SIZE_4K,
} from './page-table.ts';
import { memoryFailure, pageOut, softOffline } from './reclaim.ts';
import { PROT_READ, PROT_WRITE, type Vma } from './vma.ts';
import { releaseEntry, splitHugePmd, zapPageRangeSingle } from './zap.ts';

/** What can be advised. */
export const advices = [
  'dontneed',
  'free',
  'remove',
  'collapse',
  'hugepage',
  'nohugepage',
  'populate_read',
  'populate_write',
  'pageout',
  'hwpoison',
  'soft_offline',
] as const;
export type Advice = (typeof advices)[number];

const scratch: GupResult = { pfn: 0, writable: false };

/**
 * Returns 0 or a negative errno: -EINVAL (range, or advice that does not fit the mapping), -ENOMEM (part of the range is not
 * mapped; the rest was treated), -EFAULT, -EHWPOISON, -EACCES, -EBUSY, -EAGAIN (would sleep).
 */
export function adviseRange(mm: Mm, hva: number, length: number, advice: Advice): number {
  if (length === 0 && hva % SIZE_4K === 0) return 0;
  const bad = checkRange(hva, length);
  if (bad !== 0) return bad;
  const end = hva + alignUp(length, SIZE_4K);
  if (advice === 'hwpoison' || advice === 'soft_offline') return injectError(mm, hva, end, advice);
  if (advice === 'populate_read' || advice === 'populate_write')
    return populate(mm, hva, end, advice === 'populate_write');
  if (advice === 'hugepage' || advice === 'nohugepage') {
    if (mm.vmas.overlapping(hva, end).some((v) => !v.isAnonymous && v.hugetlbLevel > 1)) return -EINVAL;
    changeVmas(mm, hva, end, (vma) => {
      vma.thp = advice;
    });
    return mm.vmas.covers(hva, end) ? 0 : -ENOMEM;
  }
  for (const vma of mm.vmas.overlapping(hva, end)) {
    const start = Math.max(hva, vma.start);
    const stop = Math.min(end, vma.end);
    const error = adviseOne(mm, vma, start, stop, advice);
    if (error !== 0) return error;
  }
  return mm.vmas.covers(hva, end) ? 0 : -ENOMEM;
}

function adviseOne(
  mm: Mm,
  vma: Vma,
  start: number,
  end: number,
  advice: 'dontneed' | 'free' | 'remove' | 'collapse' | 'pageout',
): number {
  if (vma.pfnmap) return -EINVAL;
  switch (advice) {
    case 'dontneed': {
      const unit = levelSize(vma.hugetlbLevel);
      if (start % unit !== 0) return -EINVAL;
      const stop = alignDown(end, unit);
      if (start < stop) zapPageRangeSingle(mm, vma, start, stop, true);
      return 0;
    }
    case 'free':
      if (!vma.isAnonymous || vma.shared) return -EINVAL;
      freeLazily(mm, start, end);
      return 0;
    case 'remove':
      if (vma.file === null) return -EINVAL;
      if (!vma.shared || (vma.prot & PROT_WRITE) === 0) return -EACCES;
      return vma.file.punchHole(vma.offsetOf(start), end - start);
    case 'collapse':
      return collapseRange(mm, vma, start, end);
    case 'pageout':
      if (vma.hugetlbLevel > 1) return -EINVAL;
      pageOut(mm, vma, start, end);
      return 0;
    default:
      return unreachable(advice);
  }
}

/** The contents may be dropped when memory is short, unless the pages are written first. @kvm madvise.c madvise_free_single_vma */
function freeLazily(mm: Mm, start: number, end: number): void {
  mm.notifiers.start(start, end, MMU_NOTIFY_CLEAR);
  for (let at = start; at < end; ) {
    const word = mm.table.lookup(at);
    const level = mm.table.level;
    if (level === 2 && (word & PTE_SPECIAL) === 0 && (at % SIZE_2M !== 0 || end - at < SIZE_2M)) {
      splitHugePmd(mm, at);
      continue;
    }
    if ((word & PTE_SWAP) !== 0) {
      mm.table.setPte(at, 0);
      releaseEntry(mm, word, 1);
    } else if ((word & (PTE_PRESENT | PTE_ANON)) === (PTE_PRESENT | PTE_ANON)) {
      mm.pages.flags[word & PTE_FRAME_MASK]! &= ~FRAME_DIRTY;
      mm.table.replace(at, level, (word & ~PTE_DIRTY) | PTE_LAZYFREE);
    }
    at = level === 2 ? alignDown(at, SIZE_2M) + SIZE_2M : at + SIZE_4K;
  }
  mm.notifiers.end(start, end);
}

/** @kvm madvise.c madvise_populate */
function populate(mm: Mm, start: number, end: number, write: boolean): number {
  for (let at = start; at < end; at += SIZE_4K) {
    const vma = mm.vmas.find(at);
    if (vma === null) return -ENOMEM;
    if (vma.pfnmap || (vma.prot & (write ? PROT_WRITE : PROT_READ)) === 0) return -EINVAL;
    const error = getUserPages(mm, loOf(at), hiOf(at), write ? FOLL_WRITE : 0, scratch);
    if (error !== 0) return error;
  }
  return 0;
}

/** @kvm madvise.c madvise_inject_error */
function injectError(mm: Mm, start: number, end: number, advice: 'hwpoison' | 'soft_offline'): number {
  for (let at = start; at < end; ) {
    const error = getUserPages(mm, loOf(at), hiOf(at), 0, scratch);
    if (error !== 0) return error;
    mm.table.lookup(at);
    const size = levelSize(mm.table.level);
    const failed = advice === 'hwpoison' ? memoryFailure(mm, at) : softOffline(mm, at);
    if (failed !== 0) return failed;
    at = alignDown(at, size) + size;
  }
  return 0;
}
