/** The VMX vendor module: VendorOps over Intel's virtualization hardware (@kvm vmx.c vt_x86_ops). */
import { hiOf, loOf } from '../../arch/halves.ts';
import { TDH_SYS_INIT } from '../../arch/tdx.ts';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import type { Processor } from '../../cpu/processor.ts';
import type { HardwareProfile } from '../../cpu/profile.ts';
import { DR_AT } from '../../cpu/state.ts';
import { EBUSY, ENOMEM } from '../../host/errno.ts';
import type { HostMachine } from '../../host/machine.ts';
import { X86EMUL_CONTINUE } from '../emulate/ops.ts';
import { getActivePcid } from '../mmu/pcid.ts';
import { type KvmParams, tdpEnabled } from '../params.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { ExitInfo, VendorOps } from '../vendor-ops.ts';
import type { VmState } from '../vm-state.ts';
import { KVM_DEBUGREG_WONT_EXIT } from '../x86/debug-registers.ts';
import { loadGuestContext } from '../x86/guest-context.ts';
import { isPaePaging } from '../x86/registers.ts';
import {
  allocApicAccessPage,
  moveRegisters,
  vmxSetApicAccessPageAddr,
  vmxSetVirtualApicMode,
} from './apic-access-page.ts';
import { vmxIsValidCr0, vmxIsValidCr4, vmxSetCr0, vmxSetCr4, vmxSetEfer } from './control-registers.ts';
import * as events from './events.ts';
import { vmxHandleExit } from './exit-handlers.ts';
import { vmxExitReasonName } from './exit-reasons.ts';
import { needVirtualizeApicAccesses, vmxAfterSetCpuid, vmxUpdateExceptionBitmap, vmxVcpuReset } from './init-vmcs.ts';
import { vmxGetMsr, vmxSetMsr } from './msr.ts';
import { initMsrBitmap, vmxMsrFilterChanged } from './msr-bitmap.ts';
import { vmxCheckIntercept } from './nested/check-intercept.ts';
import { nestedMsrs } from './nested/nested-msrs.ts';
import { vmxNestedOps } from './nested/nested-ops.ts';
import { vmxLeaveNested } from './nested/nested-state.ts';
import { preemptionTimerFn } from './nested/preemption-timer.ts';
import { vmxEnterSmm, vmxLeaveSmm } from './nested/smm.ts';
import { PML_ENTITY_NUM, vmxUpdateCpuDirtyLogging } from './pml.ts';
import { restrictedGuestOps } from './restricted-guest.ts';
import { vmxVcpuRun } from './run.ts';
import * as segments from './segments.ts';
import { loadSyscallMsrs, saveSyscallMsrs } from './syscall-msrs.ts';
import { tdVendorOps, tdxConfidentialOps } from './tdx/tdx.ts';
import { allocateVpid, freeVpid, vmxFlushTlbCurrent, vmxFlushTlbGuest, vmxFlushTlbGva } from './tlb.ts';
import { changeExecControls, vmcsRead, vmcsReadHi, vmcsWrite, vmcsWrite64 } from './vmcs-access.ts';

/** DR6 in the processor. */
const DR6_WORD = (DR_AT >> 2) + 12;

/** Machines whose processor is in VMX operation. */
const inVmxOperation = new WeakSet<Processor>();

/** VMXON, once a machine. False when there is no page for its region. @kvm vmx.c vmx_enable_virtualization_cpu */
function enableVirtualization(host: HostMachine, processor: Processor): boolean {
  if (inVmxOperation.has(processor)) return true;
  const pfn = host.pages.allocPage();
  if (pfn < 0) return false;
  host.memory.i32[pfn * 1024] = F.VMCS_REVISION;
  processor.vmx.vmxon(pfn * 4096);
  inVmxOperation.add(processor);
  return true;
}

