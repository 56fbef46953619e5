/** Injecting events, and taking back what the guest did not get (@kvm vmx.c vmx_inject_*, vmx_complete_interrupts). */
import { DR6_BS } from '../../arch/debug-registers.ts';
import { DB_VECTOR, DF_VECTOR, NMI_VECTOR } from '../../arch/exceptions.ts';
import { RFLAGS_IF, RFLAGS_TF, RIP } from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import { EBUSY } from '../../host/errno.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import {
  clearExceptionQueue,
  clearInterruptQueue,
  deliverExceptionPayload,
  exceptionIsSoft,
  queueInterrupt,
  requeueException,
} from '../x86/exceptions.ts';
import { is64BitMode, ripWrite } from '../x86/registers.ts';
import type { QueuedException } from '../x86/vcpu-x86.ts';
import { changeExecControls, vmcsClearBits, vmcsRead, vmcsSetBits, vmcsWrite, vmcsWrite64 } from './vmcs-access.ts';

const SHADOW_INT_MOV_SS = 1;
const SHADOW_INT_STI = 2;

/** @kvm vmx.c vmx_get_interrupt_shadow. HOT */
export function vmxGetInterruptShadow(vcpu: VcpuState): number {
  const state = vmcsRead(vcpu.vmx, F.VMCS_GUEST_INTERRUPTIBILITY_INFO);
  return (
    ((state & C.GUEST_INTR_STATE_STI) !== 0 ? SHADOW_INT_STI : 0) |
    ((state & C.GUEST_INTR_STATE_MOV_SS) !== 0 ? SHADOW_INT_MOV_SS : 0)
  );
}

/** @kvm vmx.c vmx_set_interrupt_shadow */
export function vmxSetInterruptShadow(vcpu: VcpuState, mask: number): void {
  const old = vmcsRead(vcpu.vmx, F.VMCS_GUEST_INTERRUPTIBILITY_INFO);
  let state = old & ~(C.GUEST_INTR_STATE_STI | C.GUEST_INTR_STATE_MOV_SS);
  if ((mask & SHADOW_INT_MOV_SS) !== 0) state |= C.GUEST_INTR_STATE_MOV_SS;
  else if ((mask & SHADOW_INT_STI) !== 0) state |= C.GUEST_INTR_STATE_STI;
  vmcsWrite(vcpu.vmx, F.VMCS_GUEST_INTERRUPTIBILITY_INFO, state);
}

/** @kvm vmx.c skip_emulated_instruction: the exit tells how long the instruction is. */
export function vmxSkip(vcpu: VcpuState): number {
  const length = vmcsRead(vcpu.vmx, F.VMCS_VM_EXIT_INSTRUCTION_LEN);
  if (length !== 0) {
    const low = (vcpu.regs[2 * RIP]! >>> 0) + length;
    const carry = low > 0xffffffff && is64BitMode(vcpu) ? 1 : 0;
    ripWrite(vcpu, low | 0, (vcpu.regs[2 * RIP + 1]! + carry) | 0);
  }
  vmxSetInterruptShadow(vcpu, 0);
  vmxUpdateEmulatedInstruction(vcpu);
  return 1;
}

/** A guest that waits in HLT without exits is woken by what is injected. @kvm vmx.c vmx_clear_hlt */
export function clearHlt(vcpu: VcpuState): void {
  if (vmcsRead(vcpu.vmx, F.VMCS_GUEST_ACTIVITY_STATE) === C.GUEST_ACTIVITY_HLT) {
    vmcsWrite(vcpu.vmx, F.VMCS_GUEST_ACTIVITY_STATE, C.GUEST_ACTIVITY_ACTIVE);
  }
}

/** @kvm vmx.c vmx_inject_exception */
export function vmxInjectException(vcpu: VcpuState): void {
  const vmx = vcpu.vmx;
  const ex = vcpu.x86.exception;
  let info = ex.vector | C.INTR_INFO_VALID_MASK;
  if (ex.vector === DB_VECTOR && (vmxGetRflags(vcpu) & RFLAGS_TF) !== 0 && vmxGetInterruptShadow(vcpu) !== 0) {
    vmcsSetBits(vmx, F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS, DR6_BS);
  }
  deliverExceptionPayload(vcpu, ex);
  if (ex.hasErrorCode) {
    // Hardware takes 16 bits.
    vmcsWrite(vmx, F.VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE, ex.errorCode & 0xffff);
    info |= C.INTR_INFO_DELIVER_CODE_MASK;
  }
  if (exceptionIsSoft(ex.vector)) {
    vmcsWrite(vmx, F.VMCS_VM_ENTRY_INSTRUCTION_LEN, vmx.eventExitInstLen);
    info |= C.INTR_TYPE_SOFT_EXCEPTION;
  } else info |= C.INTR_TYPE_HARD_EXCEPTION;
  vmcsWrite(vmx, F.VMCS_VM_ENTRY_INTR_INFO_FIELD, info);
  clearHlt(vcpu);
}

