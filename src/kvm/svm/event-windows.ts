/** What keeps an SMI, an NMI or an interrupt back; -EBUSY where it has to be an exit to L1 (@kvm svm.c svm_nmi_allowed and its likes). */
import { RFLAGS_IF } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import { EBUSY } from '../../host/errno.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { getRflags } from '../x86/registers.ts';
import { vmcb01Read, vmcb12IsIntercept, vmcb12Read, vmcbRead } from './vmcb-access.ts';

/** While L2 runs it exits on what L1 intercepts of `mask`. @kvm svm.h nested_exit_on_intr */
function nestedExitOn(vcpu: VcpuState, mask: number): boolean {
  return vcpu.guestMode && vmcb12IsIntercept(vcpu.svm, V.VMCB_INTERCEPT_WORD3, mask);
}

function inShadow(vcpu: VcpuState): boolean {
  return (vmcbRead(vcpu.svm, V.VMCB_INT_STATE) & 1) !== 0;
}

/** 1, 0, or -EBUSY: an event that is to exit cannot be injected, and nothing comes before the entry of a VMRUN. */
function allowed(vcpu: VcpuState, blocked: boolean, forInjection: boolean, mask: number): number {
  if (vcpu.svm.nested.runPending) return -EBUSY;
  if (blocked) return 0;
  return forInjection && nestedExitOn(vcpu, mask) ? -EBUSY : 1;
}

/** @kvm svm.c svm_smi_blocked */
export function svmSmiBlocked(vcpu: VcpuState): boolean {
  return !vcpu.svm.gif || vcpu.smm;
}

/** @kvm svm.c svm_smi_allowed */
export function svmSmiAllowed(vcpu: VcpuState, forInjection: boolean): number {
  return allowed(vcpu, svmSmiBlocked(vcpu), forInjection, V.INTERCEPT_SMI);
}

/** @kvm svm.c svm_nmi_blocked */
export function svmNmiBlocked(vcpu: VcpuState): boolean {
  if (!vcpu.svm.gif) return true;
  if (nestedExitOn(vcpu, V.INTERCEPT_NMI)) return false;
  return vcpu.svm.nmiMasked || inShadow(vcpu);
}

/** @kvm svm.c svm_nmi_allowed */
export function svmNmiAllowed(vcpu: VcpuState, forInjection: boolean): number {
  return allowed(vcpu, svmNmiBlocked(vcpu), forInjection, V.INTERCEPT_NMI);
}

/** @kvm svm.c svm_interrupt_blocked */
export function svmInterruptBlocked(vcpu: VcpuState): boolean {
  const { svm } = vcpu;
  if (!svm.gif) return true;
  const masking = vcpu.guestMode && (vmcb12Read(svm, V.VMCB_INT_CTL) & V.V_INTR_MASKING_MASK) !== 0;
  // With V_INTR_MASKING it is L1's IF that counts.
  const rflags = masking ? vmcb01Read(svm, V.VMCB_RFLAGS) : getRflags(vcpu);
  if ((rflags & RFLAGS_IF) === 0) return true;
  return !nestedExitOn(vcpu, V.INTERCEPT_INTR) && inShadow(vcpu);
}

/** @kvm svm.c svm_interrupt_allowed */
export function svmInterruptAllowed(vcpu: VcpuState, forInjection: boolean): number {
  return allowed(vcpu, svmInterruptBlocked(vcpu), forInjection, V.INTERCEPT_INTR);
}
