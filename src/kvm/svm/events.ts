/** Injecting events, and taking back what the guest did not get (@kvm svm.c svm_inject_*, svm_complete_interrupts). */
import { RFLAGS_IF, RFLAGS_RF, RFLAGS_TF, RIP } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import { EIO } from '../../host/errno.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import { EMULTYPE_SKIP, EMULTYPE_SKIP_SOFT_INT, emultypeSetSoftIntVector } from '../x86/emul-type.ts';
import { emulateInstruction } from '../x86/emulate-instruction.ts';
import {
  clearExceptionQueue,
  clearInterruptQueue,
  deliverExceptionPayload,
  exceptionIsSoft,
  queueInterrupt,
  requeueException,
} from '../x86/exceptions.ts';
import { getRflags, isLinearRip, ripWrite } from '../x86/registers.ts';
import { svmSetVintr } from './vintr.ts';
import { clrIntercept, setIntercept, vmcbRead, vmcbWrite, vmcbWrite64 } from './vmcb-access.ts';

/** @kvm svm.c svm_get_interrupt_shadow: hardware does not tell STI from MOV SS. HOT */
export function svmGetInterruptShadow(vcpu: VcpuState): number {
  return (vmcbRead(vcpu.svm, V.VMCB_INT_STATE) & 1) !== 0 ? 3 : 0;
}

/** @kvm svm.c svm_set_interrupt_shadow */
export function svmSetInterruptShadow(vcpu: VcpuState, mask: number): void {
  const state = vmcbRead(vcpu.svm, V.VMCB_INT_STATE);
  vmcbWrite(vcpu.svm, V.VMCB_INT_STATE, mask === 0 ? state & ~1 : state | 1);
}

/** @kvm svm.c __svm_skip_emulated_instruction */
export function svmSkip(vcpu: VcpuState, emulType: number, commitSideEffects: boolean): number {
  const svm = vcpu.svm;
  if (vcpu.vm.profile.nrips) {
    const lo = vmcbRead(svm, V.VMCB_NEXT_RIP);
    const hi = vmcbRead(svm, V.VMCB_NEXT_RIP + 4);
    if ((lo | hi) !== 0) {
      svm.nextRipLo = lo;
      svm.nextRipHi = hi;
    }
  }
  if ((svm.nextRipLo | svm.nextRipHi) === 0) {
    const oldRflags = vmcbRead(svm, V.VMCB_RFLAGS);
    if (emulateInstruction(vcpu, 0, 0, emulType) === 0) return 0;
    if (!commitSideEffects) vmcbWrite(svm, V.VMCB_RFLAGS, oldRflags);
  } else {
    ripWrite(vcpu, svm.nextRipLo, svm.nextRipHi);
  }
  if (commitSideEffects) svmSetInterruptShadow(vcpu, 0);
  return 1;
}

/**
 * Moves RIP past the instruction whose soft interrupt is injected, since hardware pushes RIP as it is. 0 or -EIO.
 * @kvm svm.c svm_update_soft_interrupt_rip
 */
function updateSoftInterruptRip(vcpu: VcpuState, vector: number): number {
  const svm = vcpu.svm;
  const nrips = vcpu.vm.profile.nrips;
  const oldLo = vcpu.regs[2 * RIP]!;
  const oldHi = vcpu.regs[2 * RIP + 1]!;
  const type = EMULTYPE_SKIP | EMULTYPE_SKIP_SOFT_INT | emultypeSetSoftIntVector(vector);
  if (svmSkip(vcpu, type, !nrips) === 0) return -EIO;
  svm.softIntInjected = true;
  svm.softIntCsbaseLo = vmcbRead(svm, V.VMCB_CS + 8);
  svm.softIntCsbaseHi = vmcbRead(svm, V.VMCB_CS + 12);
  svm.softIntOldRipLo = oldLo;
  svm.softIntOldRipHi = oldHi;
  svm.softIntNextRipLo = vcpu.regs[2 * RIP]!;
  svm.softIntNextRipHi = vcpu.regs[2 * RIP + 1]!;
  if (nrips) {
    ripWrite(vcpu, oldLo, oldHi);
    vmcbWrite64(svm, V.VMCB_NEXT_RIP, svm.softIntNextRipLo, svm.softIntNextRipHi);
  }
  return 0;
}

