/** A slot that yields "no slot" as its page is a bug; it is treated as MMIO. */
import { handleNoslotFault } from '../noslot-fault.ts';
import { isNoslotPfn } from '../pfn.ts';
import { RET_PF_CONTINUE } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm mmu.c kvm_faultin_pfn */
export const noslotPfn: FaultStage = {
  name: 'noslot-pfn',
  kvmFunction: 'kvm_faultin_pfn',
  underMmuLock: false,
  run(vcpu, fault) {
    if (fault.slot === null || !isNoslotPfn(fault.pfn)) return RET_PF_CONTINUE;
    vcpu.vm.log.warnOnOnce(
      true,
      'kvm_faultin_pfn',
      `slot ${fault.slot.id} gave no page for gfn 0x${fault.gfn.toString(16)}`,
    );
    return handleNoslotFault(vcpu, fault, fault.ptAccess);
  },
  explain(_vcpu, fault, verdict) {
    return verdict === RET_PF_CONTINUE && fault.slot !== null ? 'the page is a real one' : 'no slot';
  },
};
