/** Now that nobody can invalidate anything: is the root still in use, and is the page still the one? */
import { mmuInvalidateRetryGfn } from '../../notifier.ts';
import { RET_PF_CONTINUE, RET_PF_RETRY } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';
import { isObsoleteSp } from '../roots.ts';

/** @kvm mmu.c is_page_fault_stale */
export const staleCheck: FaultStage = {
  name: 'stale-check',
  kvmFunction: 'is_page_fault_stale',
  underMmuLock: true,
  run(vcpu, fault) {
    const vm = vcpu.vm;
    if (isObsoleteSp(vm.mmu.shadowPage(vcpu.mmu.mmu.root.pfn))) return RET_PF_RETRY;
    if (fault.slot !== null && mmuInvalidateRetryGfn(vm, fault.mmuSeq, fault.gfn)) return RET_PF_RETRY;
    return RET_PF_CONTINUE;
  },
  explain(vcpu, _fault, verdict) {
    if (verdict === RET_PF_CONTINUE) return 'root and page are still good';
    if (isObsoleteSp(vcpu.vm.mmu.shadowPage(vcpu.mmu.mmu.root.pfn))) return 'the root was invalidated';
    return 'the gfn was invalidated since the snapshot';
  },
};