/** @kvm vmx.c vmx_inject_irq */
export function vmxInjectIrq(vcpu: VcpuState, reinjected: boolean): void {
  const vmx = vcpu.vmx;
  const { interruptNr: nr, interruptSoft: soft } = vcpu.x86;
  const trace = vcpu.vm.trace;
  if (trace.enabled) {
    const text = `${soft ? 'Soft/INTn' : 'IRQ'} 0x${nr.toString(16)}${reinjected ? ' [reinjected]' : ''}`;
    trace.emit('kvm_inj_virq', { text });
  }
  vcpu.stats.irq_injections++;
  let info = nr | C.INTR_INFO_VALID_MASK;
  if (soft) {
    info |= C.INTR_TYPE_SOFT_INTR;
    vmcsWrite(vmx, F.VMCS_VM_ENTRY_INSTRUCTION_LEN, vmx.eventExitInstLen);
  }
  vmcsWrite(vmx, F.VMCS_VM_ENTRY_INTR_INFO_FIELD, info);
  clearHlt(vcpu);
}

/** @kvm vmx.c vmx_inject_nmi */
export function vmxInjectNmi(vcpu: VcpuState): void {
  vcpu.stats.nmi_injections++;
  const info = C.INTR_TYPE_NMI_INTR | C.INTR_INFO_VALID_MASK | NMI_VECTOR;
  vmcsWrite(vcpu.vmx, F.VMCS_VM_ENTRY_INTR_INFO_FIELD, info);
  clearHlt(vcpu);
}

/** @kvm vmx.c vmx_get_nmi_mask */
export function vmxGetNmiMask(vcpu: VcpuState): boolean {
  return (vmcsRead(vcpu.vmx, F.VMCS_GUEST_INTERRUPTIBILITY_INFO) & C.GUEST_INTR_STATE_NMI) !== 0;
}

/** @kvm vmx.c vmx_set_nmi_mask */
export function vmxSetNmiMask(vcpu: VcpuState, masked: boolean): void {
  const change = masked ? vmcsSetBits : vmcsClearBits;
  change(vcpu.vmx, F.VMCS_GUEST_INTERRUPTIBILITY_INFO, C.GUEST_INTR_STATE_NMI);
}

/** @kvm vmx.c vmx_nmi_allowed */
export function vmxNmiAllowed(vcpu: VcpuState, forInjection: boolean): number {
  const { nested } = vcpu.vmx;
  if (nested.runPending) return -EBUSY;
  if (forInjection && vcpu.guestMode && nested.vmcs12.hasPin(C.PIN_BASED_NMI_EXITING)) return -EBUSY;
  return vmxNmiBlocked(vcpu) ? 0 : 1;
}

/** @kvm vmx.c vmx_nmi_blocked */
export function vmxNmiBlocked(vcpu: VcpuState): boolean {
  if (vcpu.guestMode && vcpu.vmx.nested.vmcs12.hasPin(C.PIN_BASED_NMI_EXITING)) return false;
  const blocking = C.GUEST_INTR_STATE_MOV_SS | C.GUEST_INTR_STATE_STI | C.GUEST_INTR_STATE_NMI;
  return (vmcsRead(vcpu.vmx, F.VMCS_GUEST_INTERRUPTIBILITY_INFO) & blocking) !== 0;
}

/** @kvm vmx.c vmx_get_if_flag */
export function vmxGetIfFlag(vcpu: VcpuState): boolean {
  return (vmxGetRflags(vcpu) & RFLAGS_IF) !== 0;
}

/** @kvm vmx.c vmx_interrupt_allowed */
export function vmxInterruptAllowed(vcpu: VcpuState, forInjection: boolean): number {
  const { nested } = vcpu.vmx;
  if (nested.runPending) return -EBUSY;
  if (forInjection && vcpu.guestMode && nested.vmcs12.hasPin(C.PIN_BASED_EXT_INTR_MASK)) return -EBUSY;
  return vmxInterruptBlocked(vcpu) ? 0 : 1;
}

/** @kvm vmx.c vmx_interrupt_blocked */
export function vmxInterruptBlocked(vcpu: VcpuState): boolean {
  if (vcpu.guestMode && vcpu.vmx.nested.vmcs12.hasPin(C.PIN_BASED_EXT_INTR_MASK)) return false;
  return !vmxGetIfFlag(vcpu) || vmxGetInterruptShadow(vcpu) !== 0;
}

/** The guest gets its #AC; split-lock detection, which would be KVM's, is not there. @kvm vmx.c vmx_guest_inject_ac */
export function guestInjectAc(_vcpu: VcpuState): boolean {
  return true;
}

/** An instruction of L2 is done: L1's trap flag takes notice. @kvm vmx.c vmx_update_emulated_instruction */
export function vmxUpdateEmulatedInstruction(vcpu: VcpuState): void {
  if (!vcpu.guestMode) return;
  const { nested } = vcpu.vmx;
  const { exception, exceptionVmexit } = vcpu.x86;
  const quiet = (ex: QueuedException): boolean => !ex.pending || ex.vector === DB_VECTOR;
  nested.mtfPending = nested.vmcs12.has(C.CPU_BASED_MONITOR_TRAP_FLAG) && quiet(exception) && quiet(exceptionVmexit);
  if (nested.mtfPending) makeRequest(vcpu, REQ_EVENT);
}

