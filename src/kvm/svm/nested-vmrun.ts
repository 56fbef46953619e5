/** VMRUN of L1: its VMCB becomes VMCB02, on which L2 runs (@kvm nested.c nested_svm_vmrun, enter_svm_guest_mode). */
import { DR6_ACTIVE_LOW, DR7_FIXED_1 } from '../../arch/debug-registers.ts';
import { BP_VECTOR, OF_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { hex64 } from '../../arch/flags.ts';
import { numberOf } from '../../arch/halves.ts';
import { EFER_LMA, EFER_LME, RAX, RFLAGS_FIXED, RIP, RSP } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import { EINVAL } from '../../host/errno.ts';
import { makeRequest, REQ_GET_NESTED_STATE_PAGES, type VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_NRIPS, X86_FEATURE_PAUSEFILTER } from '../x86/cpuid-features.ts';
import { injectGp, queueException } from '../x86/exceptions.ts';
import { guestCpuidHas } from '../x86/guest-cpuid.ts';
import { enterGuestMode } from '../x86/nested-ops.ts';
import { getRflags, registerWrite, ripWrite, setRflags } from '../x86/registers.ts';
import { skipEmulatedInstruction } from '../x86/skip.ts';
import { svmSetCr0, svmSetCr4, svmSetEfer } from './control-registers.ts';
import { svmSetGif } from './gif.ts';
import { checkControls, checkSave } from './nested-checks.ts';
import { nestedLoadCr3, nestedNptEnabled } from './nested-mmu.ts';
import { mergeMsrpm } from './nested-msrpm.ts';
import { initNestedMmuContext } from './nested-npt.ts';
import { hex32, nestedSvmVmexit, transitionTlbFlush } from './nested-vmexit.ts';
import { svmWriteTscOffset } from './tsc-offset.ts';
import { V_IRQ_INJECTION_BITS } from './vintr.ts';
import {
  recalcIntercepts,
  switchVmcb,
  vmcb01Read,
  vmcb01Write64,
  vmcb12IsIntercept,
  vmcb12Read,
  vmcbRead,
  vmcbWrite,
  vmcbWrite64,
} from './vmcb-access.ts';
import { copyField, mapPage, unmapDirty } from './vmcb12-page.ts';

/** Byte offset and length in words of what is taken from the controls. */
const CONTROLS: readonly (readonly [number, number])[] = [
  [V.VMCB_INTERCEPT_CR, 6],
  [V.VMCB_PAUSE_THRESHOLD, 1],
  [V.VMCB_IOPM_BASE, 2],
  [V.VMCB_MSRPM_BASE, 2],
  [V.VMCB_TSC_OFFSET, 2],
  [V.VMCB_ASID, 1],
  [V.VMCB_TLB_CTL, 1],
  [V.VMCB_INT_CTL, 4],
  [V.VMCB_EXIT_CODE, 10],
  [V.VMCB_EVENT_INJ, 2],
  [V.VMCB_NESTED_CR3, 4],
  [V.VMCB_NEXT_RIP, 2],
];

/** And of the save area, as far as it is checked. */
const CHECKED: readonly (readonly [number, number])[] = [
  [V.VMCB_CS, 4],
  [V.VMCB_EFER, 2],
  [V.VMCB_CR4, 6],
  [V.VMCB_DR7, 4],
];

/** @kvm nested.c __nested_copy_vmcb_control_to_cache. @param from words of a VMCB that starts at `at` */
export function copyControlToCache(cached: Int32Array, from: Int32Array, at: number): void {
  for (const [off, words] of CONTROLS)
    for (let i = 0; i < words; i++) cached[(off >> 2) + i] = from[at + (off >> 2) + i]!;
  cached[V.VMCB_TLB_CTL >> 2]! &= 0xff;
  cached[V.VMCB_IOPM_BASE >> 2]! &= ~0xfff;
  cached[V.VMCB_MSRPM_BASE >> 2]! &= ~0xfff;
}

/** @kvm nested.c __nested_copy_vmcb_save_to_cache */
export function copySaveToCache(cached: Int32Array, from: Int32Array, at: number): void {
  for (const [off, words] of CHECKED)
    for (let i = 0; i < words; i++) cached[(off >> 2) + i] = from[at + (off >> 2) + i]!;
}

/** Raised by an instruction of L2's: INT n, INT3, INTO. @kvm nested.c is_evtinj_soft */
function isSoftEvent(event: number): boolean {
  if ((event & V.SVM_EVTINJ_VALID) === 0) return false;
  const type = event & V.SVM_EVTINJ_TYPE_MASK;
  if (type === V.SVM_EVTINJ_TYPE_SOFT) return true;
  const vector = event & V.SVM_EVTINJ_VEC_MASK;
  return type === V.SVM_EVTINJ_TYPE_EXEPT && (vector === BP_VECTOR || vector === OF_VECTOR);
}

/** @kvm nested.c is_evtinj_nmi */
function isNmiEvent(event: number): boolean {
  return (event & V.SVM_EVTINJ_VALID) !== 0 && (event & V.SVM_EVTINJ_TYPE_MASK) === V.SVM_EVTINJ_TYPE_NMI;
}

/** nRIP counts at VMRUN where an event is injected that an instruction of L2's raised. */
function prepareNextRip(vcpu: VcpuState, ripLo: number, ripHi: number, csLo: number, csHi: number): void {
  const { svm } = vcpu;
  const l1Knows = vcpu.vm.profile.nrips && guestCpuidHas(vcpu, X86_FEATURE_NRIPS);
  const fromL1 = l1Knows || !svm.nested.runPending;
  const nextLo = fromL1 ? vmcb12Read(svm, V.VMCB_NEXT_RIP) : ripLo;
  const nextHi = fromL1 ? vmcb12Read(svm, V.VMCB_NEXT_RIP + 4) : ripHi;
  if (vcpu.vm.profile.nrips) vmcbWrite64(svm, V.VMCB_NEXT_RIP, nextLo, nextHi);
  const event = vmcbRead(svm, V.VMCB_EVENT_INJ);
  svm.nmiL1ToL2 = isNmiEvent(event);
  if (!isSoftEvent(event)) return;
  svm.softIntInjected = true;
  svm.softIntCsbaseLo = csLo;
  svm.softIntCsbaseHi = csHi;
  svm.softIntOldRipLo = ripLo;
  svm.softIntOldRipHi = ripHi;
  svm.softIntNextRipLo = nextLo;
  svm.softIntNextRipHi = nextHi;
}

/** KVM's pause filter, unless L1 wants every PAUSE, or KVM none. */
function preparePauseFilter(vcpu: VcpuState): void {
  const { svm } = vcpu;
  const at = V.VMCB_PAUSE_THRESHOLD;
  const l1Has = guestCpuidHas(vcpu, X86_FEATURE_PAUSEFILTER);
  const count12 = l1Has ? vmcb12Read(svm, at) >>> 16 : 0;
  if ((vcpu.vm.x86.disabledExits & 4) !== 0) {
    vmcbWrite(svm, at, count12 << 16);
    return;
  }
  let word = vmcb01Read(svm, at);
  if (vmcb12IsIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_PAUSE)) {
    if (count12 === 0) word &= 0xffff;
    word &= ~0xffff;
  }
  vmcbWrite(svm, at, word);
}

