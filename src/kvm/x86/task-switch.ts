/** Hardware task switches, which KVM emulates (@kvm svm.c task_switch_interception, x86.c kvm_task_switch). */
import { BP_VECTOR, OF_VECTOR } from '../../arch/exceptions.ts';
import {
  SVM_EVTINJ_TYPE_EXEPT,
  SVM_EVTINJ_TYPE_INTR,
  SVM_EVTINJ_TYPE_MASK,
  SVM_EVTINJ_TYPE_NMI,
  SVM_EVTINJ_TYPE_SOFT,
  SVM_EVTINJ_VALID,
  SVM_EVTINJ_VEC_MASK,
} from '../../arch/vmcb.ts';
import {
  emulatorTaskSwitch,
  TASK_SWITCH_CALL,
  TASK_SWITCH_GATE,
  TASK_SWITCH_IRET,
  TASK_SWITCH_JMP,
} from '../emulate/emulate.ts';
import { KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_EMULATION } from '../kvm-run.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { initEmulateCtxt } from './decode-instruction.ts';
import { clearExceptionQueue, clearInterruptQueue } from './exceptions.ts';
import { ripWrite, setRflags } from './registers.ts';

// EXITINFO2, high half: what caused the switch.
const REASON_IRET_HI = 1 << 4;
const REASON_JMP_HI = 1 << 6;
const HAS_ERROR_CODE_HI = 1 << 12;

/** What SVM's exit says of the switch. @kvm svm.c task_switch_interception */
export function taskSwitch(vcpu: VcpuState): number {
  const info = vcpu.vm.vendor.getExitInfo(vcpu);
  const { info1Lo: selector, info2Lo, info2Hi, intrInfo } = info;
  const type = intrInfo & SVM_EVTINJ_TYPE_MASK;
  const vector = intrInfo & SVM_EVTINJ_VEC_MASK;
  const vectoring = (intrInfo & SVM_EVTINJ_VALID) !== 0;
  let reason = TASK_SWITCH_CALL;
  if ((info2Hi & REASON_IRET_HI) !== 0) reason = TASK_SWITCH_IRET;
  else if ((info2Hi & REASON_JMP_HI) !== 0) reason = TASK_SWITCH_JMP;
  else if (vectoring) reason = TASK_SWITCH_GATE;
  let errorCode: number | null = null;
  if (reason === TASK_SWITCH_GATE) {
    if (type === SVM_EVTINJ_TYPE_NMI) vcpu.x86.nmiInjected = false;
    else if (type === SVM_EVTINJ_TYPE_EXEPT) {
      if ((info2Hi & HAS_ERROR_CODE_HI) !== 0) errorCode = info2Lo;
      clearExceptionQueue(vcpu);
    } else if (type === SVM_EVTINJ_TYPE_INTR || type === SVM_EVTINJ_TYPE_SOFT) clearInterruptQueue(vcpu);
  }
  const softException = type === SVM_EVTINJ_TYPE_EXEPT && (vector === OF_VECTOR || vector === BP_VECTOR);
  if (reason !== TASK_SWITCH_GATE || type === SVM_EVTINJ_TYPE_SOFT || softException) {
    if (vcpu.vm.vendor.skipEmulatedInstruction(vcpu) === 0) return 0;
  }
  return emulateTaskSwitch(vcpu, selector, type === SVM_EVTINJ_TYPE_SOFT ? vector : -1, reason, errorCode);
}

/**
 * Emulates the switch to the task of `selector`, through IDT entry `idtIndex` or -1: 1, or 0 with an internal-error exit, as a switch is
 * not emulated across MMIO.
 * @kvm x86.c kvm_task_switch
 */
export function emulateTaskSwitch(
  vcpu: VcpuState,
  selector: number,
  idtIndex: number,
  reason: number,
  errorCode: number | null,
): number {
  const ctxt = vcpu.x86.emulateCtxt!;
  initEmulateCtxt(vcpu);
  const ret = emulatorTaskSwitch(ctxt, selector & 0xffff, idtIndex, reason, errorCode);
  if (ret !== 0 || vcpu.x86.mmioNeeded) {
    vcpu.x86.mmioNeeded = false;
    vcpu.run.exitReason = KVM_EXIT_INTERNAL_ERROR;
    vcpu.run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    vcpu.run.internal.ndata = 0;
    return 0;
  }
  ripWrite(vcpu, ctxt.eipLo, ctxt.eipHi);
  setRflags(vcpu, ctxt.eflags);
  return 1;
}
