/** The host had no page to give: a signal, read-only memory, a memory error, or nothing at all. */
import { EFAULT, EINTR } from '../../../host/errno.ts';
import { SIGBUS } from '../../../host/host-signal.ts';
import { KVM_EXIT_INTR } from '../../kvm-run.ts';
import { gfnToHvaMemslot } from '../../memslots/hva.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { PageFault } from '../fault.ts';
import { isErrorPfn, KVM_PFN_ERR_HWPOISON, KVM_PFN_ERR_RO_FAULT, KVM_PFN_ERR_SIGPENDING } from '../pfn.ts';
import { RET_PF_CONTINUE, RET_PF_EMULATE, RET_PF_RETRY } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm mmu.c kvm_handle_error_pfn */
function handleErrorPfn(vcpu: VcpuState, fault: PageFault): number {
  if (fault.pfn === KVM_PFN_ERR_SIGPENDING) {
    vcpu.run.exitReason = KVM_EXIT_INTR;
    vcpu.stats.signal_exits++;
    return -EINTR;
  }
  // Not remembered in an entry: reads of the page must go on without KVM.
  if (fault.pfn === KVM_PFN_ERR_RO_FAULT) return RET_PF_EMULATE;
  if (fault.pfn === KVM_PFN_ERR_HWPOISON) {
    const address = gfnToHvaMemslot(fault.slot, fault.gfn);
    vcpu.vm.mm.sendSignal({ signal: SIGBUS, code: 'MCEERR_AR', address, lsb: 12 });
    vcpu.signal = true;
    return RET_PF_RETRY;
  }
  return -EFAULT;
}

/** @kvm mmu.c kvm_handle_error_pfn */
export const errorPfn: FaultStage = {
  name: 'error-pfn',
  kvmFunction: 'kvm_handle_error_pfn',
  underMmuLock: false,
  run(vcpu, fault) {
    return isErrorPfn(fault.pfn) ? handleErrorPfn(vcpu, fault) : RET_PF_CONTINUE;
  },
  explain(_vcpu, fault, verdict) {
    if (verdict === RET_PF_CONTINUE) return 'there is a page, or none is needed';
    if (fault.pfn === KVM_PFN_ERR_SIGPENDING) return 'a signal ended the wait for the page';
    if (fault.pfn === KVM_PFN_ERR_RO_FAULT) return 'a write to read-only memory is emulated';
    if (fault.pfn === KVM_PFN_ERR_HWPOISON) return 'the page was lost to a memory error: the process gets SIGBUS';
    return 'the host address is not mapped for this access';
  },
};
