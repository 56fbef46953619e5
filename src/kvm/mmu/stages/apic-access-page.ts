/** KVM's own page at the APIC's address: never for L2, and emulated while APIC virtualization is off. */
import { APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, isVisibleMemslot } from '../../memslots/memslot.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { PageFault } from '../fault.ts';
import { handleNoslotFault } from '../noslot-fault.ts';
import { KVM_PFN_NOSLOT } from '../pfn.ts';
import { RET_PF_CONTINUE, RET_PF_EMULATE } from '../ret-pf.ts';
import type { FaultStage } from '../revisions/revision.ts';

function isApicAccessPage(fault: PageFault): boolean {
  return fault.slot !== null && fault.slot.id === APIC_ACCESS_PAGE_PRIVATE_MEMSLOT;
}

/** Nothing is cached, so nothing has to be purged when APIC virtualization comes back. */
function emulateWhenInhibited(vcpu: VcpuState, fault: PageFault): number {
  return isApicAccessPage(fault) && !vcpu.vm.x86.apicvActivated ? RET_PF_EMULATE : RET_PF_CONTINUE;
}

function explain(vcpu: VcpuState, fault: PageFault, verdict: number): string {
  if (vcpu.guestMode && fault.slot === null) return 'L2 does not get this page of KVM: treated as MMIO';
  if (verdict === RET_PF_EMULATE) return 'the APIC access page while APIC virtualization is off';
  return 'not the APIC access page, or one that may be mapped';
}

/** What a later stage will find to have no slot. */
function hide(fault: PageFault): number {
  fault.slot = null;
  fault.pfn = KVM_PFN_NOSLOT;
  fault.mapWritable = false;
  return RET_PF_CONTINUE;
}

/** @kvm mmu.c kvm_faultin_pfn */
export const apicAccessPage: FaultStage = {
  name: 'apic-access-page',
  kvmFunction: 'kvm_faultin_pfn',
  underMmuLock: false,
  run(vcpu, fault) {
    if (vcpu.guestMode && isApicAccessPage(fault)) return handleNoslotFault(vcpu, fault, fault.ptAccess);
    return emulateWhenInhibited(vcpu, fault);
  },
  explain,
};

/** Where a fault without slot is only handled after the page was looked up: L2's is one of those from here on. */
export const apicAccessPageHidden: FaultStage = {
  ...apicAccessPage,
  run(vcpu, fault) {
    return vcpu.guestMode && isApicAccessPage(fault) ? hide(fault) : emulateWhenInhibited(vcpu, fault);
  },
};

/** Until 5bd74f6eecd5: L2 got none of KVM's own slots, and faults without any slot went the same way. */
export const internalSlotsHidden: FaultStage = {
  ...apicAccessPage,
  name: 'internal-slots',
  run(vcpu, fault) {
    return vcpu.guestMode && !isVisibleMemslot(fault.slot) ? hide(fault) : emulateWhenInhibited(vcpu, fault);
  },
};
