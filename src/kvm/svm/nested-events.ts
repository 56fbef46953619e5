/** Events that are exits to L1 while L2 runs (@kvm nested.c svm_check_nested_events). */
import { DR7_GD } from '../../arch/debug-registers.ts';
import { DB_VECTOR, PF_VECTOR } from '../../arch/exceptions.ts';
import { hex64 } from '../../arch/flags.ts';
import * as V from '../../arch/vmcb.ts';
import { EBUSY } from '../../host/errno.ts';
import { REQ_TRIPLE_FAULT, type VcpuState } from '../vcpu-state.ts';
import { updateDr7 } from '../x86/debug-registers.ts';
import { deliverExceptionPayload, eventNeedsReinjection } from '../x86/exceptions.ts';
import { cpuHasInterrupt } from '../x86/irq.ts';
import { svmInterruptBlocked, svmNmiBlocked, svmSmiBlocked } from './event-windows.ts';
import { nestedSimpleVmexit, nestedSvmVmexit } from './nested-vmexit.ts';
import { vmcb12IsIntercept, vmcbRead, vmcbWrite64 } from './vmcb-access.ts';

function l1Wants(vcpu: VcpuState, mask: number): boolean {
  return vmcb12IsIntercept(vcpu.svm, V.VMCB_INTERCEPT_WORD3, mask);
}

/** @kvm nested.c nested_svm_is_exception_vmexit */
export function isExceptionVmexit(vcpu: VcpuState, vector: number): boolean {
  return vmcb12IsIntercept(vcpu.svm, V.VMCB_INTERCEPT_EXCEPTIONS, 1 << vector);
}

/** @kvm nested.c nested_svm_inject_exception_vmexit */
function injectExceptionVmexit(vcpu: VcpuState): void {
  const { svm, x86 } = vcpu;
  const ex = x86.exceptionVmexit;
  vmcbWrite64(svm, V.VMCB_EXIT_CODE, V.SVM_EXIT_EXCP_BASE + ex.vector, 0);
  if (ex.hasErrorCode) vmcbWrite64(svm, V.VMCB_EXIT_INFO_1, ex.errorCode, 0);
  if (ex.vector === PF_VECTOR) {
    if (ex.hasPayload) vmcbWrite64(svm, V.VMCB_EXIT_INFO_2, ex.payloadLo, ex.payloadHi);
    else vmcbWrite64(svm, V.VMCB_EXIT_INFO_2, vcpu.cr2Lo, vcpu.cr2Hi);
  } else if (ex.vector === DB_VECTOR) {
    deliverExceptionPayload(vcpu, ex);
    if ((x86.dr7 & DR7_GD) !== 0) {
      x86.dr7 &= ~DR7_GD;
      updateDr7(vcpu);
    }
  } else vcpu.vm.log.warnOnOnce(ex.hasPayload, 'nested_svm_inject_exception_vmexit', 'a payload without a register');
  nestedSvmVmexit(vcpu);
}

/** 0, or -EBUSY while an event that comes first keeps the exit back. @kvm nested.c svm_check_nested_events */
export function checkEvents(vcpu: VcpuState): number {
  const { svm, x86 } = vcpu;
  const blockExceptions = svm.nested.runPending;
  const blockEvents = blockExceptions || eventNeedsReinjection(vcpu);
  const exitTo = (mask: number, code: number): number => {
    if (blockEvents) return -EBUSY;
    if (l1Wants(vcpu, mask)) nestedSimpleVmexit(vcpu, code);
    return 0;
  };
  if (x86.lapic?.pendingInit === true) return exitTo(V.INTERCEPT_INIT, V.SVM_EXIT_INIT);
  if (x86.exceptionVmexit.pending) {
    if (blockExceptions) return -EBUSY;
    injectExceptionVmexit(vcpu);
    return 0;
  }
  if (x86.exception.pending) return blockExceptions ? -EBUSY : 0;
  if (x86.smiPending && !svmSmiBlocked(vcpu)) return exitTo(V.INTERCEPT_SMI, V.SVM_EXIT_SMI);
  if (x86.nmiPending > 0 && !svmNmiBlocked(vcpu)) return exitTo(V.INTERCEPT_NMI, V.SVM_EXIT_NMI);
  if (cpuHasInterrupt(vcpu) && !svmInterruptBlocked(vcpu)) {
    const { trace } = vcpu.vm;
    if (trace.enabled && !blockEvents && l1Wants(vcpu, V.INTERCEPT_INTR)) {
      trace.emit('kvm_nested_intr_vmexit', { rip: hex64(vmcbRead(svm, V.VMCB_RIP), vmcbRead(svm, V.VMCB_RIP + 4)) });
    }
    return exitTo(V.INTERCEPT_INTR, V.SVM_EXIT_INTR);
  }
  return 0;
}

/** @kvm nested.c nested_svm_triple_fault */
export function nestedTripleFault(vcpu: VcpuState): void {
  if (!l1Wants(vcpu, V.INTERCEPT_SHUTDOWN)) return;
  vcpu.requests &= ~REQ_TRIPLE_FAULT;
  nestedSimpleVmexit(vcpu, V.SVM_EXIT_SHUTDOWN);
}
