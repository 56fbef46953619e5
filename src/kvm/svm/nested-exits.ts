/** Exits of L2: which are KVM's business, and which L1 gets (@kvm nested.c nested_svm_exit_special, nested_svm_intercept). */
import { numberOf } from '../../arch/halves.ts';
import { RCX } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import { readGuest } from '../guest-memory.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { msrpmByte } from './msrpm.ts';
import { msrpm12 } from './nested-msrpm.ts';
import { nestedSvmVmexit } from './nested-vmexit.ts';
import { vmcb12IsIntercept, vmcb12Read, vmcbRead } from './vmcb-access.ts';

/** L0 handles it; L1 got it; not decided yet. @kvm svm.h NESTED_EXIT_* */
export const NESTED_EXIT_HOST = 0;
export const NESTED_EXIT_DONE = 1;
export const NESTED_EXIT_CONTINUE = 2;

const bytes = new Uint8Array(4);

/** @kvm nested.c nested_svm_exit_handled_msr */
function exitHandledMsr(vcpu: VcpuState): number {
  const { svm } = vcpu;
  if (!vmcb12IsIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_MSR_PROT)) return NESTED_EXIT_HOST;
  const msr = vcpu.regs[2 * RCX]! >>> 0;
  const at = msrpmByte(msr);
  if (at < 0) return NESTED_EXIT_DONE;
  if (readGuest(vcpu, msrpm12(vcpu) + at, bytes, 0, 1) < 0) return NESTED_EXIT_DONE;
  const write = vmcbRead(svm, V.VMCB_EXIT_INFO_1) & 1;
  return (bytes[0]! & (1 << (2 * (msr & 3) + write))) !== 0 ? NESTED_EXIT_DONE : NESTED_EXIT_HOST;
}

/** @kvm nested.c nested_svm_intercept_ioio */
function interceptIoio(vcpu: VcpuState): number {
  const { svm } = vcpu;
  if (!vmcb12IsIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_IOIO_PROT)) return NESTED_EXIT_HOST;
  const info = vmcbRead(svm, V.VMCB_EXIT_INFO_1);
  const port = info >>> V.SVM_IOIO_PORT_SHIFT;
  const size = (info >> V.SVM_IOIO_SIZE_SHIFT) & 7;
  const first = port & 7;
  const base = numberOf(vmcb12Read(svm, V.VMCB_IOPM_BASE), vmcb12Read(svm, V.VMCB_IOPM_BASE + 4));
  const length = first + size > 8 ? 2 : 1;
  bytes[1] = 0;
  if (readGuest(vcpu, base + (port >> 3), bytes, 0, length) < 0) return NESTED_EXIT_DONE;
  const mask = (0xf >> (4 - size)) << first;
  return ((bytes[0]! | (bytes[1]! << 8)) & mask) !== 0 ? NESTED_EXIT_DONE : NESTED_EXIT_HOST;
}

/** The intercept bit that an exit code stands for is at this place of the six words: bit 0 of the first is code 0. */
function interceptsCode(vcpu: VcpuState, code: number): boolean {
  if (code < 0 || code >= 192) return false;
  return (vcpu.svm.nested.cached[code >> 5]! & (1 << (code & 31))) !== 0;
}

/** What L1 wants of the exit in VMCB02. @kvm nested.c nested_svm_intercept */
function nestedIntercept(vcpu: VcpuState): number {
  const code = vmcbRead(vcpu.svm, V.VMCB_EXIT_CODE);
  if (code === V.SVM_EXIT_MSR) return exitHandledMsr(vcpu);
  if (code === V.SVM_EXIT_IOIO) return interceptIoio(vcpu);
  // Exceptions that KVM wants itself did not come here: it queues them, and L1 gets its exit then.
  if (code >= V.SVM_EXIT_EXCP_BASE && code < V.SVM_EXIT_EXCP_BASE + 32) return NESTED_EXIT_DONE;
  if (code === V.SVM_EXIT_ERR) return NESTED_EXIT_DONE;
  return interceptsCode(vcpu, code) ? NESTED_EXIT_DONE : NESTED_EXIT_HOST;
}

/** Exits to L1 where L1 wants it. NESTED_EXIT_HOST or NESTED_EXIT_DONE. @kvm nested.c nested_svm_exit_handled */
export function nestedExitHandled(vcpu: VcpuState): number {
  const verdict = nestedIntercept(vcpu);
  if (verdict === NESTED_EXIT_DONE) nestedSvmVmexit(vcpu);
  return verdict;
}

/** Exits that KVM has to see first, whatever L1 wants. @kvm nested.c nested_svm_exit_special */
export function nestedExitSpecial(vcpu: VcpuState): number {
  const { svm } = vcpu;
  const code = vmcbRead(svm, V.VMCB_EXIT_CODE);
  if (code === V.SVM_EXIT_INTR || code === V.SVM_EXIT_NMI || code === V.SVM_EXIT_NPF) return NESTED_EXIT_HOST;
  if (code >= V.SVM_EXIT_EXCP_BASE && code < V.SVM_EXIT_EXCP_BASE + 32) {
    const own = svm.words[svm.vmcb01.word + (V.VMCB_INTERCEPT_EXCEPTIONS >> 2)]!;
    if ((own & (1 << (code - V.SVM_EXIT_EXCP_BASE))) !== 0) return NESTED_EXIT_HOST;
  }
  return NESTED_EXIT_CONTINUE;
}
