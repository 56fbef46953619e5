/** The SVM vendor module: VendorOps over AMD's virtualization hardware (@kvm svm.c svm_x86_ops). */
import { BP_VECTOR } from '../../arch/exceptions.ts';
import * as V from '../../arch/vmcb.ts';
import type { HardwareProfile } from '../../cpu/profile.ts';
import { ENOMEM } from '../../host/errno.ts';
import { X86EMUL_CONTINUE, X86EMUL_RETRY_INSTR } from '../emulate/ops.ts';
import { getActivePcid } from '../mmu/pcid.ts';
import { type KvmParams, tdpEnabled } from '../params.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { ExitInfo, VendorOps } from '../vendor-ops.ts';
import { KVM_DEBUGREG_WONT_EXIT } from '../x86/debug-registers.ts';
import { EMULTYPE_SKIP } from '../x86/emul-type.ts';
import { loadGuestContext } from '../x86/guest-context.ts';
import { KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_SW_BP } from '../x86/guest-debug-bits.ts';
import { svmCheckIntercept } from './check-intercept.ts';
import { allocContiguous, freeContiguous } from './contiguous-pages.ts';
import { svmSetCr0, svmSetCr4, svmSetEfer } from './control-registers.ts';
import { svmInterruptAllowed, svmNmiAllowed, svmSmiAllowed } from './event-windows.ts';
import * as events from './events.ts';
import { svmHandleExit } from './exit-handlers.ts';
import { svmExitReasonName } from './exit-reasons.ts';
import { initVmcb, initVmcbAfterSetCpuid, iopmPfn, setDrIntercepts } from './init-vmcb.ts';
import { svmGetMsr, svmSetMsr } from './msr.ts';
import { initMsrpm, MSRPM_PAGES, svmMsrFilterChanged } from './msrpm.ts';
import { svmFreeNested, svmLeaveNested } from './nested-memory.ts';
import { svmNestedOps } from './nested-ops.ts';
import { svmEnterSmm, svmLeaveSmm } from './nested-smm.ts';
import { svmVcpuRun } from './run.ts';
import { putSaveArea } from './save-area.ts';
import * as segments from './segments.ts';
import { sevSnpInitProtectedGuestState } from './sev/ap-creation.ts';
import { sevFreeVcpu } from './sev/launch.ts';
import { sevVcpuRun } from './sev/run.ts';
import { sevEsVcpuReset, sevOps, sevVcpuCreate } from './sev/sev.ts';
import { svmFlushTlbCurrent, svmFlushTlbGva } from './tlb.ts';
import { svmWriteTscOffset } from './tsc-offset.ts';
import { nestedVirtualizeTpr } from './virtual-tpr.ts';
import {
  clrExceptionIntercept,
  clrIntercept,
  setExceptionIntercept,
  setIntercept,
  switchVmcb,
  vmcbRead,
  vmcbWrite64,
} from './vmcb-access.ts';

/** @kvm svm.c svm_vcpu_create: 0 or -ENOMEM. */
function svmVcpuCreate(vcpu: VcpuState): number {
  const svm = vcpu.svm;
  const pages = vcpu.vm.host.pages;
  if (iopmPfn(vcpu) < 0) return -ENOMEM;
  const msrpm = allocContiguous(pages, MSRPM_PAGES);
  if (msrpm < 0) return -ENOMEM;
  const vmcb = pages.allocPage();
  if (vmcb < 0) {
    freeContiguous(pages, msrpm, MSRPM_PAGES);
    return -ENOMEM;
  }
  svm.msrpmPfn = msrpm;
  svm.words = vcpu.vm.memory.i32;
  svm.vmcb01.place(vmcb);
  switchVmcb(svm, svm.vmcb01);
  return sevVcpuCreate(vcpu);
}

/** @kvm svm.c svm_vcpu_free */
function svmVcpuFree(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  if (svm.vmcb01.pfn < 0) return;
  svmLeaveNested(vcpu);
  svmFreeNested(vcpu);
  sevFreeVcpu(vcpu);
  vcpu.vm.host.pages.freePage(svm.vmcb01.pfn);
  freeContiguous(vcpu.vm.host.pages, svm.msrpmPfn, MSRPM_PAGES);
  svm.vmcb01.pfn = -1;
  svm.msrpmPfn = -1;
}

/** @kvm svm.c svm_vcpu_reset */
function svmVcpuReset(vcpu: VcpuState, initEvent: boolean): void {
  if (initEvent) sevSnpInitProtectedGuestState(vcpu);
  if (!initEvent) {
    initMsrpm(vcpu);
    vcpu.svm.nmiMasked = false;
    vcpu.svm.awaitingIretCompletion = false;
  }
  initVmcb(vcpu);
  if (!initEvent) sevEsVcpuReset(vcpu);
}

