/** The largest gfn that can have an entry (@kvm mmu.h kvm_mmu_max_gfn): the host's physical address width bounds it under TDP. */
import type { VmState } from '../vm-state.ts';

/** @kvm mmu.h kvm_mmu_max_gfn */
export function maxGfn(vm: VmState): number {
  return 2 ** ((vm.vendor.tdpEnabled ? vm.profile.maxPhyAddr : 52) - 12) - 1;
}
