/** Splitting huge pages into page tables that map the same (@kvm tdp_mmu.c tdp_mmu_split_huge_page). */
import { ENOMEM } from '../../../host/errno.ts';
import { LOCK_MMU } from '../../locks.ts';
import type { Memslot } from '../../memslots/memslots.ts';
import type { VmState } from '../../vm-state.ts';
import { makeHugePageSplitSpte } from '../make-spte.ts';
import { traceSplitHugePage } from '../mmutrace.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isLargePte, isShadowPresent } from '../spte.ts';
import type { TdpIter } from '../tdp-iter.ts';
import { updatePageStats } from './changed-spte.ts';
import { linkSp } from './link.ts';
import { allocSp, ENTRIES_PER_PAGE, freeSp, initChildSp } from './pages.ts';
import { tdpMmuRoots } from './roots.ts';
import { writeSpte } from './write-spte.ts';

/**
 * Fills `sp`, which describes the child of the iterator's huge entry, and puts it in the huge entry's place. 0 or -EBUSY.
 * @kvm tdp_mmu.c tdp_mmu_split_huge_page
 */
export function splitHugePage(vm: VmState, iter: TdpIter, sp: ShadowPage, shared: boolean): number {
  const hugeLo = iter.oldLo;
  const hugeHi = iter.oldHi;
  const level = iter.level;
  const spte = vm.mmu.newSpte;
  for (let i = 0; i < ENTRIES_PER_PAGE; i++) {
    makeHugePageSplitSpte(vm, spte, hugeLo, hugeHi, sp.role, i);
    writeSpte(vm.memory.i32, (sp.pfn << 10) | (i << 1), spte.lo, spte.hi);
  }
  const ret = linkSp(vm, iter, sp, shared);
  // The change of the huge entry counted it out; the new ones are counted in here.
  if (ret === 0) updatePageStats(vm, level - 1, ENTRIES_PER_PAGE);
  if (vm.trace.enabled) traceSplitHugePage(vm, iter.gfn, hugeLo, hugeHi, level, ret);
  return ret;
}

/**
 * Splits every huge page of one root in [start, end) down to `targetLevel`; a 1 GiB page becomes 2 MiB pages, and those 4 KiB.
 * @kvm tdp_mmu.c tdp_mmu_split_huge_pages_root
 */
function splitHugePagesRoot(
  vm: VmState,
  root: ShadowPage,
  start: number,
  end: number,
  targetLevel: number,
  shared: boolean,
): number {
  const iter = vm.mmu.iter;
  for (iter.start(root, targetLevel + 1, start); iter.valid && iter.gfn < end; iter.next()) {
    while (isShadowPresent(iter.oldLo) && isLargePte(iter.oldLo)) {
      const sp = allocSp(vm);
      if (sp === null) {
        if (vm.trace.enabled) traceSplitHugePage(vm, iter.gfn, iter.oldLo, iter.oldHi, iter.level, -ENOMEM);
        return -ENOMEM;
      }
      initChildSp(vm, sp, iter);
      if (splitHugePage(vm, iter, sp, shared) === 0) break;
      freeSp(vm, sp);
    }
  }
  return 0;
}

/** @kvm tdp_mmu.c kvm_tdp_mmu_try_split_huge_pages */
export function trySplitHugePages(
  vm: VmState,
  slot: Memslot,
  start: number,
  end: number,
  targetLevel: number,
  shared: boolean,
): void {
  vm.locks.assertHeld(LOCK_MMU);
  for (const root of tdpMmuRoots(vm, slot.asId, true)) {
    if (splitHugePagesRoot(vm, root, start, end, targetLevel, shared) !== 0) break;
  }
}
