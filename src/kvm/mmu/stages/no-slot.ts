/** A gfn without a slot is emulated MMIO, which is shared only. */
import { handleNoslotFault } from '../noslot-fault.ts';
import { RET_PF_CONTINUE } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

/** @kvm mmu.c kvm_handle_noslot_fault */
export const noSlot: FaultStage = {
  name: 'no-slot',
  kvmFunction: 'kvm_handle_noslot_fault',
  underMmuLock: false,
  run(vcpu, fault) {
    return fault.slot === null ? handleNoslotFault(vcpu, fault, fault.ptAccess) : RET_PF_CONTINUE;
  },
  explain(_vcpu, fault, verdict) {
    if (fault.slot !== null) return `slot ${fault.slot.id} has the gfn`;
    if (verdict < 0) return 'no slot has the gfn, and the access is private';
    if (verdict !== RET_PF_CONTINUE) return 'no slot has the gfn: MMIO, and no entry can remember it';
    return 'no slot has the gfn: MMIO, to be remembered in an entry';
  },
};
