/** Events that become exits to L1, in order of priority (@kvm nested.c vmx_check_nested_events). */
import { DR6_ACTIVE_LOW, DR6_BD, DR6_BT } from '../../../arch/debug-registers.ts';
import { DB_VECTOR, NMI_VECTOR, PF_VECTOR } from '../../../arch/exceptions.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import * as R from '../../../arch/vmx-exit-reasons.ts';
import { EBUSY } from '../../../host/errno.ts';
import { MP_STATE_INIT_RECEIVED, REQ_TRIPLE_FAULT, type VcpuState } from '../../vcpu-state.ts';
import { eventNeedsReinjection, exceptionIsSoft } from '../../x86/exceptions.ts';
import { apicAcceptsPicIntr, cpuGetInterrupt, cpuHasInterrupt } from '../../x86/irq.ts';
import { APIC_IRR, lapicHasInterrupt, setVector } from '../../x86/lapic.ts';
import { isProtmode } from '../../x86/registers.ts';
import type { QueuedException } from '../../x86/vcpu-x86.ts';
import { vmxGetNmiMask, vmxInterruptBlocked, vmxNmiBlocked, vmxSetNmiMask } from '../events.ts';
import { vmcsWrite64 } from '../vmcs-access.ts';
import { nestedTripleFaultExit, nestedVmxVmexit } from './vmexit.ts';

/** @kvm nested.c nested_vmx_is_exception_vmexit */
export function isExceptionVmexit(vcpu: VcpuState, vector: number, errorCode: number): boolean {
  const v = vcpu.vmx.nested.vmcs12;
  const bit = (v.lo(F.VMCS_EXCEPTION_BITMAP) & (1 << vector)) !== 0;
  if (vector !== PF_VECTOR) return bit;
  const masked = errorCode & 0xffff & v.lo(F.VMCS_PAGE_FAULT_ERROR_CODE_MASK);
  return (masked !== v.lo(F.VMCS_PAGE_FAULT_ERROR_CODE_MATCH)) !== bit;
}

/** @kvm nested.c nested_vmx_inject_exception_vmexit */
function injectExceptionVmexit(vcpu: VcpuState): void {
  const ex = vcpu.x86.exceptionVmexit;
  const v = vcpu.vmx.nested.vmcs12;
  let info = ex.vector | C.INTR_INFO_VALID_MASK;
  let lo = 0;
  let hi = 0;
  if (ex.hasPayload) {
    lo = ex.payloadLo;
    hi = ex.payloadHi;
  } else if (ex.vector === PF_VECTOR) {
    lo = vcpu.cr2Lo;
    hi = vcpu.cr2Hi;
  } else if (ex.vector === DB_VECTOR) lo = (vcpu.x86.dr6 & ~DR6_BT) ^ DR6_ACTIVE_LOW;
  if (ex.hasErrorCode && isProtmode(vcpu)) {
    v.set(F.VMCS_VM_EXIT_INTR_ERROR_CODE, ex.errorCode & 0xffff);
    info |= C.INTR_INFO_DELIVER_CODE_MASK;
  }
  info |= exceptionIsSoft(ex.vector) ? C.INTR_TYPE_SOFT_EXCEPTION : C.INTR_TYPE_HARD_EXCEPTION;
  if (v.lo(F.VMCS_IDT_VECTORING_INFO_FIELD) >= 0 && vmxGetNmiMask(vcpu)) info |= C.INTR_INFO_UNBLOCK_NMI;
  nestedVmxVmexit(vcpu, R.EXIT_REASON_EXCEPTION_NMI, info, lo, hi);
}

/** What a pending #DB trap brings, 0 for none. @kvm nested.c vmx_get_pending_dbg_trap */
function pendingDbgTrap(ex: QueuedException): number {
  return ex.pending && ex.vector === DB_VECTOR ? ex.payloadLo & ~DR6_BD : 0;
}

/** A #DB trap has to wait for what comes before single steps. @kvm nested.c vmx_is_low_priority_db_trap */
function isLowPriorityDbTrap(ex: QueuedException): boolean {
  return (pendingDbgTrap(ex) & ~DR6_BT) !== 0;
}

/** @kvm nested.c nested_vmx_update_pending_dbg */
function updatePendingDbg(vcpu: VcpuState): void {
  const pending = pendingDbgTrap(vcpu.x86.exception);
  if (pending !== 0) vmcsWrite64(vcpu.vmx, F.VMCS_GUEST_PENDING_DBG_EXCEPTIONS, pending, 0);
}

function preemptionTimerPending(vcpu: VcpuState): boolean {
  const { nested } = vcpu.vmx;
  return nested.vmcs12.preemptionTimer && nested.preemptionTimerExpired;
}

/** @kvm nested.c vmx_has_nested_events */
export function hasNestedEvents(vcpu: VcpuState): boolean {
  return preemptionTimerPending(vcpu) || vcpu.vmx.nested.mtfPending;
}

