/** Dropping every mapping of a VM: vCPUs lose their roots at once, the entries go afterwards (@kvm mmu.c kvm_mmu_zap_all_fast). */
import { LOCK_MMU_WRITE } from '../locks.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { traceZapAllFast } from './mmutrace.ts';
import { zapObsoletePages } from './shadow/recycle.ts';
import { invalidateAllRoots, zapInvalidatedRoots } from './tdp-mmu/roots.ts';
import { makeAllCpusRequest } from './tlb-flush.ts';

/** mmu_lock held for write. @kvm mmu.c __kvm_mmu_zap_all_fast_front_half */
export function zapAllFastFrontHalf(vm: VmState): void {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  if (vm.trace.enabled) traceZapAllFast(vm);
  vm.mmu.mmuValidGen = vm.mmu.mmuValidGen === 0 ? 1 : 0;
  invalidateAllRoots(vm);
  makeAllCpusRequest(vm, REQ_MMU_FREE_OBSOLETE_ROOTS);
  zapObsoletePages(vm);
}

/** mmu_lock not held. @kvm mmu.c __kvm_mmu_zap_all_fast_back_half */
export function zapAllFastBackHalf(vm: VmState): void {
  vm.locks.assertNotHeld(LOCK_MMU_WRITE);
  zapInvalidatedRoots(vm);
}

/** @kvm mmu.c kvm_mmu_zap_all_fast */
export function zapAllFast(vm: VmState): void {
  vm.locks.acquire(LOCK_MMU_WRITE);
  zapAllFastFrontHalf(vm);
  vm.locks.release(LOCK_MMU_WRITE);
  zapAllFastBackHalf(vm);
}
