/** From L2 back to L1: what #VMEXIT of L1's hardware would do (@kvm nested.c nested_svm_vmexit). */
import { DR7_FIXED_1 } from '../../arch/debug-registers.ts';
import { DB_VECTOR } from '../../arch/exceptions.ts';
import { hex64 } from '../../arch/flags.ts';
import { CR0_PE, RAX, RFLAGS_TF, RIP, RSP } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import {
  MP_STATE_RUNNABLE,
  makeRequest,
  REQ_EVENT,
  REQ_GET_NESTED_STATE_PAGES,
  REQ_MMU_SYNC,
  REQ_TLB_FLUSH_CURRENT,
  REQ_TRIPLE_FAULT,
  type VcpuState,
} from '../vcpu-state.ts';
import { X86_FEATURE_NRIPS } from '../x86/cpuid-features.ts';
import { updateDr7 } from '../x86/debug-registers.ts';
import { clearExceptionQueue, clearInterruptQueue, injectGp, queueException } from '../x86/exceptions.ts';
import { guestCpuidHas } from '../x86/guest-cpuid.ts';
import { leaveGuestMode } from '../x86/nested-ops.ts';
import { getRflags, registerWrite, ripWrite, setRflags } from '../x86/registers.ts';
import { svmSetCr0, svmSetCr4, svmSetEfer } from './control-registers.ts';
import { svmExitReasonName } from './exit-reasons.ts';
import { svmSetGif } from './gif.ts';
import { nestedLoadCr3, uninitNestedMmuContext } from './nested-mmu.ts';
import { svmWriteTscOffset } from './tsc-offset.ts';
import { switchVmcb, vmcb01Read, vmcb12IsIntercept, vmcb12Read, vmcbRead, vmcbWrite64 } from './vmcb-access.ts';
import { copyField, mapPage, unmapDirty } from './vmcb12-page.ts';

/** Both sides' translations may be the other's. @kvm nested.c nested_svm_transition_tlb_flush */
export function transitionTlbFlush(vcpu: VcpuState): void {
  makeRequest(vcpu, REQ_MMU_SYNC | REQ_TLB_FLUSH_CURRENT);
}

/**
 * What the processor wrote goes into the cache, to be copied from there. V_IRQ stays where KVM uses VMCB02's for an interrupt window
 * of its own. @kvm nested.c nested_sync_control_from_vmcb02
 */
export function syncControlFromVmcb02(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  const { cached } = svm.nested;
  cached[V.VMCB_EVENT_INJ >> 2] = vmcbRead(svm, V.VMCB_EVENT_INJ);
  cached[(V.VMCB_EVENT_INJ >> 2) + 1] = vmcbRead(svm, V.VMCB_EVENT_INJ + 4);
  cached[V.VMCB_INT_STATE >> 2] = vmcbRead(svm, V.VMCB_INT_STATE);
  let mask = V.V_IRQ_MASK | V.V_TPR_MASK;
  const windowOfKvm =
    (vmcbRead(svm, V.VMCB_INTERCEPT_WORD3) & V.INTERCEPT_VINTR) !== 0 &&
    !vmcb12IsIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_VINTR);
  if (windowOfKvm) mask &= ~V.V_IRQ_MASK;
  const at = V.VMCB_INT_CTL >> 2;
  cached[at] = (cached[at]! & ~mask) | (vmcbRead(svm, V.VMCB_INT_CTL) & mask);
}

/** An event that L2 was to get, by L1 or KVM, is EXITINTINFO for L1. @kvm nested.c nested_save_pending_event_to_vmcb12 */
function savePendingEvent(vcpu: VcpuState, vmcb12: number): void {
  const { x86 } = vcpu;
  const i32 = vcpu.vm.memory.i32;
  const at = vmcb12 + (V.VMCB_EXIT_INT_INFO >> 2);
  let info = 0;
  if (x86.exception.injected) {
    info = x86.exception.vector | V.SVM_EVTINJ_VALID | V.SVM_EVTINJ_TYPE_EXEPT;
    if (x86.exception.hasErrorCode) {
      info |= V.SVM_EVTINJ_VALID_ERR;
      i32[at + 1] = x86.exception.errorCode;
    }
  } else if (x86.nmiInjected) info = V.SVM_EVTINJ_VALID | V.SVM_EVTINJ_TYPE_NMI;
  else if (x86.interruptInjected) {
    const type = x86.interruptSoft ? V.SVM_EVTINJ_TYPE_SOFT : V.SVM_EVTINJ_TYPE_INTR;
    info = x86.interruptNr | V.SVM_EVTINJ_VALID | type;
  }
  i32[at] = info;
}

