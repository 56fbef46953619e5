/** VMLAUNCH and VMRESUME of L1 (@kvm nested.c nested_vmx_run, nested_vmx_enter_non_root_mode). */
import { hex64 } from '../../../arch/flags.ts';
import { RFLAGS_IF, RIP } from '../../../arch/registers.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import * as R from '../../../arch/vmx-exit-reasons.ts';
import { KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_EMULATION } from '../../kvm-run.ts';
import {
  MP_STATE_INIT_RECEIVED,
  makeRequest,
  REQ_EVENT,
  REQ_GET_NESTED_STATE_PAGES,
  type VcpuState,
} from '../../vcpu-state.ts';
import { emulateHaltNoskip } from '../../x86/instructions.ts';
import { APIC_IRR, lapicHasInterrupt, setVector } from '../../x86/lapic.ts';
import { enterGuestMode, leaveGuestMode } from '../../x86/nested-ops.ts';
import { vmxGetInterruptShadow } from '../events.ts';
import { switchVmcs } from '../switch-vmcs.ts';
import { serviceLocalTlbFlushRequests } from '../tlb.ts';
import { vmcsRead } from '../vmcs-access.ts';
import { checkAddressSpaceSize, checkControls, checkGuestState, checkHostState } from './consistency-checks.ts';
import { loadVmcs12HostState } from './host-state.ts';
import { nestedVmxCheckPermission } from './instructions.ts';
import { nestedEptUninitMmuContext } from './load-cr3.ts';
import { loadMsrs } from './msr-lists.ts';
import { INVALID_VMPTR } from './nested-vmx.ts';
import { startPreemptionTimer } from './preemption-timer.ts';
import { prepareVmcs02, prepareVmcs02Early } from './prepare-vmcs02.ts';
import { cacheShadowVmcs12 } from './shadow-vmcs12.ts';
import { nestedVmxFail, nestedVmxFailInvalid } from './vm-result.ts';
import { getVmcs12Pages, unmapVmcs12Pages } from './vmcs12-pages.ts';
import { hex32 } from './vmexit.ts';

/** How an entry ends (@kvm nested.h enum nvmx_vmentry_status). */
export const NVMX_VMENTRY_SUCCESS = 0;
export const NVMX_VMENTRY_VMEXIT = 1;
export const NVMX_VMENTRY_KVM_INTERNAL_ERROR = 2;

const SHADOW_INT_MOV_SS = 1;

/** The entry fails on the guest's state: L1 sees an exit that says so. */
function failVmexit(vcpu: VcpuState, fromVmentry: boolean, reason: number, qualification: number): number {
  const { vmx } = vcpu;
  switchVmcs(vcpu, vmx.vmcs01);
  if (!fromVmentry) {
    nestedEptUninitMmuContext(vcpu);
    return NVMX_VMENTRY_VMEXIT;
  }
  unmapVmcs12Pages(vcpu);
  const v = vmx.nested.vmcs12;
  v.set64(F.VMCS_EXIT_QUALIFICATION, qualification, 0);
  loadVmcs12HostState(vcpu);
  vcpu.vm.vendor.setTscOffset(vcpu);
  v.set(F.VMCS_VM_EXIT_REASON, reason | R.VMX_EXIT_REASONS_FAILED_VMENTRY);
  return NVMX_VMENTRY_VMEXIT;
}

/** The same, of a vCPU that is in guest mode already. */
function failGuestMode(vcpu: VcpuState, fromVmentry: boolean, reason: number, qualification: number): number {
  vcpu.x86.l2TscOffsetLo = 0;
  vcpu.x86.l2TscOffsetHi = 0;
  serviceLocalTlbFlushRequests(vcpu);
  leaveGuestMode(vcpu);
  return failVmexit(vcpu, fromVmentry, reason, qualification);
}