/** @kvm vmx.c vmx_vcpu_create: 0, -ENOMEM, or -EEXIST when a slot of userspace is where the APIC access page goes. */
function vmxVcpuCreate(vcpu: VcpuState): number {
  const { vm, vmx } = vcpu;
  const { pages } = vm.host;
  if (!enableVirtualization(vm.host, vm.processor)) return -ENOMEM;
  const { vmcs01 } = vmx;
  vmcs01.pfn = pages.allocPage();
  vmcs01.msrBitmapPfn = pages.allocPage();
  if (vm.vendor.cpuDirtyLogSize > 0) vmx.pmlPfn = pages.allocPage();
  if (needVirtualizeApicAccesses(vcpu)) vmx.virtualApicPfn = pages.allocPage();
  const missing =
    vmcs01.pfn < 0 ||
    vmcs01.msrBitmapPfn < 0 ||
    (vm.vendor.cpuDirtyLogSize > 0 && vmx.pmlPfn < 0) ||
    (needVirtualizeApicAccesses(vcpu) && vmx.virtualApicPfn < 0);
  const r = missing ? -ENOMEM : needVirtualizeApicAccesses(vcpu) ? allocApicAccessPage(vm) : 0;
  if (r !== 0) {
    vmxVcpuFree(vcpu);
    return r;
  }
  vmx.vpid = allocateVpid(vm.processor);
  vmx.words = vm.memory.i32;
  vmx.vmcs = vmcs01.pfn * 1024;
  vmx.words[vmx.vmcs] = F.VMCS_REVISION;
  vm.processor.vmx.vmclear(vmcs01.pfn * 4096);
  vmx.preemptionTimerExpired = () => preemptionTimerFn(vcpu);
  vmx.nested.msrs.copy(nestedMsrs(vm));
  if (vmx.virtualApicPfn >= 0) moveRegisters(vcpu, vmx.virtualApicPfn);
  initMsrBitmap(vcpu);
  return 0;
}

/** @kvm vmx.c vmx_vcpu_free */
function vmxVcpuFree(vcpu: VcpuState): void {
  const { vm, vmx } = vcpu;
  const { vmcs01 } = vmx;
  if (vmx.nested.vmcs02 !== null) vmxLeaveNested(vcpu);
  const apic = vcpu.x86.lapic;
  if (apic !== null && apic.regs.byteOffset !== 0) apic.regs = apic.regs.slice();
  if (vmcs01.pfn >= 0) vm.processor.vmx.vmclear(vmcs01.pfn * 4096);
  for (const pfn of [vmcs01.pfn, vmcs01.msrBitmapPfn, vmx.pmlPfn, vmx.virtualApicPfn]) {
    if (pfn >= 0) vm.host.pages.freePage(pfn);
  }
  if (vmx.vpid !== 0) freeVpid(vm.processor, vmx.vpid);
  vmcs01.pfn = -1;
  vmcs01.msrBitmapPfn = -1;
  vmx.pmlPfn = -1;
  vmx.virtualApicPfn = -1;
  vmx.vpid = 0;
}

/** @kvm vmx.c vmx_vcpu_load */
function vmxVcpuLoad(vcpu: VcpuState): void {
  loadGuestContext(vcpu);
  vcpu.vm.processor.vmx.vmptrld(vcpu.vmx.loaded.pfn * 4096);
}

