/** Idle page tracking: marks a page idle and finds out later whether anybody used it. @kvm page_idle.c */
import type { Mm } from './mm.ts';
import { FRAME_IDLE } from './page-allocator.ts';
import { levelSize, PTE_FRAME_MASK, PTE_PRESENT, PTE_SPECIAL, PTE_YOUNG } from './page-table.ts';
import { mappingsOf } from './reclaim.ts';

/** First frame of the folio mapped at `hva`, or -1 when there is none that can be tracked; hugetlb folios cannot. */
function trackedFolio(mm: Mm, hva: number): number {
  const word = mm.table.lookup(hva);
  if ((word & PTE_PRESENT) === 0 || (word & PTE_SPECIAL) !== 0) return -1;
  const vma = mm.vmas.find(hva);
  return vma === null || vma.hugetlbLevel > 1 ? -1 : word & PTE_FRAME_MASK;
}

/**
 * Clears the accessed bit in every mapping, mirrors included; one that was set ends the idleness. @kvm page_idle.c
 * page_idle_clear_pte_refs
 */
function clearReferences(mm: Mm, hva: number, pfn: number): void {
  const word = mm.table.lookup(hva);
  const level = mm.table.level;
  let referenced = false;
  for (const m of mappingsOf(mm, hva, word, level)) {
    const theirs = m.mm.table.lookup(m.hva);
    if ((theirs & PTE_YOUNG) !== 0) {
      referenced = true;
      m.mm.table.replace(m.hva, level, theirs & ~PTE_YOUNG);
    }
    referenced = m.mm.notifiers.clearYoung(m.hva, m.hva + levelSize(level)) || referenced;
  }
  if (referenced) mm.pages.flags[pfn]! &= ~FRAME_IDLE;
}

/** Marks the page at `hva` idle; nothing happens when there is none. @kvm page_idle.c page_idle_bitmap_write */
export function markIdle(mm: Mm, hva: number): void {
  const pfn = trackedFolio(mm, hva);
  if (pfn < 0) return;
  clearReferences(mm, hva, pfn);
  mm.pages.flags[pfn]! |= FRAME_IDLE;
}

/** True when the page at `hva` was marked and not used since. @kvm page_idle.c page_idle_bitmap_read */
export function readIdle(mm: Mm, hva: number): boolean {
  const pfn = trackedFolio(mm, hva);
  if (pfn < 0 || (mm.pages.flags[pfn]! & FRAME_IDLE) === 0) return false;
  clearReferences(mm, hva, pfn);
  return (mm.pages.flags[pfn]! & FRAME_IDLE) !== 0;
}
