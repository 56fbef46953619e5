/** What MMU notifiers do to a range of one slot (@kvm mmu.c kvm_unmap_gfn_range, kvm_age_gfn, kvm_test_age_gfn). */
import { APIC_ACCESS_PAGE_PRIVATE_MEMSLOT } from '../memslots/memslot.ts';
import type { GfnRange } from '../notifier.ts';
import { REQ_APIC_PAGE_RELOAD } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { memslotsHaveRmaps, rmapZapGfnRange } from './shadow/rmap.ts';
import { rmapAgeGfnRange } from './shadow/slot-range.ts';
import { tdpMmuAgeGfnRange, tdpMmuTestAgeGfn } from './tdp-mmu/age.ts';
import { tdpMmuUnmapGfnRange } from './tdp-mmu/zap.ts';
import { makeAllCpusRequest } from './tlb-flush.ts';

/** Removes the mappings of the range; true when TLBs must be flushed. mmu_lock held for write. @kvm mmu.c kvm_unmap_gfn_range */
export function unmapGfnRange(vm: VmState, range: GfnRange): boolean {
  if (range.slot.id === APIC_ACCESS_PAGE_PRIVATE_MEMSLOT) makeAllCpusRequest(vm, REQ_APIC_PAGE_RELOAD);
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
