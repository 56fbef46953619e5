/** A slot that is being deleted or moved: the vCPU tries again until the change is done. */
import { KVM_MEMSLOT_INVALID } from '../../memslots/memslots.ts';
import { RET_PF_CONTINUE, RET_PF_RETRY } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm mmu.c kvm_faultin_pfn */
export const invalidSlot: FaultStage = {
  name: 'invalid-slot',
  kvmFunction: 'kvm_faultin_pfn',
  underMmuLock: false,
  run(_vcpu, fault) {
    const { slot } = fault;
    return slot !== null && (slot.flags & KVM_MEMSLOT_INVALID) !== 0 ? RET_PF_RETRY : RET_PF_CONTINUE;
  },
  explain(_vcpu, fault, verdict) {
    if (fault.slot === null) return 'no slot';
    return verdict === RET_PF_RETRY ? 'the slot is being deleted or moved' : 'the slot is in use';
  },
};
