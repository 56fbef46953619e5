/** From L2 to L1: the exit that L1 sees (@kvm nested.c nested_vmx_vmexit, prepare_vmcs12). */
import { DF_VECTOR, NMI_VECTOR } from '../../../arch/exceptions.ts';
import { hex64 } from '../../../arch/flags.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { VM_SUCCEED } from '../../../arch/vmx-controls.ts';
import * as R from '../../../arch/vmx-exit-reasons.ts';
import {
  MP_STATE_RUNNABLE,
  makeRequest,
  REQ_APIC_PAGE_RELOAD,
  REQ_EVENT,
  REQ_GET_NESTED_STATE_PAGES,
  type VcpuState,
} from '../../vcpu-state.ts';
import { clearExceptionQueue, clearInterruptQueue, exceptionIsSoft } from '../../x86/exceptions.ts';
import { lapicMaxIrr } from '../../x86/lapic.ts';
import { leaveGuestMode } from '../../x86/nested-ops.ts';
import { isPaePaging } from '../../x86/registers.ts';
import { vmxSetVirtualApicMode } from '../apic-access-page.ts';
import { vmxExitReasonName } from '../exit-reasons.ts';
import { vmxUpdateCpuDirtyLogging } from '../pml.ts';
import { switchVmcs } from '../switch-vmcs.ts';
import { serviceLocalTlbFlushRequests } from '../tlb.ts';
import { vmcsRead, vmcsWrite, vmcsWrite64 } from '../vmcs-access.ts';
import { loadVmcs12HostState, nestedVmxAbort, restoreHostState } from './host-state.ts';
import { storeMsrs } from './msr-lists.ts';
import { cancelPreemptionTimer } from './preemption-timer.ts';
import { flushShadowVmcs12 } from './shadow-vmcs12.ts';
import { syncVmcs12 } from './sync-vmcs12.ts';
import { nestedVmxFail } from './vm-result.ts';
import { unmapVmcs12Pages } from './vmcs12-pages.ts';

/** Leaves L2 without an exit that L1 sees. */
export const NO_EXIT_REASON = -1;

/** An event on its way into L2 that did not arrive goes into the IDT-vectoring information. @kvm nested.c vmcs12_save_pending_event */
function savePendingEvent(vcpu: VcpuState, reason: number, intrInfo: number): void {
  const { vmx, x86 } = vcpu;
  const v = vmx.nested.vmcs12;
  const basic = reason & 0xffff;
  const isDoubleFault =
    (intrInfo & (C.INTR_INFO_VALID_MASK | C.INTR_INFO_INTR_TYPE_MASK | C.INTR_INFO_VECTOR_MASK)) ===
    (C.INTR_INFO_VALID_MASK | C.INTR_TYPE_HARD_EXCEPTION | DF_VECTOR);
  let info = 0;
  if (basic === R.EXIT_REASON_TRIPLE_FAULT || (basic === R.EXIT_REASON_EXCEPTION_NMI && isDoubleFault)) info = 0;
  else if (x86.exception.injected) {
    const { vector } = x86.exception;
    info = vector | C.INTR_INFO_VALID_MASK;
    if (exceptionIsSoft(vector)) {
      v.set(F.VMCS_VM_EXIT_INSTRUCTION_LEN, vmx.eventExitInstLen);
      info |= C.INTR_TYPE_SOFT_EXCEPTION;
    } else info |= C.INTR_TYPE_HARD_EXCEPTION;
    if (x86.exception.hasErrorCode) {
      info |= C.INTR_INFO_DELIVER_CODE_MASK;
      v.set(F.VMCS_IDT_VECTORING_ERROR_CODE, x86.exception.errorCode);
    }
  } else if (x86.nmiInjected) info = C.INTR_TYPE_NMI_INTR | C.INTR_INFO_VALID_MASK | NMI_VECTOR;
  else if (x86.interruptInjected) {
    info = x86.interruptNr | C.INTR_INFO_VALID_MASK;
    if (x86.interruptSoft) {
      info |= C.INTR_TYPE_SOFT_INTR;
      v.set(F.VMCS_VM_ENTRY_INSTRUCTION_LEN, vmx.eventExitInstLen);
    } else info |= C.INTR_TYPE_EXT_INTR;
  }
  v.set(F.VMCS_IDT_VECTORING_INFO_FIELD, info);
}

/** @kvm nested.c prepare_vmcs12 */
function prepareVmcs12(vcpu: VcpuState, reason: number, intrInfo: number, qualLo: number, qualHi: number): void {
  const { vmx } = vcpu;
  const v = vmx.nested.vmcs12;
  v.set(F.VMCS_VM_EXIT_REASON, reason);
  v.set64(F.VMCS_EXIT_QUALIFICATION, qualLo, qualHi);
  if (reason < 0) return;
  v.launchState = 1;
  v.set(F.VMCS_VM_ENTRY_INTR_INFO_FIELD, v.lo(F.VMCS_VM_ENTRY_INTR_INFO_FIELD) & ~C.INTR_INFO_VALID_MASK);
  savePendingEvent(vcpu, reason, intrInfo);
  v.set(F.VMCS_VM_EXIT_INTR_INFO, intrInfo);
  v.set(F.VMCS_VM_EXIT_INSTRUCTION_LEN, vmcsRead(vmx, F.VMCS_VM_EXIT_INSTRUCTION_LEN));
  v.set(F.VMCS_VMX_INSTRUCTION_INFO, vmcsRead(vmx, F.VMCS_VMX_INSTRUCTION_INFO));
  if (!storeMsrs(vcpu)) nestedVmxAbort(vcpu);
}

