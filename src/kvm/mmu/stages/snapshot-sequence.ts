/** From here on, an invalidation anywhere changes the sequence number, and what this fault has seen is void. */
import { RET_PF_CONTINUE } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm mmu.c kvm_faultin_pfn */
export const snapshotSequence: FaultStage = {
  name: 'snapshot-sequence',
  kvmFunction: 'kvm_faultin_pfn',
  underMmuLock: false,
  run(vcpu, fault) {
    fault.mmuSeq = vcpu.vm.mmuInvalidateSeq;
    return RET_PF_CONTINUE;
  },
  explain(_vcpu, fault) {
    return `mmu_invalidate_seq is ${fault.mmuSeq}`;
  },
};

/**
 * The second snapshot that f6adeae81f35 added after the slot checks, and so after the private/shared check: an attribute change since the
 * first is forgotten. A fault without slot has no use for it and keeps the first.
 * @kvm mmu.c kvm_faultin_pfn
 */
export const snapshotSequenceAgain: FaultStage = {
  ...snapshotSequence,
  name: 'snapshot-sequence-again',
  run(vcpu, fault) {
    return fault.slot === null ? RET_PF_CONTINUE : snapshotSequence.run(vcpu, fault);
  },
  explain(_vcpu, fault) {
    if (fault.slot === null) return `no slot: mmu_invalidate_seq stays ${fault.mmuSeq}`;
    return `mmu_invalidate_seq is ${fault.mmuSeq}, read a second time: what changed since the first time is forgotten`;
  },
};