/**
 * Controls of VMCB02, and guest mode. @param ripLo L2's RIP and CS base (halves)
 * @kvm nested.c nested_vmcb02_prepare_control
 */
export function prepareControl(vcpu: VcpuState, ripLo: number, ripHi: number, csLo: number, csHi: number): void {
  const { svm, x86 } = vcpu;
  const i32 = svm.words;
  const from12 = V.V_TPR_MASK | V_IRQ_INJECTION_BITS;
  const from01 = V.V_INTR_MASKING_MASK | V.V_GIF_MASK | V.V_GIF_ENABLE_MASK;
  transitionTlbFlush(vcpu);
  enterGuestMode(vcpu);
  copyField(i32, svm.vmcb, svm.vmcb01.word, V.VMCB_NESTED_CTL, 2);
  copyField(i32, svm.vmcb, svm.vmcb01.word, V.VMCB_IOPM_BASE, 2);
  copyField(i32, svm.vmcb, svm.vmcb01.word, V.VMCB_MSRPM_BASE, 2);
  vmcbWrite(svm, V.VMCB_TLB_CTL, V.TLB_CONTROL_DO_NOTHING);
  if (nestedNptEnabled(vcpu)) initNestedMmuContext(vcpu);
  x86.l2TscOffsetLo = vmcb12Read(svm, V.VMCB_TSC_OFFSET);
  x86.l2TscOffsetHi = vmcb12Read(svm, V.VMCB_TSC_OFFSET + 4);
  svmWriteTscOffset(vcpu);
  const ctl = (vmcb12Read(svm, V.VMCB_INT_CTL) & from12) | (vmcb01Read(svm, V.VMCB_INT_CTL) & from01);
  vmcbWrite(svm, V.VMCB_INT_CTL, ctl);
  vmcbWrite(svm, V.VMCB_INT_VECTOR, vmcb12Read(svm, V.VMCB_INT_VECTOR));
  vmcbWrite64(svm, V.VMCB_INT_STATE, vmcb12Read(svm, V.VMCB_INT_STATE), 0);
  const injected = vmcb12Read(svm, V.VMCB_EVENT_INJ);
  vmcbWrite64(svm, V.VMCB_EVENT_INJ, injected, vmcb12Read(svm, V.VMCB_EVENT_INJ + 4));
  prepareNextRip(vcpu, ripLo, ripHi, csLo, csHi);
  preparePauseFilter(vcpu);
  recalcIntercepts(svm);
}

