/** A guest gives a vCPU another VMSA, a page of its own: how it starts its other processors (@kvm sev.c sev_snp_ap_creation). */
import { SVM_VMGEXIT_AP_CREATE, SVM_VMGEXIT_AP_CREATE_ON_INIT, SVM_VMGEXIT_AP_DESTROY } from '../../../arch/ghcb.ts';
import { RAX } from '../../../arch/registers.ts';
import { VMCB_EXIT_INFO_1, VMCB_EXIT_INFO_2, VMCB_VMSA } from '../../../arch/vmcb.ts';
import { EINVAL } from '../../../host/errno.ts';
import { GmemPfn } from '../../guest-memfd/gmem-pfn.ts';
import { gmemGetPfn } from '../../guest-memfd/guest-memfd.ts';
import { gfnToMemslot } from '../../memslots/memslots.ts';
import { gpaHalvesToGfn } from '../../mmu/gpa.ts';
import {
  MP_STATE_HALTED,
  MP_STATE_RUNNABLE,
  makeRequest,
  REQ_UPDATE_PROTECTED_GUEST_STATE,
  type VcpuState,
} from '../../vcpu-state.ts';
import { vmcbRead, vmcbWrite64 } from '../vmcb-access.ts';

/** SEV_FEATURES that choose how interrupts are injected. */
const INJECTION_MODES = (1 << 3) | (1 << 4);

/** @kvm sev.c sev_snp_ap_creation: 0 or -EINVAL. */
export function sevSnpApCreation(vcpu: VcpuState): number {
  const { svm, vm } = vcpu;
  const request = vmcbRead(svm, VMCB_EXIT_INFO_1);
  const apicId = vmcbRead(svm, VMCB_EXIT_INFO_1 + 4);
  const lo = vmcbRead(svm, VMCB_EXIT_INFO_2);
  const hi = vmcbRead(svm, VMCB_EXIT_INFO_2 + 4);
  const refuse = (why: string): number => {
    vm.log.prWarnRatelimited('sev_snp_ap_creation', `vmgexit: invalid ${why} from guest`);
    return -EINVAL;
  };
  const target = vm.vcpus.find((other) => other.id === apicId);
  if (target === undefined) return refuse(`AP APIC ID [0x${(apicId >>> 0).toString(16)}]`);
  const es = target.svm.sev!;
  const features = vcpu.regs[2 * RAX]! ^ vm.sev!.vmsaFeatures;
  if (request >>> 0 < SVM_VMGEXIT_AP_DESTROY && (features & INJECTION_MODES) !== 0) return refuse('AP injection mode');
  if (request === SVM_VMGEXIT_AP_CREATE || request === SVM_VMGEXIT_AP_CREATE_ON_INIT) {
    const gfn = gpaHalvesToGfn(lo, hi);
    if ((lo & 0xfff) !== 0 || gfn >= 2 ** (vcpu.maxPhyAddr - 12)) return refuse('AP VMSA address');
    if (gfn % 512 === 0) return refuse('AP VMSA address (2M aligned)');
    es.pendingVmsaGfn = gfn;
  } else if (request === SVM_VMGEXIT_AP_DESTROY) es.pendingVmsaGfn = -1;
  else return refuse(`AP creation request [0x${(request >>> 0).toString(16)}]`);
  es.waitingForReset = true;
  if (request !== SVM_VMGEXIT_AP_CREATE_ON_INIT) makeRequest(target, REQ_UPDATE_PROTECTED_GUEST_STATE);
  return 0;
}

const found = new GmemPfn();

/** @kvm sev.c sev_snp_init_protected_guest_state, sev_snp_reload_vmsa */
export function sevSnpInitProtectedGuestState(vcpu: VcpuState): void {
  const es = vcpu.svm.sev;
  if (es === null || !es.waitingForReset) return;
  es.waitingForReset = false;
  vcpu.x86.pvUnhalted = false;
  vcpu.mpState = MP_STATE_HALTED;
  const gfn = es.pendingVmsaGfn;
  es.pendingVmsaGfn = -1;
  vmcbWrite64(vcpu.svm, VMCB_VMSA, -1, -1);
  if (gfn < 0) return;
  const slot = gfnToMemslot(vcpu.vm, gfn);
  if (slot !== null && gmemGetPfn(vcpu.vm, slot, gfn, found) === 0) {
    es.hasGuestVmsa = true;
    vmcbWrite64(vcpu.svm, VMCB_VMSA, (found.pfn * 4096) | 0, 0);
  }
  // Runnable even without its VMSA: KVM_RUN then fails, where a halted vCPU would hang.
  vcpu.mpState = MP_STATE_RUNNABLE;
}
