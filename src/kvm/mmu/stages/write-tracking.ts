/** A write to a page that KVM watches because it holds page tables it shadows cannot be fixed by mapping it writable. */
import { gfnIsWriteTracked } from '../page-track.ts';
import { RET_PF_CONTINUE, RET_PF_WRITE_PROTECTED } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';
import { ROLE_DIRECT } from '../role.ts';
import { clearFlood } from '../shadow/track-write.ts';

/** @kvm mmu.c page_fault_handle_page_track */
export const writeTracking: FaultStage = {
  name: 'write-tracking',
  kvmFunction: 'page_fault_handle_page_track',
  underMmuLock: false,
  run(vcpu, fault) {
    if (fault.rsvd || !fault.present || !fault.write) return RET_PF_CONTINUE;
    if (!gfnIsWriteTracked(vcpu.vm, fault.slot, fault.gfn)) return RET_PF_CONTINUE;
    if ((vcpu.mmu.mmu.rootRole & ROLE_DIRECT) === 0) clearFlood(vcpu, fault.addrLo, fault.addrHi);
    return RET_PF_WRITE_PROTECTED;
  },
  explain(_vcpu, fault, verdict) {
    if (verdict !== RET_PF_CONTINUE) return 'the page holds page tables that KVM shadows, and this is a write to it';
    if (!fault.present || !fault.write) return 'not a write to a present page';
    return 'the page is not write-tracked';
  },
};
