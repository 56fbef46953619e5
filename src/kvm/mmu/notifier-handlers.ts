/** What MMU notifiers do to a range of one slot (@kvm mmu.c kvm_unmap_gfn_range, kvm_age_gfn, kvm_test_age_gfn). */
import type { GfnRange } from '../notifier.ts';
import type { VmState } from '../vm-state.ts';
import { tdpMmuAgeGfnRange, tdpMmuTestAgeGfn } from './tdp-mmu/age.ts';
import { tdpMmuUnmapGfnRange } from './tdp-mmu/zap.ts';

/** Removes the mappings of the range; true when TLBs must be flushed. mmu_lock held for write. @kvm mmu.c kvm_unmap_gfn_range */
export function unmapGfnRange(vm: VmState, range: GfnRange): boolean {
  return tdpMmuUnmapGfnRange(vm, range, false);
}

/** Marks the range unused; true when some of it had been used. @kvm mmu.c kvm_age_gfn */
export function ageGfn(vm: VmState, range: GfnRange): boolean {
  return tdpMmuAgeGfnRange(vm, range);
}

/** True when some of the range was used since it was last aged. @kvm mmu.c kvm_test_age_gfn */
export function testAgeGfn(vm: VmState, range: GfnRange): boolean {
  return tdpMmuTestAgeGfn(vm, range);
}
