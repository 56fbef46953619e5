/** Some faults are fixed without mmu_lock and without looking at the host: the entry is there and only needs its write access back. */
import { fastPageFault } from '../fast-page-fault.ts';
import { RET_PF_CONTINUE, RET_PF_FIXED, RET_PF_INVALID, RET_PF_SPURIOUS } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';
import { ROLE_DIRECT } from '../role.ts';

/** @kvm mmu.c fast_page_fault */
export const fastPath: FaultStage = {
  name: 'fast-path',
  kvmFunction: 'fast_page_fault',
  underMmuLock: false,
  run(vcpu, fault) {
    const ret = fastPageFault(vcpu, fault);
    return ret === RET_PF_INVALID ? RET_PF_CONTINUE : ret;
  },
  explain(vcpu, fault, verdict) {
    if ((vcpu.mmu.mmu.rootRole & ROLE_DIRECT) === 0) return "only where the guest's tables are not shadowed";
    if (verdict === RET_PF_FIXED)
      return 'the entry was write-protected for dirty logging: it is writable again and the page is dirty';
    if (verdict === RET_PF_SPURIOUS) return 'the entry already allows the access';
    if (fault.rsvd) return 'reserved-bit faults take the slow path';
    if (!fault.present) return 'nothing is mapped yet';
    return fault.write ? 'the entry cannot be made writable here' : 'only writes to present pages are fast';
  },
};
