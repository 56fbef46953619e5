/** The same question again after the host gave its page, which may have taken long. */
import { retryIfInvalidated } from '../invalidation-check.ts';
import { RET_PF_RETRY } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm kvm_host.h mmu_invalidate_retry_gfn_unsafe */
export const invalidationRecheck: FaultStage = {
  name: 'invalidation-recheck',
  kvmFunction: 'mmu_invalidate_retry_gfn_unsafe',
  underMmuLock: false,
  run: retryIfInvalidated,
  explain(_vcpu, fault, verdict) {
    if (verdict === RET_PF_RETRY) return 'the gfn was invalidated while the page was fetched';
    return fault.slot === null ? 'MMIO is not invalidated' : 'nothing was invalidated while the page was fetched';
  },
};