function traceEnter(vcpu: VcpuState): void {
  const { trace } = vcpu.vm;
  if (!trace.enabled) return;
  const { vmcs12: v, currentVmptr } = vcpu.vmx.nested;
  const pgd = v.ept ? F.VMCS_EPT_POINTER : F.VMCS_GUEST_CR3;
  const table = hex64(v.lo(pgd), v.hi(pgd));
  trace.emit('kvm_nested_vmenter', {
    rip: hex64(vcpu.regs[2 * RIP]!, vcpu.regs[2 * RIP + 1]!),
    vmcs: hex64(currentVmptr | 0, Math.floor(currentVmptr / 0x1_0000_0000)),
    nested_rip: hex64(v.lo(F.VMCS_GUEST_RIP), v.hi(F.VMCS_GUEST_RIP)),
    int_ctl: hex32(v.lo(F.VMCS_GUEST_INTR_STATUS)),
    event_inj: hex32(v.lo(F.VMCS_VM_ENTRY_INTR_INFO_FIELD)),
    nested_ept: v.ept ? 'y' : 'n',
    ...(v.ept ? { nested_eptp: table } : { guest_cr3: table }),
  });
}

/** Something waits that L1 would have been interrupted by: asked again once L2 runs. */
function evaluatePending(vcpu: VcpuState): boolean {
  const windows = C.CPU_BASED_INTR_WINDOW_EXITING | C.CPU_BASED_NMI_WINDOW_EXITING;
  if ((vmcsRead(vcpu.vmx, F.VMCS_CPU_BASED_VM_EXEC_CONTROL) & windows) !== 0) return true;
  const apic = vcpu.x86.lapic;
  return apic !== null && (apic.pendingInit || apic.pendingSipi);
}

/**
 * Into guest mode.
 * @param fromVmentry an instruction of L1's, not restored state
 * @returns NVMX_VMENTRY_*
 * @kvm nested.c nested_vmx_enter_non_root_mode
 */
export function nestedVmxEnterNonRootMode(vcpu: VcpuState, fromVmentry: boolean): number {
  const { vmx } = vcpu;
  const { nested } = vmx;
  const v = nested.vmcs12;
  traceEnter(vcpu);
  serviceLocalTlbFlushRequests(vcpu);
  const evaluate = evaluatePending(vcpu);
  if (!nested.runPending || !v.hasEntry(C.VM_ENTRY_LOAD_DEBUG_CONTROLS)) {
    nested.preVmenterDebugctl = vmcsRead(vmx, F.VMCS_GUEST_IA32_DEBUGCTL);
  }
  if (!vcpu.vm.vendor.tdpEnabled) {
    // A failed entry finds L1's CR3 there.
    vmx.words[vmx.vmcs + (F.VMCS_GUEST_CR3 >> 2)] = vcpu.cr3Lo;
    vmx.words[vmx.vmcs + (F.VMCS_GUEST_CR3 >> 2) + 1] = vcpu.cr3Hi;
  }
  switchVmcs(vcpu, nested.vmcs02!);
  prepareVmcs02Early(vcpu);
  if (fromVmentry) {
    if (!getVmcs12Pages(vcpu)) {
      switchVmcs(vcpu, vmx.vmcs01);
      return NVMX_VMENTRY_KVM_INTERNAL_ERROR;
    }
    const state = checkGuestState(vcpu, v);
    if (!state.ok) return failVmexit(vcpu, true, R.EXIT_REASON_INVALID_STATE, state.qualification);
  }
  enterGuestMode(vcpu);
  if (v.has(C.CPU_BASED_USE_TSC_OFFSETTING)) {
    vcpu.x86.l2TscOffsetLo = v.lo(F.VMCS_TSC_OFFSET);
    vcpu.x86.l2TscOffsetHi = v.hi(F.VMCS_TSC_OFFSET);
  }
  const failed = prepareVmcs02(vcpu, fromVmentry);
  if (failed !== 0) return failGuestMode(vcpu, fromVmentry, R.EXIT_REASON_INVALID_STATE, failed - 1);
  if (fromVmentry) {
    const index = loadMsrs(vcpu, F.VMCS_VM_ENTRY_MSR_LOAD_ADDR, F.VMCS_VM_ENTRY_MSR_LOAD_COUNT);
    if (index !== 0) return failGuestMode(vcpu, true, R.EXIT_REASON_MSR_LOAD_FAIL, index);
  } else makeRequest(vcpu, REQ_GET_NESTED_STATE_PAGES);
  if (evaluate) makeRequest(vcpu, REQ_EVENT);
  nested.preemptionTimerExpired = false;
  if (v.preemptionTimer) startPreemptionTimer(vcpu);
  return NVMX_VMENTRY_SUCCESS;
}

