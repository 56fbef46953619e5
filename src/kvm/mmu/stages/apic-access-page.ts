/** KVM's own page at the APIC's address: never for L2, and emulated while APIC virtualization is off. */
import { APIC_ACCESS_PAGE_PRIVATE_MEMSLOT } from '../../memslots/memslots.ts';
import { handleNoslotFault } from '../noslot-fault.ts';
import { RET_PF_CONTINUE, RET_PF_EMULATE } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';
import { ACC_ALL } from '../role.ts';

/** @kvm mmu.c kvm_faultin_pfn */
export const apicAccessPage: FaultStage = {
  name: 'apic-access-page',
  kvmFunction: 'kvm_faultin_pfn',
  underMmuLock: false,
  run(vcpu, fault) {
    const { slot } = fault;
    if (slot === null || slot.id !== APIC_ACCESS_PAGE_PRIVATE_MEMSLOT) return RET_PF_CONTINUE;
    if (vcpu.guestMode) return handleNoslotFault(vcpu, fault, ACC_ALL);
    // Nothing is cached, so nothing has to be purged when APIC virtualization comes back.
    return vcpu.vm.x86.apicvActivated ? RET_PF_CONTINUE : RET_PF_EMULATE;
  },
  explain(vcpu, fault, verdict) {
    if (vcpu.guestMode && fault.slot === null) return 'L2 does not get the APIC access page: treated as MMIO';
    if (verdict === RET_PF_EMULATE) return 'the APIC access page while APIC virtualization is off';
    return 'not the APIC access page, or one that may be mapped';
  },
};