const CLEAN_DR = 1 << 6;
const CLEAN_DT = 1 << 7;
const CLEAN_SEG = 1 << 8;

/** Save area of VMCB02, and KVM's own copies of L2's registers. @kvm nested.c nested_vmcb02_prepare_save */
function prepareSave(vcpu: VcpuState, vmcb12: number): void {
  const { svm, x86 } = vcpu;
  const { nested, words: i32 } = svm;
  const { u8 } = vcpu.vm.memory;
  const to = svm.vmcb;
  const lo = (off: number): number => i32[vmcb12 + (off >> 2)]!;
  copyField(i32, to, svm.vmcb01.word, V.VMCB_G_PAT, 2);
  const fresh = nested.vmcb12Gpa !== nested.lastVmcb12Gpa;
  nested.lastVmcb12Gpa = nested.vmcb12Gpa;
  const clean = fresh ? 0 : lo(V.VMCB_CLEAN);
  if ((clean & CLEAN_SEG) === 0) {
    copyField(i32, to, vmcb12, V.VMCB_ES, 16);
    u8[to * 4 + V.VMCB_CPL] = u8[vmcb12 * 4 + V.VMCB_CPL]!;
  }
  if ((clean & CLEAN_DT) === 0) {
    copyField(i32, to, vmcb12, V.VMCB_GDTR, 4);
    copyField(i32, to, vmcb12, V.VMCB_IDTR, 4);
  }
  setRflags(vcpu, lo(V.VMCB_RFLAGS) | RFLAGS_FIXED);
  // LMA without LME is ignored, not refused.
  let efer = vmcb12Read(svm, V.VMCB_EFER);
  if ((efer & EFER_LME) === 0) efer &= ~EFER_LMA;
  svmSetEfer(vcpu, efer);
  svmSetCr0(vcpu, vmcb12Read(svm, V.VMCB_CR0));
  svmSetCr4(vcpu, vmcb12Read(svm, V.VMCB_CR4));
  vcpu.cr2Lo = lo(V.VMCB_CR2);
  vcpu.cr2Hi = lo(V.VMCB_CR2 + 4);
  registerWrite(vcpu, RAX, lo(V.VMCB_RAX), lo(V.VMCB_RAX + 4));
  registerWrite(vcpu, RSP, lo(V.VMCB_RSP), lo(V.VMCB_RSP + 4));
  ripWrite(vcpu, lo(V.VMCB_RIP), lo(V.VMCB_RIP + 4));
  for (const off of [V.VMCB_RAX, V.VMCB_RSP, V.VMCB_RIP]) copyField(i32, to, vmcb12, off, 2);
  if ((clean & CLEAN_DR) === 0) {
    vmcbWrite64(svm, V.VMCB_DR7, vmcb12Read(svm, V.VMCB_DR7) | DR7_FIXED_1, 0);
    x86.dr6 = vmcb12Read(svm, V.VMCB_DR6) | DR6_ACTIVE_LOW;
  }
}

function traceVmenter(vcpu: VcpuState, gpa: number, vmcb12: number): void {
  const { trace, memory } = vcpu.vm;
  if (!trace.enabled) return;
  const at = (off: number): number => memory.i32[vmcb12 + (off >> 2)]!;
  const npt = (at(V.VMCB_NESTED_CTL) & 1) !== 0;
  const pgd = npt ? V.VMCB_NESTED_CR3 : V.VMCB_CR3;
  trace.emit('kvm_nested_vmenter', {
    rip: hex64(vmcbRead(vcpu.svm, V.VMCB_RIP), vmcbRead(vcpu.svm, V.VMCB_RIP + 4)),
    vmcb: `0x${gpa.toString(16)}`,
    nested_rip: hex64(at(V.VMCB_RIP), at(V.VMCB_RIP + 4)),
    int_ctl: hex32(at(V.VMCB_INT_CTL)),
    event_inj: hex32(at(V.VMCB_EVENT_INJ)),
    nested_npt: npt ? 'y' : 'n',
    [npt ? 'nested_cr3' : 'guest_cr3']: hex64(at(pgd), at(pgd + 4)),
  });
}

