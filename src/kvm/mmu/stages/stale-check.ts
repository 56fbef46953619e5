/** Now that nobody can invalidate anything: is the root still in use, and is the page still the one? */
import { mmuInvalidateRetryGfn } from '../../notifier.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS, type VcpuState } from '../../vcpu-state.ts';
import { isObsoleteSp, rootToSp } from '../obsolete.ts';
import { RET_PF_CONTINUE, RET_PF_RETRY } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** A root without a page of its own is taken for obsolete while vCPUs are asked to look for such. HOT */
function isRootObsolete(vcpu: VcpuState): boolean {
  const sp = rootToSp(vcpu.vm, vcpu.mmu.mmu.root.pfn);
  return sp === null ? (vcpu.requests & REQ_MMU_FREE_OBSOLETE_ROOTS) !== 0 : isObsoleteSp(vcpu.vm, sp);
}

/** @kvm mmu.c is_page_fault_stale */
export const staleCheck: FaultStage = {
  name: 'stale-check',
  kvmFunction: 'is_page_fault_stale',
  underMmuLock: true,
  run(vcpu, fault) {
    const vm = vcpu.vm;
    if (isRootObsolete(vcpu)) return RET_PF_RETRY;
    if (fault.slot !== null && mmuInvalidateRetryGfn(vm, fault.mmuSeq, fault.gfn)) return RET_PF_RETRY;
    return RET_PF_CONTINUE;
  },
  explain(vcpu, _fault, verdict) {
    if (verdict === RET_PF_CONTINUE) return 'root and page are still good';
    if (isRootObsolete(vcpu)) return 'the root was invalidated';
    return 'the gfn was invalidated since the snapshot';
  },
};