/** L1 got an interrupt that is L2's to find in its posted ones. */
function takePostedInterrupt(vcpu: VcpuState): void {
  const { nested } = vcpu.vmx;
  const apic = vcpu.x86.lapic;
  if (!nested.vmcs12.postedIntr || apic === null || lapicHasInterrupt(apic) !== nested.postedIntrNv) return;
  nested.piPending = true;
  makeRequest(vcpu, REQ_EVENT);
  setVector(apic, APIC_IRR, nested.postedIntrNv, false);
}

/** What L2 does first, by its activity state: the handler's answer. */
function startActivity(vcpu: VcpuState): number {
  const { nested } = vcpu.vmx;
  const v = nested.vmcs12;
  switch (v.lo(F.VMCS_GUEST_ACTIVITY_STATE)) {
    case C.GUEST_ACTIVITY_HLT: {
      const injects = v.lo(F.VMCS_VM_ENTRY_INTR_INFO_FIELD) < 0;
      const interruptible = (v.lo(F.VMCS_GUEST_RFLAGS) & RFLAGS_IF) !== 0;
      const window = v.has(C.CPU_BASED_INTR_WINDOW_EXITING) && interruptible;
      if (injects || v.has(C.CPU_BASED_NMI_WINDOW_EXITING) || window) return 1;
      nested.runPending = false;
      return emulateHaltNoskip(vcpu);
    }
    case C.GUEST_ACTIVITY_WAIT_SIPI:
      nested.runPending = false;
      vcpu.mpState = MP_STATE_INIT_RECEIVED;
      return 1;
    default:
      return 1;
  }
}

/** @kvm nested.c nested_vmx_run */
export function nestedVmxRun(vcpu: VcpuState, launch: boolean): number {
  const { nested } = vcpu.vmx;
  const v = nested.vmcs12;
  const shadow = vmxGetInterruptShadow(vcpu);
  if (!nestedVmxCheckPermission(vcpu)) return 1;
  if (nested.currentVmptr === INVALID_VMPTR || v.isShadow) return nestedVmxFailInvalid(vcpu);
  if ((shadow & SHADOW_INT_MOV_SS) !== 0) return nestedVmxFail(vcpu, C.VMXERR_ENTRY_EVENTS_BLOCKED_BY_MOV_SS);
  if ((v.launchState !== 0) === launch) {
    return nestedVmxFail(vcpu, launch ? C.VMXERR_VMLAUNCH_NONCLEAR_VMCS : C.VMXERR_VMRESUME_NONLAUNCHED_VMCS);
  }
  if (!checkControls(vcpu, v)) return nestedVmxFail(vcpu, C.VMXERR_ENTRY_INVALID_CONTROL_FIELD);
  if (!checkAddressSpaceSize(vcpu, v) || !checkHostState(vcpu, v)) {
    return nestedVmxFail(vcpu, C.VMXERR_ENTRY_INVALID_HOST_STATE_FIELD);
  }
  nested.runPending = true;
  nested.hasPreemptionTimerDeadline = false;
  const status = nestedVmxEnterNonRootMode(vcpu, true);
  if (status !== NVMX_VMENTRY_SUCCESS) {
    nested.runPending = false;
    if (status === NVMX_VMENTRY_VMEXIT) return 1;
    vcpu.run.exitReason = KVM_EXIT_INTERNAL_ERROR;
    vcpu.run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    vcpu.run.internal.ndata = 0;
    return 0;
  }
  takePostedInterrupt(vcpu);
  cacheShadowVmcs12(vcpu);
  return startActivity(vcpu);
}