/** @kvm vmx.c vmx_load_mmu_pgd, construct_eptp, vmx_ept_load_pdptrs */
function vmxLoadMmuPgd(vcpu: VcpuState, rootPfn: number, rootLevel: number): void {
  const vmx = vcpu.vmx;
  const lo = (rootPfn << 12) | 0;
  const hi = Math.floor(rootPfn / 0x10_0000);
  if (!vcpu.vm.vendor.tdpEnabled) {
    vmcsWrite64(vmx, F.VMCS_GUEST_CR3, lo | (rootLevel >= 4 ? getActivePcid(vcpu) : 0), hi);
    return;
  }
  const levels = rootLevel === 5 ? C.VMX_EPTP_PWL_5 : C.VMX_EPTP_PWL_4;
  const l1Sets = !vcpu.guestMode || (vmx.nested.vmcs12.lo(F.VMCS_EPT_POINTER) & C.VMX_EPTP_AD_ENABLE_BIT) !== 0;
  const ad = vcpu.vm.mmu.masks.accessed !== 0 && l1Sets ? C.VMX_EPTP_AD_ENABLE_BIT : 0;
  vmcsWrite64(vmx, F.VMCS_EPT_POINTER, lo | C.VMX_EPTP_MT_WB | levels | ad, hi);
  vmcsWrite64(vmx, F.VMCS_GUEST_CR3, vcpu.cr3Lo, vcpu.cr3Hi);
  if (!isPaePaging(vcpu)) return;
  const { pdptrs } = vcpu.mmu.walkMmu;
  for (let i = 0; i < 4; i++) vmcsWrite64(vmx, F.VMCS_GUEST_PDPTR0 + 8 * i, pdptrs[2 * i]!, pdptrs[2 * i + 1]!);
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

/** @kvm vmx.c vmx_get_exit_info */
function vmxGetExitInfo(vcpu: VcpuState): ExitInfo {
  const vmx = vcpu.vmx;
  const failed = vmx.exitReason < 0;
  exitInfo.reason = vmx.exitReason;
  exitInfo.info1Lo = vmcsRead(vmx, F.VMCS_EXIT_QUALIFICATION);
  exitInfo.info1Hi = vmcsReadHi(vmx, F.VMCS_EXIT_QUALIFICATION);
  exitInfo.info2Lo = failed ? 0 : vmx.idtVectoringInfo;
  exitInfo.info2Hi = 0;
  const info = failed ? 0 : vmcsRead(vmx, F.VMCS_VM_EXIT_INTR_INFO);
  exitInfo.intrInfo = info;
  const withError = C.INTR_INFO_VALID_MASK | C.INTR_INFO_DELIVER_CODE_MASK;
  exitInfo.errorCode = (info & withError) === withError ? vmcsRead(vmx, F.VMCS_VM_EXIT_INTR_ERROR_CODE) : 0;
  return exitInfo;
}

/** @kvm vmx.c vmx_sync_dirty_debug_regs */
function vmxSyncDirtyDebugRegs(vcpu: VcpuState): void {
  vcpu.x86.dr6 = vcpu.vm.memory.i32[DR6_WORD]!;
  vcpu.x86.dr7 = vmcsRead(vcpu.vmx, F.VMCS_GUEST_DR7);
  vcpu.x86.switchDbRegs &= ~KVM_DEBUGREG_WONT_EXIT;
  changeExecControls(vcpu.vmx, C.CPU_BASED_MOV_DR_EXITING, true);
}

/** @kvm vmx.c vmx_update_cr8_intercept */
function vmxUpdateCr8Intercept(vcpu: VcpuState, tpr: number, irr: number): void {
  const { nested } = vcpu.vmx;
  const threshold = irr === -1 || tpr < irr ? 0 : irr;
  if (!vcpu.guestMode) vmcsWrite(vcpu.vmx, F.VMCS_TPR_THRESHOLD, threshold);
  else if (!nested.vmcs12.has(C.CPU_BASED_TPR_SHADOW)) nested.l1TprThreshold = threshold;
}

/**
 * The processor counts instructions; what passed while all vCPUs were halted comes on top of the guest's own offset.
 * @kvm vmx.c vmx_write_tsc_offset
 */
function writeTscOffset(vcpu: VcpuState): void {
  const { x86 } = vcpu;
  const idle = vcpu.vm.x86.idleTime;
  x86.tscIdleTime = idle;
  const l1 = (x86.tscOffsetLo + loOf(idle)) | 0;
  const l1Carry = l1 >>> 0 < loOf(idle) >>> 0 ? 1 : 0;
  const low = (l1 + x86.l2TscOffsetLo) | 0;
  const carry = low >>> 0 < l1 >>> 0 ? 1 : 0;
  const hi = x86.tscOffsetHi + hiOf(idle) + l1Carry + x86.l2TscOffsetHi + carry;
  vmcsWrite64(vcpu.vmx, F.VMCS_TSC_OFFSET, low, hi | 0);
}

/** Largest page that EPT maps: 1 = 4K, 2 = 2M, 3 = 1G. @kvm capabilities.h ept_caps_to_lpage_level */
function hugePageLevel(profile: HardwareProfile): number {
  return profile.vmx.ept1G ? 3 : profile.vmx.ept2M ? 2 : 1;
}

/** A TDX module, and what KVM needs to run TDs: EPT with accessed and dirty bits, the TDP MMU, MMIO entries. @kvm tdx.c tdx_bringup */
function hasTdx(profile: HardwareProfile, params: KvmParams): boolean {
  const { tdx, eptAdBits } = profile.vmx;
  return tdx && eptAdBits && tdpEnabled(profile, params) && params.tdpMmu && params.mmioCaching;
}

/** @kvm tdx.c __do_tdx_bringup */
function bringUpTdx(vm: VmState): boolean {
  if (!enableVirtualization(vm.host, vm.processor)) return false;
  const module = vm.processor.tdx;
  return module.initialized || module.seamcall(TDH_SYS_INIT, { rcx: 0, rdx: 0, r8: 0, r9: 0 }) === 0;
}

/** VMX's operations and beside them those of TDs. */
function withTdx(ops: VendorOps): VendorOps {
  const confidential = tdxConfidentialOps(() => td, bringUpTdx);
  const td: VendorOps = { ...tdVendorOps(ops), confidential };
  return { ...ops, confidential };
}

/** The vendor operations of VMX on hardware `profile` (@kvm vmx.c vmx_hardware_setup). */
export function createVmx(profile: HardwareProfile, params: KvmParams): VendorOps {
  const { vmx } = profile;
  const ept = tdpEnabled(profile, params);
  const ops: VendorOps = {
    name: 'vmx',
    tdpEnabled: ept,
    maxTdpLevel: ept && vmx.eptFiveLevel ? 5 : 4,
    maxHugePageLevel: ept ? hugePageLevel(profile) : profile.gbPages ? 3 : 2,
    cpuDirtyLogSize: ept && params.pml && vmx.pml && vmx.eptAdBits ? PML_ENTITY_NUM : 0,
    vcpuCreate: vmxVcpuCreate,
    vcpuFree: vmxVcpuFree,
    vcpuReset: vmxVcpuReset,
    vcpuLoad: vmxVcpuLoad,
    putContext: saveSyscallMsrs,
    takeContext: loadSyscallMsrs,
    afterSetCpuid: vmxAfterSetCpuid,
    loadMmuPgd: vmxLoadMmuPgd,
    flushTlbAll: vmxFlushTlbCurrent,
    flushTlbCurrent: vmxFlushTlbCurrent,
    flushTlbGva: vmxFlushTlbGva,
    flushTlbGuest: vmxFlushTlbGuest,
    updateCpuDirtyLogging: vmxUpdateCpuDirtyLogging,
    apicv: ept && params.enableApicv && vmx.apicv,
    setVirtualApicMode: vmxSetVirtualApicMode,
    setApicAccessPageAddr: vmxSetApicAccessPageAddr,
    getCpl: segments.vmxGetCpl,
    getSegment: segments.vmxGetSegment,
    setSegment: segments.vmxSetSegment,
    getSegmentBase: segments.vmxGetSegmentBase,
    csL: segments.vmxCsL,
    csDb: segments.vmxCsDb,
    getIdt: segments.vmxGetIdt,
    setIdt: segments.vmxSetIdt,
    getGdt: segments.vmxGetGdt,
    setGdt: segments.vmxSetGdt,
    getRflags: events.vmxGetRflags,
    setRflags: events.vmxSetRflags,
    setCr0: vmxSetCr0,
    setCr4: vmxSetCr4,
    setEfer: vmxSetEfer,
    setDr7: (vcpu, value) => vmcsWrite64(vcpu.vmx, F.VMCS_GUEST_DR7, value, 0),
    setTscOffset: writeTscOffset,
    syncDirtyDebugRegs: vmxSyncDirtyDebugRegs,
    updateExceptionBitmap: vmxUpdateExceptionBitmap,
    getMsr: vmxGetMsr,
    setMsr: vmxSetMsr,
    msrFilterChanged: vmxMsrFilterChanged,
    vcpuRun: vmxVcpuRun,
    handleExit: vmxHandleExit,
    getExitInfo: vmxGetExitInfo,
    exitReasonName: vmxExitReasonName,
    injectException: events.vmxInjectException,
    injectIrq: events.vmxInjectIrq,
    injectNmi: events.vmxInjectNmi,
    cancelInjection: events.vmxCancelInjection,
    smiAllowed: (vcpu) => (vcpu.vmx.nested.runPending ? -EBUSY : vcpu.smm ? 0 : 1),
    enterSmm: vmxEnterSmm,
    leaveSmm: vmxLeaveSmm,
    // RSM exits anyway.
    enableSmiWindow: () => {},
    nested: vmxNestedOps,
    checkIntercept: vmxCheckIntercept,
    isValidCr0: vmxIsValidCr0,
    isValidCr4: vmxIsValidCr4,
    initSignalBlocked: (vcpu) => vcpu.vmx.nested.vmxon && !vcpu.guestMode,
    nmiAllowed: events.vmxNmiAllowed,
    interruptAllowed: events.vmxInterruptAllowed,
    enableIrqWindow: events.vmxEnableIrqWindow,
    enableNmiWindow: events.vmxEnableNmiWindow,
    getNmiMask: events.vmxGetNmiMask,
    setNmiMask: events.vmxSetNmiMask,
    getIfFlag: events.vmxGetIfFlag,
    updateCr8Intercept: vmxUpdateCr8Intercept,
    // Only enclaves hide state that emulation needs.
    checkEmulateInstruction: () => X86EMUL_CONTINUE,
    skipEmulatedInstruction: events.vmxSkip,
    patchHypercall: (out) => {
      out[0] = 0x0f;
      out[1] = 0x01;
      out[2] = 0xc1;
    },
    exitInsnLength: () => 0,
    exitInsnAddress: () => 0,
    getInterruptShadow: events.vmxGetInterruptShadow,
    setInterruptShadow: events.vmxSetInterruptShadow,
  };
  if (!ept) return { ...ops, ...restrictedGuestOps };
  return hasTdx(profile, params) ? withTdx(ops) : ops;
}
