/** Reading what the page tables say about a gfn (@kvm tdp_mmu.c kvm_tdp_mmu_get_walk, kvm_tdp_mmu_fast_pf_get_last_sptep). */
import type { VcpuState } from '../../vcpu-state.ts';
import type { TdpIter } from '../tdp-iter.ts';

/** Walks to the last entry for `gfn`; the iterator is left on it, with its value. HOT @kvm tdp_mmu.c kvm_tdp_mmu_get_walk */
export function walkToLastSpte(vcpu: VcpuState, gfn: number): TdpIter {
  const mmu = vcpu.vm.mmu;
  const iter = mmu.faultIter;
  iter.start(mmu.shadowPage(vcpu.mmu.mmu.root.pfn), 1, gfn);
  // Going down is all there is to it: the walk ends where no table hangs below.
  while (iter.stepDown());
  return iter;
}