/** As the kernel's events print a word of 32 bits. */
export function hex32(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
}

function traceInject(vcpu: VcpuState): void {
  const { trace } = vcpu.vm;
  if (!trace.enabled) return;
  const v = vcpu.vmx.nested.vmcs12;
  trace.emit('kvm_nested_vmexit_inject', {
    reason: vmxExitReasonName(v.lo(F.VMCS_VM_EXIT_REASON)),
    info1: hex64(v.lo(F.VMCS_EXIT_QUALIFICATION), v.hi(F.VMCS_EXIT_QUALIFICATION)),
    info2: hex64(v.lo(F.VMCS_IDT_VECTORING_INFO_FIELD), 0),
    exit_int: hex32(v.lo(F.VMCS_VM_EXIT_INTR_INFO)),
    exit_int_err: hex32(v.lo(F.VMCS_VM_EXIT_INTR_ERROR_CODE)),
  });
}

/** What L1's VMCS missed while L2's was loaded. */
function catchUpVmcs01(vcpu: VcpuState): void {
  const { vmx } = vcpu;
  const { nested } = vmx;
  vcpu.vm.vendor.setTscOffset(vcpu);
  if (nested.l1TprThreshold !== -1) vmcsWrite(vmx, F.VMCS_TPR_THRESHOLD, nested.l1TprThreshold);
  if (nested.changeVmcs01VirtualApicMode) {
    nested.changeVmcs01VirtualApicMode = false;
    vmxSetVirtualApicMode(vcpu);
  }
  if (nested.updateVmcs01CpuDirtyLogging) {
    nested.updateVmcs01CpuDirtyLogging = false;
    vmxUpdateCpuDirtyLogging(vcpu);
  }
  unmapVmcs12Pages(vcpu);
  if (nested.reloadVmcs01ApicAccessPage) {
    nested.reloadVmcs01ApicAccessPage = false;
    makeRequest(vcpu, REQ_APIC_PAGE_RELOAD);
  }
}

/**
 * L1 goes on, with this exit in its VMCS (NO_EXIT_REASON: none).
 * @param qualLo exit qualification, halves
 * @kvm nested.c nested_vmx_vmexit
 */
export function nestedVmxVmexit(
  vcpu: VcpuState,
  reason: number,
  intrInfo: number,
  qualLo: number,
  qualHi: number,
): void {
  const { vmx } = vcpu;
  const { nested } = vmx;
  const v = nested.vmcs12;
  nested.mtfPending = false;
  vcpu.vm.log.warnOnOnce(nested.runPending, 'nested_vmx_vmexit', 'an exit from an L2 that was not entered');
  vcpu.requests &= ~REQ_GET_NESTED_STATE_PAGES;
  serviceLocalTlbFlushRequests(vcpu);
  if (vcpu.vm.vendor.tdpEnabled && isPaePaging(vcpu)) {
    const { pdptrs } = vcpu.mmu.walkMmu;
    for (let i = 0; i < 4; i++) vmcsWrite64(vmx, F.VMCS_GUEST_PDPTR0 + 8 * i, pdptrs[2 * i]!, pdptrs[2 * i + 1]!);
  }
  leaveGuestMode(vcpu);
  if (v.preemptionTimer && vmx.fail !== VM_SUCCEED) cancelPreemptionTimer(vcpu);
  vcpu.x86.l2TscOffsetLo = 0;
  vcpu.x86.l2TscOffsetHi = 0;
  if (vmx.fail === VM_SUCCEED) {
    syncVmcs12(vcpu);
    cancelPreemptionTimer(vcpu);
    if (reason !== NO_EXIT_REASON) prepareVmcs12(vcpu, reason, intrInfo, qualLo, qualHi);
    flushShadowVmcs12(vcpu);
  }
  vcpu.x86.nmiInjected = false;
  clearExceptionQueue(vcpu);
  clearInterruptQueue(vcpu);
  switchVmcs(vcpu, vmx.vmcs01);
  catchUpVmcs01(vcpu);
  vcpu.mpState = MP_STATE_RUNNABLE;
  // With virtual-interrupt delivery the processor itself finds what L2 has made deliverable.
  const { lapic } = vcpu.x86;
  if (vcpu.vm.x86.apicvActivated && lapic !== null && lapicMaxIrr(lapic) >= 0) makeRequest(vcpu, REQ_EVENT);
  if (vmx.fail === VM_SUCCEED) {
    if (reason !== NO_EXIT_REASON) traceInject(vcpu);
    loadVmcs12HostState(vcpu);
    return;
  }
  nestedVmxFail(vcpu, C.VMXERR_ENTRY_INVALID_CONTROL_FIELD);
  restoreHostState(vcpu);
  vmx.fail = VM_SUCCEED;
}

/** @kvm nested.c nested_vmx_triple_fault */
export function nestedTripleFaultExit(vcpu: VcpuState): void {
  nestedVmxVmexit(vcpu, R.EXIT_REASON_TRIPLE_FAULT, 0, 0, 0);
}
