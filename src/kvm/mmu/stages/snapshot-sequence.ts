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
