/** An invalidation of the gfn is under way or has happened: retry before the host is asked for the page. */
import { retryIfInvalidated } from '../invalidation-check.ts';
import { RET_PF_RETRY } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm kvm_host.h mmu_invalidate_retry_gfn_unsafe */
export const invalidationPrecheck: FaultStage = {
  name: 'invalidation-precheck',
  kvmFunction: 'mmu_invalidate_retry_gfn_unsafe',
  underMmuLock: false,
  run: retryIfInvalidated,
  explain(_vcpu, fault, verdict) {
    if (verdict === RET_PF_RETRY) return 'the gfn is being invalidated, or was since the snapshot';
    return fault.slot === null ? 'MMIO is not invalidated' : 'nothing was invalidated since the snapshot';
  },
};