/** @kvm svm.c svm_load_mmu_pgd */
function svmLoadMmuPgd(vcpu: VcpuState, rootPfn: number, rootLevel: number): void {
  const lo = (rootPfn << 12) | 0;
  const hi = Math.floor(rootPfn / 0x10_0000);
  if (vcpu.vm.vendor.tdpEnabled) {
    vmcbWrite64(vcpu.svm, V.VMCB_NESTED_CR3, lo, hi);
    vmcbWrite64(vcpu.svm, V.VMCB_CR3, vcpu.cr3Lo, vcpu.cr3Hi);
  } else {
    const pcid = rootLevel >= 4 ? getActivePcid(vcpu) : 0;
    vmcbWrite64(vcpu.svm, V.VMCB_CR3, lo | pcid, hi);
  }
}

const exitInfo: ExitInfo = {
  reason: 0,
  info1Lo: 0,
  info1Hi: 0,
  info2Lo: 0,
  info2Hi: 0,
  intrInfo: 0,
  errorCode: 0,
};

/** @kvm svm.c svm_get_exit_info */
function svmGetExitInfo(vcpu: VcpuState): ExitInfo {
  const svm = vcpu.svm;
  exitInfo.reason = vmcbRead(svm, V.VMCB_EXIT_CODE);
  exitInfo.info1Lo = vmcbRead(svm, V.VMCB_EXIT_INFO_1);
  exitInfo.info1Hi = vmcbRead(svm, V.VMCB_EXIT_INFO_1 + 4);
  exitInfo.info2Lo = vmcbRead(svm, V.VMCB_EXIT_INFO_2);
  exitInfo.info2Hi = vmcbRead(svm, V.VMCB_EXIT_INFO_2 + 4);
  const info = vmcbRead(svm, V.VMCB_EXIT_INT_INFO);
  exitInfo.intrInfo = info;
  const withError = V.SVM_EVTINJ_VALID | V.SVM_EVTINJ_VALID_ERR;
  exitInfo.errorCode = (info & withError) === withError ? vmcbRead(svm, V.VMCB_EXIT_INT_INFO + 4) : 0;
  return exitInfo;
}

/** @kvm svm.c svm_update_exception_bitmap */
function svmUpdateExceptionBitmap(vcpu: VcpuState): void {
  const wanted = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
  if ((vcpu.x86.guestDebug & wanted) === wanted) setExceptionIntercept(vcpu.svm, BP_VECTOR);
  else clrExceptionIntercept(vcpu.svm, BP_VECTOR);
}

/** @kvm svm.c svm_sync_dirty_debug_regs */
function svmSyncDirtyDebugRegs(vcpu: VcpuState): void {
  vcpu.x86.dr6 = vmcbRead(vcpu.svm, V.VMCB_DR6);
  vcpu.x86.dr7 = vmcbRead(vcpu.svm, V.VMCB_DR7);
  vcpu.x86.switchDbRegs &= ~KVM_DEBUGREG_WONT_EXIT;
  setDrIntercepts(vcpu);
}

/** @kvm svm.c svm_update_cr8_intercept */
function svmUpdateCr8Intercept(vcpu: VcpuState, tpr: number, irr: number): void {
  if (nestedVirtualizeTpr(vcpu)) return;
  clrIntercept(vcpu.svm, V.VMCB_INTERCEPT_CR, V.INTERCEPT_CR8_WRITE);
  if (irr !== -1 && tpr >= irr) setIntercept(vcpu.svm, V.VMCB_INTERCEPT_CR, V.INTERCEPT_CR8_WRITE);
}

/** @kvm svm.c svm_vcpu_load */
function svmVcpuLoad(vcpu: VcpuState): void {
  loadGuestContext(vcpu);
}

/** Instruction bytes in the VMCB; hardware without DecodeAssists leaves none (@apm 15.8.4). */
function svmExitInsnLength(vcpu: VcpuState): number {
  if (!vcpu.vm.profile.decodeAssists || vcpu.svm.sev !== null) return 0;
  const code = vmcbRead(vcpu.svm, V.VMCB_EXIT_CODE);
  if (code !== V.SVM_EXIT_NPF && code !== V.SVM_EXIT_EXCP_BASE + 14) return 0;
  return vcpu.vm.memory.u8[vcpu.svm.currentVmcb.pa + V.VMCB_INSN_LEN]! & 0xf;
}