/** L2's state and why it stopped, into L1's VMCB at word `vmcb12`. */
function storeVmcb12(vcpu: VcpuState, vmcb12: number): void {
  const svm = vcpu.svm;
  const i32 = vcpu.vm.memory.i32;
  const { regs } = vcpu;
  const from = svm.vmcb;
  const put = (off: number, lo: number, hi: number): void => {
    i32[vmcb12 + (off >> 2)] = lo;
    i32[vmcb12 + (off >> 2) + 1] = hi;
  };
  copyField(i32, vmcb12, from, V.VMCB_ES, 16);
  copyField(i32, vmcb12, from, V.VMCB_GDTR, 4);
  copyField(i32, vmcb12, from, V.VMCB_IDTR, 4);
  put(V.VMCB_EFER, vcpu.efer, 0);
  put(V.VMCB_CR0, vcpu.cr0, 0);
  put(V.VMCB_CR3, vcpu.cr3Lo, vcpu.cr3Hi);
  put(V.VMCB_CR2, vcpu.cr2Lo, vcpu.cr2Hi);
  put(V.VMCB_CR4, vcpu.cr4, 0);
  put(V.VMCB_RFLAGS, getRflags(vcpu), 0);
  put(V.VMCB_RIP, regs[2 * RIP]!, regs[2 * RIP + 1]!);
  put(V.VMCB_RSP, regs[2 * RSP]!, regs[2 * RSP + 1]!);
  put(V.VMCB_RAX, regs[2 * RAX]!, regs[2 * RAX + 1]!);
  copyField(i32, vmcb12, from, V.VMCB_DR7, 2);
  put(V.VMCB_DR6, vcpu.x86.dr6, 0);
  const u8 = vcpu.vm.memory.u8;
  u8[vmcb12 * 4 + V.VMCB_CPL] = u8[from * 4 + V.VMCB_CPL]!;
  copyField(i32, vmcb12, from, V.VMCB_INT_STATE, 1);
  copyField(i32, vmcb12, from, V.VMCB_EXIT_CODE, 6);
  if (i32[vmcb12 + (V.VMCB_EXIT_CODE >> 2)] !== V.SVM_EXIT_ERR) savePendingEvent(vcpu, vmcb12);
  if (vcpu.vm.profile.nrips && guestCpuidHas(vcpu, X86_FEATURE_NRIPS)) {
    copyField(i32, vmcb12, from, V.VMCB_NEXT_RIP, 2);
  }
  put(V.VMCB_EVENT_INJ, 0, 0);
  i32[vmcb12 + (V.VMCB_INT_CTL >> 2)] = vmcb12Read(svm, V.VMCB_INT_CTL);
}

/** L1 as it was at its VMRUN, out of VMCB01. */
function restoreL1(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  const lo = (off: number): number => vmcb01Read(svm, off);
  setRflags(vcpu, lo(V.VMCB_RFLAGS));
  svmSetEfer(vcpu, lo(V.VMCB_EFER));
  svmSetCr0(vcpu, lo(V.VMCB_CR0) | CR0_PE);
  svmSetCr4(vcpu, lo(V.VMCB_CR4));
  registerWrite(vcpu, RAX, lo(V.VMCB_RAX), lo(V.VMCB_RAX + 4));
  registerWrite(vcpu, RSP, lo(V.VMCB_RSP), lo(V.VMCB_RSP + 4));
  ripWrite(vcpu, lo(V.VMCB_RIP), lo(V.VMCB_RIP + 4));
  vcpu.x86.dr7 = DR7_FIXED_1;
  updateDr7(vcpu);
}

