/** MADV_COLLAPSE: the small pages of a range become 2 MiB pages, by copying. @kvm khugepaged.c madvise_collapse */
import { EAGAIN, EINVAL, ENOMEM } from './errno.ts';
import type { Mm } from './mm.ts';
import { MMU_NOTIFY_CLEAR } from './mmu-notifier.ts';
import { FRAME_DIRTY } from './page-allocator.ts';
import {
  alignDown,
  alignUp,
  PTE_ANON,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_FRAME_MASK,
  PTE_PRESENT,
  PTE_SPECIAL,
  PTE_SWAP,
  PTE_USER,
  PTE_WRITE,
  PTE_YOUNG,
  pmdIndex,
  SIZE_2M,
} from './page-table.ts';
import { PAGE_SIZE } from './physical-memory.ts';
import { PROT_WRITE, type Vma } from './vma.ts';
import { releaseEntry } from './zap.ts';

/**
 * Collapses every whole 2 MiB of [start, end), which lies in `vma`. Returns 0 when all are huge afterwards; else -EINVAL (nothing that
 * could be collapsed, or memory that is told to stay small; only anonymous memory collapses here), -EAGAIN (a page is in use
 * elsewhere), -ENOMEM (no huge page is free).
 */
export function collapseRange(mm: Mm, vma: Vma, start: number, end: number): number {
  if (!vma.isAnonymous || vma.shared || vma.pfnmap || vma.thp === 'nohugepage') return -EINVAL;
  let failed = 0;
  for (let at = alignUp(start, SIZE_2M); at < alignDown(end, SIZE_2M); at += SIZE_2M) {
    const error = collapseOne(mm, vma, at);
    if (error === -ENOMEM) return error;
    if (error !== 0) failed = error;
  }
  return failed;
}

/** @kvm khugepaged.c hpage_collapse_scan_pmd, collapse_huge_page */
function collapseOne(mm: Mm, vma: Vma, at: number): number {
  const g = mm.table.gigabyte(at);
  const i = pmdIndex(at);
  const table = g === null ? null : g.tables[i]!;
  if (g === null || table === null) return g !== null && g.pmd[i] !== 0 ? 0 : -EINVAL;
  const refusal = collapsible(mm, vma, table);
  if (refusal !== 0) return refusal;
  const huge = mm.pages.allocHuge();
  if (huge < 0) return -ENOMEM;
  mm.notifiers.start(at, at + SIZE_2M, MMU_NOTIFY_CLEAR);
  g.tables[i] = null;
  mm.notifiers.end(at, at + SIZE_2M);
  for (let n = 0; n < 512; n++) {
    const word = table[n]!;
    if (word === 0 || (word & PTE_SPECIAL) !== 0) continue;
    const to = (huge + n) * PAGE_SIZE;
    const frame = word & PTE_FRAME_MASK;
    if ((word & PTE_SWAP) !== 0) mm.swap.load(frame, mm.memory.u8.subarray(to, to + PAGE_SIZE));
    else {
      mm.memory.u8.copyWithin(to, frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE);
      releaseEntry(mm, word, 1);
    }
  }
  mm.pages.flags[huge]! |= FRAME_DIRTY;
  const access = vma.prot === 0 ? 0 : PTE_USER;
  const write = (vma.prot & PROT_WRITE) === 0 ? 0 : PTE_WRITE;
  g.pmd[i] = PTE_PRESENT | PTE_YOUNG | access | write | PTE_ANON | PTE_EXCLUSIVE | PTE_DIRTY | huge;
  return 0;
}

/** One page at least must be writable, and every page this mapping's alone. */
function collapsible(mm: Mm, vma: Vma, table: Int32Array): number {
  let writable = false;
  for (const word of table) {
    const missing = word === 0 || (word & PTE_SPECIAL) !== 0;
    if (missing && vma.uffd !== 'off') return -EINVAL;
    if (missing || (word & PTE_SWAP) !== 0) continue;
    if ((word & PTE_PRESENT) === 0) return -EINVAL;
    if ((word & PTE_WRITE) !== 0) writable = true;
    if (mm.pages.refs[word & PTE_FRAME_MASK] !== 1) return -EAGAIN;
  }
  return writable ? 0 : -EINVAL;
}
