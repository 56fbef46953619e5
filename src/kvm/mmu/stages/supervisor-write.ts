/** CR0.WP is clear in the guest and set in the shadow: a write by its kernel to a read-only user page gets an entry of its own. */
import { RET_PF_CONTINUE } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';
import { ACC_EXEC_MASK, ACC_USER_MASK, ACC_WRITE_MASK, ROLE_DIRECT } from '../role.ts';
import { isCr0Wp, isCr4Smep } from '../role-bits.ts';

/** @kvm paging_tmpl.h FNAME(page_fault) */
export const supervisorWrite: FaultStage = {
  name: 'supervisor-write',
  kvmFunction: 'FNAME(page_fault)',
  underMmuLock: false,
  run(vcpu, fault) {
    if (!fault.write || (fault.ptAccess & ACC_WRITE_MASK) !== 0 || fault.user || fault.slot === null) {
      return RET_PF_CONTINUE;
    }
    const mmu = vcpu.mmu.mmu;
    if ((mmu.rootRole & ROLE_DIRECT) !== 0 || isCr0Wp(mmu)) return RET_PF_CONTINUE;
    // Writable, for the kernel alone; which must not execute it either where SMEP would not let it.
    fault.ptAccess = (fault.ptAccess | ACC_WRITE_MASK) & ~ACC_USER_MASK;
    if (isCr4Smep(mmu)) fault.ptAccess &= ~ACC_EXEC_MASK;
    return RET_PF_CONTINUE;
  },
  explain(_vcpu, fault) {
    return fault.write && (fault.ptAccess & (ACC_WRITE_MASK | ACC_USER_MASK)) === ACC_WRITE_MASK
      ? 'a page that the kernel may write'
      : 'the rights are as the tables say';
  },
};
