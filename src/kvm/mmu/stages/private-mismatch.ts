/** An access that disagrees with the gfn's attribute goes to userspace, whatever the slots say. Only after the sequence was snapshot. */
import { EFAULT } from '../../../host/errno.ts';
import { memIsPrivate } from '../../attributes.ts';
import { prepareMmuMemoryFaultExit } from '../memory-fault.ts';
import { isNoslotPfn } from '../pfn.ts';
import { RET_PF_CONTINUE } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm mmu.c kvm_faultin_pfn */
export const privateMismatch: FaultStage = {
  name: 'private-mismatch',
  kvmFunction: 'kvm_faultin_pfn',
  underMmuLock: false,
  run(vcpu, fault) {
    if (fault.isPrivate === memIsPrivate(vcpu.vm, fault.gfn)) return RET_PF_CONTINUE;
    prepareMmuMemoryFaultExit(vcpu, fault);
    return -EFAULT;
  },
  explain(_vcpu, fault, verdict) {
    const access = fault.isPrivate ? 'private' : 'shared';
    if (verdict === RET_PF_CONTINUE) return `the access is ${access}, and so is the gfn`;
    return `the access is ${access}, the gfn is ${fault.isPrivate ? 'shared' : 'private'}: userspace must convert it`;
  },
};

/** Until 44f42ef37deb it came after the slot checks, and a fault of L2 that was found to have no slot was not asked. */
export const privateMismatchOfSlots: FaultStage = {
  ...privateMismatch,
  kvmFunction: '__kvm_faultin_pfn',
  run(vcpu, fault) {
    return isNoslotPfn(fault.pfn) ? RET_PF_CONTINUE : privateMismatch.run(vcpu, fault);
  },
  explain(vcpu, fault, verdict) {
    return isNoslotPfn(fault.pfn) ? 'MMIO of L2 is not asked' : privateMismatch.explain(vcpu, fault, verdict);
  },
};
