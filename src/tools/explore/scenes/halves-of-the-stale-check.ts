/** The check under mmu_lock with one of its two halves left out. */

import { RET_PF_CONTINUE, RET_PF_RETRY } from '../../../kvm/mmu/ret-pf.ts';
import type { FaultStage } from '../../../kvm/mmu/revisions/revision.ts';
import { staleCheck } from '../../../kvm/mmu/stages/stale-check.ts';

/** Nobody asks whether an invalidation is under way. */
export const onlySequence: FaultStage = {
  ...staleCheck,
  run: (vcpu, fault) =>
    fault.slot !== null && fault.mmuSeq !== vcpu.vm.mmuInvalidateSeq ? RET_PF_RETRY : RET_PF_CONTINUE,
};

/** Nobody asks whether one has ended since the snapshot. */
export const onlyInProgress: FaultStage = {
  ...staleCheck,
  run({ vm }, fault) {
    const inRange = fault.gfn >= vm.mmuInvalidateRangeStart && fault.gfn < vm.mmuInvalidateRangeEnd;
    return fault.slot !== null && vm.mmuInvalidateInProgress !== 0 && inRange ? RET_PF_RETRY : RET_PF_CONTINUE;
  },
};
