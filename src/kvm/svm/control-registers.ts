/** CR0, CR4 and EFER between the guest and the VMCB (@kvm svm.c svm_set_cr0, svm_set_cr4, svm_set_efer). */
import { GP_VECTOR } from '../../arch/exceptions.ts';
import {
  CR0_CD,
  CR0_NW,
  CR0_PG,
  CR0_WP,
  CR4_MCE,
  CR4_PAE,
  CR4_PGE,
  CR4_PKE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LMA,
  EFER_LME,
  EFER_NX,
  EFER_SVME,
} from '../../arch/registers.ts';
import {
  INTERCEPT_CR0_READ,
  INTERCEPT_CR0_WRITE,
  VMCB_CR0,
  VMCB_CR4,
  VMCB_EFER,
  VMCB_INTERCEPT_CR,
} from '../../arch/vmcb.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { hasQuirk, KVM_X86_QUIRK_CD_NW_CLEARED } from '../x86/vm-x86.ts';
import { svmSetGif } from './gif.ts';
import { svmAllocateNested, svmFreeNested, svmLeaveNested } from './nested-memory.ts';
import { svmFlushTlbCurrent } from './tlb.ts';
import {
  clrExceptionIntercept,
  clrIntercept,
  setExceptionIntercept,
  setIntercept,
  vmcbRead,
  vmcbWrite64,
} from './vmcb-access.ts';

/** L1 begins or ends to use SVM. False when there is no memory for it. */
function switchNested(vcpu: VcpuState, on: boolean): boolean {
  if (on) {
    if (!svmAllocateNested(vcpu)) return false;
    if (vcpu.vm.profile.svmAddressErratum) setExceptionIntercept(vcpu.svm, GP_VECTOR);
    return true;
  }
  svmLeaveNested(vcpu);
  svmSetGif(vcpu, true);
  if (!vcpu.vm.params.enableVmwareBackdoor) clrExceptionIntercept(vcpu.svm, GP_VECTOR);
  // RSM goes back to L2.
  if (!vcpu.smm) svmFreeNested(vcpu);
  return true;
}

/** @kvm svm.c svm_set_efer: hardware needs EFER.SVME set while a guest runs. */
export function svmSetEfer(vcpu: VcpuState, value: number): void {
  const old = vcpu.efer;
  vcpu.efer = value;
  let efer = value;
  if (!vcpu.vm.vendor.tdpEnabled) {
    // Shadow page tables use NX.
    efer |= EFER_NX;
    if ((efer & EFER_LMA) === 0) efer &= ~EFER_LME;
  }
  if (((old ^ value) & EFER_SVME) !== 0 && !switchNested(vcpu, (value & EFER_SVME) !== 0)) {
    vcpu.efer = old;
    return;
  }
  vmcbWrite64(vcpu.svm, VMCB_EFER, efer | EFER_SVME, 0);
}

/** @kvm svm.c svm_set_cr0 */
export function svmSetCr0(vcpu: VcpuState, cr0: number): void {
  const svm = vcpu.svm;
  const tdp = vcpu.vm.vendor.tdpEnabled;
  const oldPaging = (vcpu.cr0 & CR0_PG) !== 0;
  const paging = (cr0 & CR0_PG) !== 0;
  if ((vcpu.efer & EFER_LME) !== 0) {
    const efer = vmcbRead(svm, VMCB_EFER);
    if (!oldPaging && paging) {
      vcpu.efer |= EFER_LMA;
      vmcbWrite64(svm, VMCB_EFER, efer | EFER_LMA | EFER_LME, 0);
    } else if (oldPaging && !paging) {
      vcpu.efer &= ~EFER_LMA;
      vmcbWrite64(svm, VMCB_EFER, efer & ~(EFER_LMA | EFER_LME), 0);
    }
  }
  vcpu.cr0 = cr0;
  let hcr0 = cr0;
  if (!tdp) {
    hcr0 |= CR0_PG | CR0_WP;
    if (oldPaging !== paging) svmSetCr4(vcpu, vcpu.cr4);
  }
  // Firmware forgets to turn caching back on.
  if (hasQuirk(vcpu.vm.x86, KVM_X86_QUIRK_CD_NW_CLEARED)) hcr0 &= ~(CR0_CD | CR0_NW);
  vmcbWrite64(svm, VMCB_CR0, hcr0, 0);
  // The intercept of selective writes stays: it sees what hardware would not tell KVM.
  if (hcr0 === cr0) clrIntercept(svm, VMCB_INTERCEPT_CR, INTERCEPT_CR0_READ | INTERCEPT_CR0_WRITE);
  else setIntercept(svm, VMCB_INTERCEPT_CR, INTERCEPT_CR0_READ | INTERCEPT_CR0_WRITE);
}

/** @kvm svm.c svm_set_cr4. The guest runs with the host's CR4.MCE. */
export function svmSetCr4(vcpu: VcpuState, cr4: number): void {
  const tdp = vcpu.vm.vendor.tdpEnabled;
  if (tdp && ((vcpu.cr4 ^ cr4) & CR4_PGE) !== 0) svmFlushTlbCurrent(vcpu);
  vcpu.cr4 = cr4;
  let hcr4 = cr4;
  if (!tdp) {
    hcr4 |= CR4_PAE;
    if ((vcpu.cr0 & CR0_PG) === 0) hcr4 &= ~(CR4_SMEP | CR4_SMAP | CR4_PKE);
  }
  if (vcpu.vm.params.hostMce) hcr4 |= CR4_MCE;
  vmcbWrite64(vcpu.svm, VMCB_CR4, hcr4, 0);
}