/** INIT and SIPI: 0 or -EBUSY, or 1 for go on. */
function checkApicEvents(vcpu: VcpuState, blocked: boolean): number {
  const { nested } = vcpu.vmx;
  const apic = vcpu.x86.lapic;
  if (apic === null) return 1;
  if (apic.pendingInit) {
    if (blocked) return -EBUSY;
    updatePendingDbg(vcpu);
    apic.pendingInit = false;
    if (vcpu.mpState !== MP_STATE_INIT_RECEIVED) nestedVmxVmexit(vcpu, R.EXIT_REASON_INIT_SIGNAL, 0, 0, 0);
    nested.mtfPending = false;
    return 0;
  }
  if (!apic.pendingSipi) return 1;
  if (blocked) return -EBUSY;
  apic.pendingSipi = false;
  if (vcpu.mpState !== MP_STATE_INIT_RECEIVED) return 1;
  nestedVmxVmexit(vcpu, R.EXIT_REASON_SIPI_SIGNAL, 0, apic.sipiVector & 0xff, 0);
  return 0;
}

/** An interrupt that L1 wants is there. */
function interruptVmexit(vcpu: VcpuState): number {
  const { nested } = vcpu.vmx;
  const v = nested.vmcs12;
  if (!v.hasPin(C.PIN_BASED_EXT_INTR_MASK)) return 0;
  const reason = R.EXIT_REASON_EXTERNAL_INTERRUPT;
  if (!v.hasExit(C.VM_EXIT_ACK_INTR_ON_EXIT)) {
    nestedVmxVmexit(vcpu, reason, 0, 0, 0);
    return 0;
  }
  const apic = vcpu.x86.lapic;
  const fromApic = apic !== null && !apicAcceptsPicIntr(vcpu) ? lapicHasInterrupt(apic) : -1;
  if (apic !== null && fromApic >= 0 && fromApic === nested.postedIntrNv) {
    nested.piPending = true;
    setVector(apic, APIC_IRR, fromApic, false);
    return 0;
  }
  const vector = cpuGetInterrupt(vcpu);
  if (vector >= 0) nestedVmxVmexit(vcpu, reason, C.INTR_INFO_VALID_MASK | C.INTR_TYPE_EXT_INTR | vector, 0, 0);
  return 0;
}

/** What comes behind exceptions. */
function checkLater(vcpu: VcpuState, blocked: boolean): number {
  const { x86 } = vcpu;
  const v = vcpu.vmx.nested.vmcs12;
  if (preemptionTimerPending(vcpu)) {
    if (blocked) return -EBUSY;
    nestedVmxVmexit(vcpu, R.EXIT_REASON_PREEMPTION_TIMER, 0, 0, 0);
    return 0;
  }
  if (x86.smiPending && !vcpu.smm) return blocked ? -EBUSY : 0;
  if (x86.nmiPending > 0 && !vmxNmiBlocked(vcpu)) {
    if (blocked) return -EBUSY;
    if (!v.hasPin(C.PIN_BASED_NMI_EXITING)) return 0;
    const info = NMI_VECTOR | C.INTR_TYPE_NMI_INTR | C.INTR_INFO_VALID_MASK;
    nestedVmxVmexit(vcpu, R.EXIT_REASON_EXCEPTION_NMI, info, 0, 0);
    // L1 is as if it had just taken the NMI.
    x86.nmiPending = 0;
    vmxSetNmiMask(vcpu, true);
    return 0;
  }
  if (cpuHasInterrupt(vcpu) && !vmxInterruptBlocked(vcpu)) return blocked ? -EBUSY : interruptVmexit(vcpu);
  return 0;
}

/** 0, or -EBUSY when L2 has to be entered first. @kvm nested.c vmx_check_nested_events */
export function checkNestedEventsVmx(vcpu: VcpuState): number {
  const { nested } = vcpu.vmx;
  const { exception, exceptionVmexit } = vcpu.x86;
  const blockExceptions = nested.runPending;
  const blocked = blockExceptions || eventNeedsReinjection(vcpu);
  const apic = checkApicEvents(vcpu, blocked);
  if (apic <= 0) return apic;
  if (exceptionVmexit.pending && !isLowPriorityDbTrap(exceptionVmexit)) {
    if (blockExceptions) return -EBUSY;
    injectExceptionVmexit(vcpu);
    return 0;
  }
  if (exception.pending && !isLowPriorityDbTrap(exception)) return blockExceptions ? -EBUSY : 0;
  if (nested.mtfPending) {
    if (blocked) return -EBUSY;
    updatePendingDbg(vcpu);
    nestedVmxVmexit(vcpu, R.EXIT_REASON_MONITOR_TRAP_FLAG, 0, 0, 0);
    return 0;
  }
  if (exceptionVmexit.pending) {
    if (blockExceptions) return -EBUSY;
    injectExceptionVmexit(vcpu);
    return 0;
  }
  if (exception.pending) return blockExceptions ? -EBUSY : 0;
  return checkLater(vcpu, blocked);
}

/** @kvm nested.c nested_vmx_triple_fault */
export function nestedTripleFault(vcpu: VcpuState): void {
  vcpu.requests &= ~REQ_TRIPLE_FAULT;
  nestedTripleFaultExit(vcpu);
}