/** @kvm svm.c svm_inject_exception */
export function svmInjectException(vcpu: VcpuState): void {
  const ex = vcpu.x86.exception;
  deliverExceptionPayload(vcpu, ex);
  if (exceptionIsSoft(ex.vector) && updateSoftInterruptRip(vcpu, ex.vector) !== 0) return;
  const event =
    ex.vector | V.SVM_EVTINJ_VALID | (ex.hasErrorCode ? V.SVM_EVTINJ_VALID_ERR : 0) | V.SVM_EVTINJ_TYPE_EXEPT;
  vmcbWrite64(vcpu.svm, V.VMCB_EVENT_INJ, event, ex.errorCode);
}

/** @kvm svm.c svm_inject_irq */
export function svmInjectIrq(vcpu: VcpuState, reinjected: boolean): void {
  const { interruptNr: nr, interruptSoft: soft } = vcpu.x86;
  if (soft && updateSoftInterruptRip(vcpu, nr) !== 0) return;
  const trace = vcpu.vm.trace;
  if (trace.enabled) {
    const text = `${soft ? 'Soft/INTn' : 'IRQ'} 0x${nr.toString(16)}${reinjected ? ' [reinjected]' : ''}`;
    trace.emit('kvm_inj_virq', { text });
  }
  vcpu.stats.irq_injections++;
  const type = soft ? V.SVM_EVTINJ_TYPE_SOFT : V.SVM_EVTINJ_TYPE_INTR;
  vmcbWrite(vcpu.svm, V.VMCB_EVENT_INJ, nr | V.SVM_EVTINJ_VALID | type);
}

/** @kvm svm.c svm_inject_nmi */
export function svmInjectNmi(vcpu: VcpuState): void {
  vmcbWrite(vcpu.svm, V.VMCB_EVENT_INJ, V.SVM_EVTINJ_VALID | V.SVM_EVTINJ_TYPE_NMI);
  // L1's NMI for L2 masks none of L1's own.
  if (vcpu.svm.nmiL1ToL2) return;
  svmSetNmiMask(vcpu, true);
  vcpu.stats.nmi_injections++;
}

/** The event was not taken back by an exit: undo the advance of RIP that its injection made. @kvm svm.c svm_complete_soft_interrupt */
function completeSoftInterrupt(vcpu: VcpuState, vector: number, type: number): void {
  const svm = vcpu.svm;
  const isException = type === V.SVM_EVTINJ_TYPE_EXEPT;
  const isSoft = type === V.SVM_EVTINJ_TYPE_SOFT;
  const csLo = svm.softIntCsbaseLo;
  const csHi = svm.softIntCsbaseHi;
  if (vcpu.vm.profile.nrips) {
    const same = isLinearRip(vcpu, svm.softIntOldRipLo, svm.softIntOldRipHi, csLo, csHi);
    if ((isSoft || (isException && exceptionIsSoft(vector))) && same) {
      vmcbWrite64(svm, V.VMCB_NEXT_RIP, svm.softIntNextRipLo, svm.softIntNextRipHi);
    }
  } else if ((isSoft || isException) && isLinearRip(vcpu, svm.softIntNextRipLo, svm.softIntNextRipHi, csLo, csHi)) {
    ripWrite(vcpu, svm.softIntOldRipLo, svm.softIntOldRipHi);
  }
}

/** @kvm svm.c svm_complete_interrupts: what EXITINTINFO says was being delivered is queued to be delivered again. HOT */
export function svmCompleteInterrupts(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  const x86 = vcpu.x86;
  const info = vmcbRead(svm, V.VMCB_EXIT_INT_INFO);
  const { softIntInjected, nmiL1ToL2 } = svm;
  svm.softIntInjected = false;
  svm.nmiL1ToL2 = false;
  if (
    svm.awaitingIretCompletion &&
    (vcpu.regs[2 * RIP] !== svm.nmiIretRipLo || vcpu.regs[2 * RIP + 1] !== svm.nmiIretRipHi)
  ) {
    svm.awaitingIretCompletion = false;
    svm.nmiMasked = false;
    makeRequest(vcpu, REQ_EVENT);
  }
  x86.nmiInjected = false;
  clearExceptionQueue(vcpu);
  clearInterruptQueue(vcpu);
  if ((info & V.SVM_EVTINJ_VALID) === 0) return;
  makeRequest(vcpu, REQ_EVENT);
  const vector = info & V.SVM_EVTINJ_VEC_MASK;
  const type = info & V.SVM_EVTINJ_TYPE_MASK;
  if (softIntInjected) completeSoftInterrupt(vcpu, vector, type);
  switch (type) {
    case V.SVM_EVTINJ_TYPE_NMI:
      x86.nmiInjected = true;
      svm.nmiL1ToL2 = nmiL1ToL2;
      break;
    case V.SVM_EVTINJ_TYPE_EXEPT: {
      const hasError = (info & V.SVM_EVTINJ_VALID_ERR) !== 0;
      requeueException(vcpu, vector, hasError, hasError ? vmcbRead(svm, V.VMCB_EXIT_INT_INFO + 4) : 0);
      break;
    }
    case V.SVM_EVTINJ_TYPE_INTR:
      queueInterrupt(vcpu, vector, false);
      break;
    case V.SVM_EVTINJ_TYPE_SOFT:
      queueInterrupt(vcpu, vector, true);
      break;
    default:
      break;
  }
}