/** @kvm vmx.c vmx_enable_irq_window */
export function vmxEnableIrqWindow(vcpu: VcpuState): void {
  changeExecControls(vcpu.vmx, C.CPU_BASED_INTR_WINDOW_EXITING, true);
}

/** @kvm vmx.c vmx_enable_nmi_window */
export function vmxEnableNmiWindow(vcpu: VcpuState): void {
  if ((vmcsRead(vcpu.vmx, F.VMCS_GUEST_INTERRUPTIBILITY_INFO) & C.GUEST_INTR_STATE_STI) !== 0) {
    vmxEnableIrqWindow(vcpu);
    return;
  }
  changeExecControls(vcpu.vmx, C.CPU_BASED_NMI_WINDOW_EXITING, true);
}

/** @kvm vmx.c vmx_get_rflags. HOT */
export function vmxGetRflags(vcpu: VcpuState): number {
  return vmcsRead(vcpu.vmx, F.VMCS_GUEST_RFLAGS);
}

/** @kvm vmx.c vmx_set_rflags */
export function vmxSetRflags(vcpu: VcpuState, value: number): void {
  vmcsWrite64(vcpu.vmx, F.VMCS_GUEST_RFLAGS, value, 0);
}

/** An IRET that faulted after it had let NMIs in. @kvm vmx.c vmx_recover_nmi_blocking */
export function recoverNmiBlocking(vcpu: VcpuState): void {
  const vmx = vcpu.vmx;
  const info = vmcsRead(vmx, F.VMCS_VM_EXIT_INTR_INFO);
  const unblocked = info < 0 && (info & C.INTR_INFO_UNBLOCK_NMI) !== 0;
  if (unblocked && (info & C.INTR_INFO_VECTOR_MASK) !== DF_VECTOR && vmx.idtVectoringInfo >= 0) {
    vmxSetNmiMask(vcpu, true);
  }
}

/** What `info` says was being delivered is queued to be delivered again. @kvm vmx.c __vmx_complete_interrupts. HOT */
function completeInterrupts(vcpu: VcpuState, info: number, lengthField: number, errorField: number): void {
  const vmx = vcpu.vmx;
  vcpu.x86.nmiInjected = false;
  clearExceptionQueue(vcpu);
  clearInterruptQueue(vcpu);
  if ((info & C.INTR_INFO_VALID_MASK) === 0) return;
  makeRequest(vcpu, REQ_EVENT);
  const vector = info & C.INTR_INFO_VECTOR_MASK;
  switch (info & C.INTR_INFO_INTR_TYPE_MASK) {
    case C.INTR_TYPE_NMI_INTR:
      vcpu.x86.nmiInjected = true;
      vmxSetNmiMask(vcpu, false);
      break;
    case C.INTR_TYPE_SOFT_EXCEPTION:
      vmx.eventExitInstLen = vmcsRead(vmx, lengthField);
      requeue(vcpu, info, vector, errorField);
      break;
    case C.INTR_TYPE_HARD_EXCEPTION:
      requeue(vcpu, info, vector, errorField);
      break;
    case C.INTR_TYPE_SOFT_INTR:
      vmx.eventExitInstLen = vmcsRead(vmx, lengthField);
      queueInterrupt(vcpu, vector, true);
      break;
    case C.INTR_TYPE_EXT_INTR:
      queueInterrupt(vcpu, vector, false);
      break;
    default:
      break;
  }
}

function requeue(vcpu: VcpuState, info: number, vector: number, errorField: number): void {
  const hasError = (info & C.INTR_INFO_DELIVER_CODE_MASK) !== 0;
  requeueException(vcpu, vector, hasError, hasError ? vmcsRead(vcpu.vmx, errorField) : 0);
}

/** @kvm vmx.c vmx_complete_interrupts. HOT */
export function vmxCompleteInterrupts(vcpu: VcpuState): void {
  const info = vcpu.vmx.idtVectoringInfo;
  completeInterrupts(vcpu, info, F.VMCS_VM_EXIT_INSTRUCTION_LEN, F.VMCS_IDT_VECTORING_ERROR_CODE);
}

/** @kvm vmx.c vmx_cancel_injection: the entry did not happen. */
export function vmxCancelInjection(vcpu: VcpuState): void {
  const info = vmcsRead(vcpu.vmx, F.VMCS_VM_ENTRY_INTR_INFO_FIELD);
  completeInterrupts(vcpu, info, F.VMCS_VM_ENTRY_INSTRUCTION_LEN, F.VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE);
  vmcsWrite(vcpu.vmx, F.VMCS_VM_ENTRY_INTR_INFO_FIELD, 0);
}