function traceInject(vcpu: VcpuState, vmcb12: number): void {
  const { trace, memory } = vcpu.vm;
  if (!trace.enabled) return;
  const lo = (off: number): number => memory.i32[vmcb12 + (off >> 2)]!;
  trace.emit('kvm_nested_vmexit_inject', {
    reason: svmExitReasonName(lo(V.VMCB_EXIT_CODE)),
    info1: hex64(lo(V.VMCB_EXIT_INFO_1), lo(V.VMCB_EXIT_INFO_1 + 4)),
    info2: hex64(lo(V.VMCB_EXIT_INFO_2), lo(V.VMCB_EXIT_INFO_2 + 4)),
    exit_int: hex32(lo(V.VMCB_EXIT_INT_INFO)),
    exit_int_err: hex32(lo(V.VMCB_EXIT_INT_INFO + 4)),
  });
}

/** As the kernel's events print a word of 32 bits. */
export function hex32(value: number): string {
  return `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
}

/**
 * Ends guest mode with the exit that VMCB02 holds. 0; 1 when L1's VMCB is not there any more, and L2 gets a #GP.
 * @kvm nested.c nested_svm_vmexit
 */
export function nestedSvmVmexit(vcpu: VcpuState): number {
  const { svm, x86 } = vcpu;
  const { nested } = svm;
  const gpa = nested.vmcb12Gpa;
  const pfn = mapPage(vcpu, gpa);
  if (pfn < 0) {
    injectGp(vcpu, 0);
    return 1;
  }
  const vmcb12 = pfn * 1024;
  leaveGuestMode(vcpu);
  nested.vmcb12Gpa = 0;
  vcpu.vm.log.warnOnOnce(nested.runPending, 'nested_svm_vmexit', 'an exit before the entry');
  vcpu.requests &= ~REQ_GET_NESTED_STATE_PAGES;
  // L2 may have halted.
  vcpu.mpState = MP_STATE_RUNNABLE;
  storeVmcb12(vcpu, vmcb12);
  switchVmcb(svm, svm.vmcb01);
  // KVM's interrupt window may have been VMCB02's.
  if (!vmcb12IsIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_INTR)) makeRequest(vcpu, REQ_EVENT);
  svmSetGif(vcpu, false);
  vmcbWrite64(svm, V.VMCB_EXIT_INT_INFO, 0, vmcbRead(svm, V.VMCB_EXIT_INT_INFO + 4));
  x86.l2TscOffsetLo = 0;
  x86.l2TscOffsetHi = 0;
  svmWriteTscOffset(vcpu);
  nested.cached[V.VMCB_NESTED_CR3 >> 2] = 0;
  nested.cached[(V.VMCB_NESTED_CR3 >> 2) + 1] = 0;
  restoreL1(vcpu);
  traceInject(vcpu, vmcb12);
  unmapDirty(vcpu, gpa, pfn);
  transitionTlbFlush(vcpu);
  uninitNestedMmuContext(vcpu);
  if (nestedLoadCr3(vcpu, vmcb01Read(svm, V.VMCB_CR3), vmcb01Read(svm, V.VMCB_CR3 + 4), false, true) !== 0) {
    makeRequest(vcpu, REQ_TRIPLE_FAULT);
  }
  // What was L2's is in L1's VMCB now.
  x86.nmiInjected = false;
  clearExceptionQueue(vcpu);
  clearInterruptQueue(vcpu);
  // A VMRUN that is stepped over ends here.
  if ((vmcb01Read(svm, V.VMCB_RFLAGS) & RFLAGS_TF) !== 0) queueException(vcpu, DB_VECTOR);
  svm.nmiL1ToL2 = false;
  svm.softIntInjected = false;
  return 0;
}

/** An exit with nothing to say but its code. @kvm svm.h nested_svm_simple_vmexit */
export function nestedSimpleVmexit(vcpu: VcpuState, code: number): number {
  vmcbWrite64(vcpu.svm, V.VMCB_EXIT_CODE, code, 0);
  vmcbWrite64(vcpu.svm, V.VMCB_EXIT_INFO_1, 0, 0);
  vmcbWrite64(vcpu.svm, V.VMCB_EXIT_INFO_2, 0, 0);
  return nestedSvmVmexit(vcpu);
}
