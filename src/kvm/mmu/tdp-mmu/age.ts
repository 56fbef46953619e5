/** Page aging: who used a page since it was last asked (@kvm tdp_mmu.c age_gfn_range, test_age_gfn). */
import type { GfnRange } from '../../notifier.ts';
import type { VmState } from '../../vm-state.ts';
import { setPfnDirty } from '../host-page.ts';
import { traceSpteChanged } from '../mmutrace.ts';
import {
  isAccessedSpte,
  isLastSpte,
  isShadowPresent,
  isWritable,
  markSpteForAccessTrack,
  spteAdEnabled,
  sptePfn,
} from '../spte.ts';
import type { TdpIter } from '../tdp-iter.ts';
import { tdpMmuRoots } from './roots.ts';
import { writeSpte } from './write-spte.ts';

/** Clears what says that the entry was used. */
function ageSpte(vm: VmState, iter: TdpIter): void {
  const spte = vm.mmu.newSpte;
  spte.lo = iter.oldLo;
  spte.hi = iter.oldHi;
  if (!spteAdEnabled(iter.oldHi) && isWritable(iter.oldLo)) setPfnDirty(vm, sptePfn(iter.oldLo, iter.oldHi));
  markSpteForAccessTrack(vm.mmu.masks, spte);
  writeSpte(vm.memory.i32, iter.sptep, spte.lo, spte.hi);
  if (vm.trace.enabled) {
    traceSpteChanged(vm, iter.asId, iter.gfn, iter.level, iter.oldLo, iter.oldHi, spte.lo, spte.hi);
  }
}

function ageRange(vm: VmState, range: GfnRange, testOnly: boolean): boolean {
  const iter = vm.mmu.iter;
  let young = false;
  for (const root of tdpMmuRoots(vm, range.slot.asId, false)) {
    for (iter.start(root, 1, range.start); iter.valid && iter.gfn < range.end; iter.next()) {
      if (!isShadowPresent(iter.oldLo) || !isLastSpte(iter.oldLo, iter.level)) continue;
      if (!isAccessedSpte(vm.mmu.masks, iter.oldLo, iter.oldHi)) continue;
      young = true;
      if (!testOnly) ageSpte(vm, iter);
    }
  }
  return young;
}

/** Clears A in the range; true when it was set somewhere. @kvm tdp_mmu.c kvm_tdp_mmu_age_gfn_range */
export function tdpMmuAgeGfnRange(vm: VmState, range: GfnRange): boolean {
  return ageRange(vm, range, false);
}

/** @kvm tdp_mmu.c kvm_tdp_mmu_test_age_gfn */
export function tdpMmuTestAgeGfn(vm: VmState, range: GfnRange): boolean {
  return ageRange(vm, range, true);
}