/** 0 or -EINVAL, in guest mode either way. @param vmcb12 word of L1's VMCB @kvm nested.c enter_svm_guest_mode */
export function enterSvmGuestMode(vcpu: VcpuState, gpa: number, vmcb12: number, fromVmrun: boolean): number {
  const { svm } = vcpu;
  traceVmenter(vcpu, gpa, vmcb12);
  svm.nested.vmcb12Gpa = gpa;
  switchVmcb(svm, svm.vmcb02);
  const at = (off: number): number => svm.words[vmcb12 + (off >> 2)]!;
  prepareControl(vcpu, at(V.VMCB_RIP), at(V.VMCB_RIP + 4), at(V.VMCB_CS + 8), at(V.VMCB_CS + 12));
  prepareSave(vcpu, vmcb12);
  const cr3Lo = vmcb12Read(svm, V.VMCB_CR3);
  const cr3Hi = vmcb12Read(svm, V.VMCB_CR3 + 4);
  const r = nestedLoadCr3(vcpu, cr3Lo, cr3Hi, nestedNptEnabled(vcpu), fromVmrun);
  if (r !== 0) return r;
  if (!fromVmrun) makeRequest(vcpu, REQ_GET_NESTED_STATE_PAGES);
  svmSetGif(vcpu, true);
  return 0;
}

/** L1's state goes into VMCB01, which nobody else uses while L2 runs. */
function saveL1(vcpu: VcpuState): void {
  const { svm, regs } = vcpu;
  vmcb01Write64(svm, V.VMCB_EFER, vcpu.efer, 0);
  vmcb01Write64(svm, V.VMCB_CR0, vcpu.cr0, 0);
  vmcb01Write64(svm, V.VMCB_CR4, vcpu.cr4, 0);
  vmcb01Write64(svm, V.VMCB_RFLAGS, getRflags(vcpu), 0);
  vmcb01Write64(svm, V.VMCB_RIP, regs[2 * RIP]!, regs[2 * RIP + 1]!);
  if (!vcpu.vm.vendor.tdpEnabled) vmcb01Write64(svm, V.VMCB_CR3, vcpu.cr3Lo, vcpu.cr3Hi);
}

/** L1 sees that its VMRUN did not enter: only in its VMCB. */
function failChecks(vcpu: VcpuState, vmcb12: number): void {
  const i32 = vcpu.svm.words;
  const put = (off: number, lo: number, hi: number): void => {
    i32[vmcb12 + (off >> 2)] = lo;
    i32[vmcb12 + (off >> 2) + 1] = hi;
  };
  put(V.VMCB_EXIT_CODE, V.SVM_EXIT_ERR, -1);
  put(V.VMCB_EXIT_INFO_1, 0, 0);
  put(V.VMCB_EXIT_INFO_2, 0, 0);
  put(V.VMCB_EVENT_INJ, 0, 0);
  svmSetGif(vcpu, false);
}

/** 1 to go on, 0 to userspace, or -EINVAL. @kvm nested.c nested_svm_vmrun */
export function nestedSvmVmrun(vcpu: VcpuState): number {
  const { svm } = vcpu;
  const { nested } = svm;
  if ((svm.hsaveLo | svm.hsaveHi) === 0) {
    injectGp(vcpu, 0);
    return 1;
  }
  if (vcpu.smm) {
    queueException(vcpu, UD_VECTOR);
    return 1;
  }
  const gpa = numberOf(vmcbRead(svm, V.VMCB_RAX), vmcbRead(svm, V.VMCB_RAX + 4));
  const pfn = mapPage(vcpu, gpa);
  if (pfn < 0) {
    injectGp(vcpu, 0);
    return 1;
  }
  const vmcb12 = pfn * 1024;
  const r = skipEmulatedInstruction(vcpu);
  if (vcpu.vm.log.warnOnOnce(!nested.initialized, 'nested_svm_vmrun', 'VMRUN without EFER.SVME')) return -EINVAL;
  copyControlToCache(nested.cached, svm.words, vmcb12);
  copySaveToCache(nested.cached, svm.words, vmcb12);
  if (!checkSave(vcpu, nested.cached) || !checkControls(vcpu, nested.cached)) failChecks(vcpu, vmcb12);
  else {
    saveL1(vcpu);
    nested.runPending = true;
    if (enterSvmGuestMode(vcpu, gpa, vmcb12, true) !== 0 || !mergeMsrpm(vcpu)) {
      nested.runPending = false;
      vmcbWrite64(svm, V.VMCB_EXIT_CODE, V.SVM_EXIT_ERR, -1);
      vmcbWrite64(svm, V.VMCB_EXIT_INFO_1, 0, 0);
      vmcbWrite64(svm, V.VMCB_EXIT_INFO_2, 0, 0);
      nestedSvmVmexit(vcpu);
    }
  }
  unmapDirty(vcpu, gpa, pfn);
  return r;
}
