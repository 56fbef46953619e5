/** What MMU notifiers do to a range of one slot (@kvm mmu.c kvm_unmap_gfn_range, kvm_age_gfn, kvm_test_age_gfn). */
import type { GfnRange } from '../notifier.ts';
import type { VmState } from '../vm-state.ts';
import { memslotsHaveRmaps, rmapZapGfnRange } from './shadow/rmap.ts';
import { rmapAgeGfnRange } from './shadow/slot-range.ts';
import { tdpMmuAgeGfnRange, tdpMmuTestAgeGfn } from './tdp-mmu/age.ts';
import { tdpMmuUnmapGfnRange } from './tdp-mmu/zap.ts';

/** Removes the mappings of the range; true when TLBs must be flushed. mmu_lock held for write. @kvm mmu.c kvm_unmap_gfn_range */
export function unmapGfnRange(vm: VmState, range: GfnRange): boolean {
  const flush = memslotsHaveRmaps(vm) && rmapZapGfnRange(vm, range.slot, range.start, range.end);
  return vm.mmu.tdpMmuEnabled ? tdpMmuUnmapGfnRange(vm, range, flush) : flush;
}

/** Marks the range unused; true when some of it had been used. @kvm mmu.c kvm_age_gfn */
export function ageGfn(vm: VmState, range: GfnRange): boolean {
  const young = memslotsHaveRmaps(vm) && rmapAgeGfnRange(vm, range, false);
  return (vm.mmu.tdpMmuEnabled && tdpMmuAgeGfnRange(vm, range)) || young;
}

/** True when some of the range was used since it was last aged. @kvm mmu.c kvm_test_age_gfn */
export function testAgeGfn(vm: VmState, range: GfnRange): boolean {
  const young = memslotsHaveRmaps(vm) && rmapAgeGfnRange(vm, range, true);
  return (vm.mmu.tdpMmuEnabled && tdpMmuTestAgeGfn(vm, range)) || young;
}
