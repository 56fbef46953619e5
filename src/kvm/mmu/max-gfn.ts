/** The largest gfn that can have an entry (@kvm mmu.h kvm_mmu_max_gfn): the host's physical address width bounds it under TDP. */
import type { VmState } from '../vm-state.ts';

/** The largest number of n bits: a table is many times faster than a power. */
const ALL_OF_BITS = Array.from({ length: 53 }, (_, n) => 2 ** n - 1);

/** @kvm mmu.h kvm_mmu_max_gfn */
export function maxGfn(vm: VmState): number {
  return ALL_OF_BITS[(vm.vendor.tdpEnabled ? vm.profile.maxPhyAddr : 52) - 12]!;
}