/** The vendor operations of SVM on hardware `profile` (@kvm svm.c svm_hardware_setup). */
export function createSvm(profile: HardwareProfile, params: KvmParams): VendorOps {
  return {
    name: 'svm',
    ...(profile.snp !== undefined && tdpEnabled(profile, params) ? { confidential: sevOps } : {}),
    tdpEnabled: tdpEnabled(profile, params),
    maxTdpLevel: profile.la57 ? 5 : 4,
    maxHugePageLevel: profile.gbPages ? 3 : 2,
    vcpuCreate: svmVcpuCreate,
    vcpuFree: svmVcpuFree,
    vcpuReset: svmVcpuReset,
    vcpuLoad: svmVcpuLoad,
    putContext: putSaveArea,
    takeContext: (vcpu) => {
      vcpu.svm.saveAreaDirty = true;
    },
    afterSetCpuid: initVmcbAfterSetCpuid,
    loadMmuPgd: svmLoadMmuPgd,
    flushTlbAll: svmFlushTlbCurrent,
    flushTlbCurrent: svmFlushTlbCurrent,
    flushTlbGva: svmFlushTlbGva,
    flushTlbGuest: svmFlushTlbCurrent,
    // Writes are caught by write protection.
    cpuDirtyLogSize: 0,
    updateCpuDirtyLogging: () => {},
    // AVIC is not modelled.
    apicv: false,
    setVirtualApicMode: () => {},
    setApicAccessPageAddr: () => {},
    getCpl: segments.svmGetCpl,
    getSegment: segments.svmGetSegment,
    setSegment: segments.svmSetSegment,
    getSegmentBase: segments.svmGetSegmentBase,
    csL: segments.svmCsL,
    csDb: segments.svmCsDb,
    getIdt: segments.svmGetIdt,
    setIdt: segments.svmSetIdt,
    getGdt: segments.svmGetGdt,
    setGdt: segments.svmSetGdt,
    getRflags: events.svmGetRflags,
    setRflags: events.svmSetRflags,
    setCr0: svmSetCr0,
    setCr4: svmSetCr4,
    setEfer: svmSetEfer,
    setDr7: (vcpu, value) => vmcbWrite64(vcpu.svm, V.VMCB_DR7, value, 0),
    setTscOffset: svmWriteTscOffset,
    syncDirtyDebugRegs: svmSyncDirtyDebugRegs,
    updateExceptionBitmap: svmUpdateExceptionBitmap,
    getMsr: svmGetMsr,
    setMsr: svmSetMsr,
    msrFilterChanged: svmMsrFilterChanged,
    vcpuRun: (vcpu, immediate) => {
      if (vcpu.svm.sev === null) svmVcpuRun(vcpu, immediate);
      else sevVcpuRun(vcpu, immediate);
    },
    handleExit: svmHandleExit,
    getExitInfo: svmGetExitInfo,
    exitReasonName: svmExitReasonName,
    injectException: events.svmInjectException,
    injectIrq: events.svmInjectIrq,
    injectNmi: events.svmInjectNmi,
    cancelInjection: events.svmCancelInjection,
    smiAllowed: svmSmiAllowed,
    enterSmm: svmEnterSmm,
    leaveSmm: svmLeaveSmm,
    // STGI exits, and so does RSM.
    enableSmiWindow: () => {},
    nested: svmNestedOps,
    checkIntercept: svmCheckIntercept,
    initSignalBlocked: (vcpu) => !vcpu.svm.gif,
    nmiAllowed: svmNmiAllowed,
    interruptAllowed: svmInterruptAllowed,
    enableIrqWindow: events.svmEnableIrqWindow,
    enableNmiWindow: events.svmEnableNmiWindow,
    getNmiMask: events.svmGetNmiMask,
    setNmiMask: events.svmSetNmiMask,
    getIfFlag: events.svmGetIfFlag,
    updateCr8Intercept: svmUpdateCr8Intercept,
    checkEmulateInstruction: (vcpu) => (vcpu.svm.sev === null ? X86EMUL_CONTINUE : X86EMUL_RETRY_INSTR),
    // Of an encrypted guest nobody but itself moves RIP.
    skipEmulatedInstruction: (vcpu) => (vcpu.svm.sev === null ? events.svmSkip(vcpu, EMULTYPE_SKIP, true) : 1),
    patchHypercall: (out) => {
      out[0] = 0x0f;
      out[1] = 0x01;
      out[2] = 0xd9;
    },
    exitInsnLength: svmExitInsnLength,
    exitInsnAddress: (vcpu) => vcpu.svm.currentVmcb.pa + V.VMCB_INSN_BYTES,
    getInterruptShadow: events.svmGetInterruptShadow,
    setInterruptShadow: events.svmSetInterruptShadow,
  };
}
