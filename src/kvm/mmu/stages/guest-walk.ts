/** Where KVM shadows the guest's tables the address is linear: what the guest's own tables say of it comes first. */
import { PFERR_RSVD } from '../../../arch/error-code.ts';
import { vcpuGfnToMemslot } from '../../memslots/memslots.ts';
import { injectEmulatedPageFault } from '../../x86/exceptions.ts';
import { walkAddr } from '../guest-walk.ts';
import { RET_PF_CONTINUE, RET_PF_RETRY } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';
import { ROLE_DIRECT } from '../role.ts';

/** @kvm paging_tmpl.h FNAME(walk_addr), FNAME(page_fault) */
export const guestWalk: FaultStage = {
  name: 'guest-walk',
  kvmFunction: 'FNAME(walk_addr)',
  underMmuLock: false,
  run(vcpu, fault) {
    const mmu = vcpu.mmu.mmu;
    if ((mmu.rootRole & ROLE_DIRECT) !== 0) return RET_PF_CONTINUE;
    const walker = vcpu.mmu.faultWalker;
    // RSVD is the shadow entry's, not the guest's.
    const access = fault.errorLo & ~PFERR_RSVD;
    if (!walkAddr(walker, vcpu, mmu, fault.addrLo, fault.addrHi, access, fault.errorHi)) {
      walker.fault.fromHardware = true;
      if (!fault.prefetch) injectEmulatedPageFault(vcpu, walker.fault);
      return RET_PF_RETRY;
    }
    fault.gfn = walker.gfn;
    fault.maxLevel = walker.level;
    fault.ptAccess = walker.pteAccess;
    fault.slot = vcpuGfnToMemslot(vcpu, fault.gfn);
    return RET_PF_CONTINUE;
  },
  explain(vcpu, fault, verdict) {
    if ((vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0) return 'the address is physical: no tables of the guest to walk';
    if (verdict === RET_PF_RETRY) return "the guest's own tables do not allow the access: the guest gets the #PF";
    return `the guest's tables map the address to gfn 0x${fault.gfn.toString(16)}`;
  },
};