/** @kvm svm.c svm_cancel_injection: the entry did not happen. */
export function svmCancelInjection(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  vmcbWrite64(svm, V.VMCB_EXIT_INT_INFO, vmcbRead(svm, V.VMCB_EVENT_INJ), vmcbRead(svm, V.VMCB_EVENT_INJ + 4));
  vmcbWrite(svm, V.VMCB_EVENT_INJ, 0);
  svmCompleteInterrupts(vcpu);
}

/** @kvm svm.c svm_get_nmi_mask */
export function svmGetNmiMask(vcpu: VcpuState): boolean {
  return vcpu.svm.nmiMasked;
}

/** @kvm svm.c svm_set_nmi_mask: IRET ends the masking, so it is watched. */
export function svmSetNmiMask(vcpu: VcpuState, masked: boolean): void {
  vcpu.svm.nmiMasked = masked;
  if (masked) setIntercept(vcpu.svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_IRET);
  else clrIntercept(vcpu.svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_IRET);
}

/** @kvm svm.c svm_get_if_flag */
export function svmGetIfFlag(vcpu: VcpuState): boolean {
  if (vcpu.svm.sev !== null) return (vmcbRead(vcpu.svm, V.VMCB_INT_STATE) & V.SVM_GUEST_INTERRUPT_MASK) !== 0;
  return (getRflags(vcpu) & RFLAGS_IF) !== 0;
}

/** Asks for an exit as soon as interrupts can be taken. While global interrupts are off STGI exits. @kvm svm.c svm_enable_irq_window */
export function svmEnableIrqWindow(vcpu: VcpuState): void {
  if (vcpu.svm.gif) svmSetVintr(vcpu);
}

/** @kvm svm.c svm_get_rflags: hides the single step that KVM itself put there. HOT */
export function svmGetRflags(vcpu: VcpuState): number {
  const svm = vcpu.svm;
  let rflags = vmcbRead(svm, V.VMCB_RFLAGS);
  if (svm.nmiSinglestep) {
    if ((svm.nmiSinglestepGuestRflags & RFLAGS_TF) === 0) rflags &= ~RFLAGS_TF;
    if ((svm.nmiSinglestepGuestRflags & RFLAGS_RF) === 0) rflags &= ~RFLAGS_RF;
  }
  return rflags;
}

/** @kvm svm.c svm_set_rflags */
export function svmSetRflags(vcpu: VcpuState, value: number): void {
  const rflags = vcpu.svm.nmiSinglestep ? value | RFLAGS_TF | RFLAGS_RF : value;
  vmcbWrite64(vcpu.svm, V.VMCB_RFLAGS, rflags, 0);
}

/** @kvm svm.c svm_enable_nmi_window: steps over whatever keeps the NMI out. */
export function svmEnableNmiWindow(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  if (svm.nmiMasked && !svm.awaitingIretCompletion) return; // IRET exits
  if (!svm.gif) return; // STGI exits
  svm.nmiSinglestepGuestRflags = svmGetRflags(vcpu);
  svm.nmiSinglestep = true;
  vmcbWrite(svm, V.VMCB_RFLAGS, vmcbRead(svm, V.VMCB_RFLAGS) | RFLAGS_TF | RFLAGS_RF);
}

/** @kvm svm.c disable_nmi_singlestep */
export function disableNmiSinglestep(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  svm.nmiSinglestep = false;
  if ((vcpu.x86.guestDebug & 2) === 0) {
    let rflags = vmcbRead(svm, V.VMCB_RFLAGS);
    if ((svm.nmiSinglestepGuestRflags & RFLAGS_TF) === 0) rflags &= ~RFLAGS_TF;
    if ((svm.nmiSinglestepGuestRflags & RFLAGS_RF) === 0) rflags &= ~RFLAGS_RF;
    vmcbWrite(svm, V.VMCB_RFLAGS, rflags);
  }
}
