/** MSRs that live in the VMCS or that Intel defines (@kvm vmx.c vmx_get_msr, vmx_set_msr). */
import * as F from '../../arch/vmcs.ts';
import {
  FEAT_CTL_LOCKED,
  FEAT_CTL_VMX_ENABLED_INSIDE_SMX,
  FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX,
  VM_EXIT_SAVE_DEBUG_CONTROLS,
  VM_EXIT_SAVE_IA32_PAT,
} from '../../arch/vmx-controls.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_VMX } from '../x86/cpuid-features.ts';
import { loadGuestContext, loadTscAux } from '../x86/guest-context.ts';
import { guestCpuidHas } from '../x86/guest-cpuid.ts';
import { getMsrCommon, setMsrCommon } from '../x86/msr.ts';
import * as M from '../x86/msr-index.ts';
import { getVmxMsr, isVmxMsr, nestedMsrs, setVmxMsr } from './nested/nested-msrs.ts';
import { vmxLeaveNested } from './nested/nested-state.ts';
import { syscallMsrAt } from './syscall-msrs.ts';
import { vmcsRead, vmcsReadHi, vmcsWrite, vmcsWrite64 } from './vmcs-access.ts';

/** LBR and BTF: what a guest may write to DEBUGCTL, without that it changes anything. */
const DEBUGCTL_IGNORED = 3;

/** VMCS field of natural width that holds an MSR, or -1. */
function vmcsField(msr: number): number {
  switch (msr) {
    case M.MSR_FS_BASE:
      return F.VMCS_GUEST_FS_BASE;
    case M.MSR_GS_BASE:
      return F.VMCS_GUEST_GS_BASE;
    case M.MSR_IA32_SYSENTER_EIP:
      return F.VMCS_GUEST_SYSENTER_EIP;
    case M.MSR_IA32_SYSENTER_ESP:
      return F.VMCS_GUEST_SYSENTER_ESP;
    case M.MSR_IA32_DEBUGCTL:
      return F.VMCS_GUEST_IA32_DEBUGCTL;
    default:
      return -1;
  }
}

/** @kvm vmx.c vmx_get_msr: the value goes into `vcpu.x86.msrValue`. */
export function vmxGetMsr(vcpu: VcpuState, msr: number, hostInitiated: boolean): number {
  const vmx = vcpu.vmx;
  const out = vcpu.x86.msrValue;
  const field = vmcsField(msr);
  if (field >= 0) {
    out[0] = vmcsRead(vmx, field);
    out[1] = vmcsReadHi(vmx, field);
    return 0;
  }
  const at = syscallMsrAt(msr);
  if (at >= 0) {
    loadGuestContext(vcpu);
    out[0] = vcpu.vm.memory.i32[at >> 2]!;
    out[1] = vcpu.vm.memory.i32[(at >> 2) + 1]!;
    return 0;
  }
  out[1] = 0;
  switch (msr) {
    case M.MSR_IA32_SYSENTER_CS:
      out[0] = vmcsRead(vmx, F.VMCS_GUEST_SYSENTER_CS);
      return 0;
    case M.MSR_TSC_AUX:
      out[0] = vcpu.x86.tscAuxLo;
      out[1] = vcpu.x86.tscAuxHi;
      return 0;
    case M.MSR_IA32_FEAT_CTL:
      out[0] = vmx.featureControlLo;
      return 0;
    default:
      if (isVmxMsr(msr)) {
        if (!guestCpuidHas(vcpu, X86_FEATURE_VMX)) return 1;
        getVmxMsr(vmx.nested.msrs, msr, out);
        return 0;
      }
      return getMsrCommon(vcpu, msr, hostInitiated);
  }
}

/** Last branches and single steps over them are not virtualized. @kvm vmx.c vmx_is_valid_debugctl */
function setDebugctl(vcpu: VcpuState, lo: number, hi: number): number {
  if (hi !== 0 || (lo & ~DEBUGCTL_IGNORED) !== 0) return 1;
  const v = vcpu.vmx.nested.vmcs12;
  if (vcpu.guestMode && v.hasExit(VM_EXIT_SAVE_DEBUG_CONTROLS)) v.set64(F.VMCS_GUEST_IA32_DEBUGCTL, 0, 0);
  vmcsWrite64(vcpu.vmx, F.VMCS_GUEST_IA32_DEBUGCTL, 0, 0);
  return 0;
}

/** L1 reads these of L2 in its VMCS. */
function noteInVmcs12(vcpu: VcpuState, msr: number, lo: number, hi: number): void {
  const v = vcpu.vmx.nested.vmcs12;
  if (msr === M.MSR_IA32_SYSENTER_CS) v.set(F.VMCS_GUEST_SYSENTER_CS, lo);
  else if (msr === M.MSR_IA32_SYSENTER_ESP) v.set64(F.VMCS_GUEST_SYSENTER_ESP, lo, hi);
  else if (msr === M.MSR_IA32_SYSENTER_EIP) v.set64(F.VMCS_GUEST_SYSENTER_EIP, lo, hi);
}

/** @kvm vmx.c vmx_set_msr */
export function vmxSetMsr(vcpu: VcpuState, msr: number, lo: number, hi: number, hostInitiated: boolean): number {
  const vmx = vcpu.vmx;
  if (msr === M.MSR_IA32_DEBUGCTL) return setDebugctl(vcpu, lo, hi);
  if (vcpu.guestMode) noteInVmcs12(vcpu, msr, lo, hi);
  const field = vmcsField(msr);
  if (field >= 0) {
    vmcsWrite64(vmx, field, lo, hi);
    return 0;
  }
  const at = syscallMsrAt(msr);
  if (at >= 0) {
    loadGuestContext(vcpu);
    vcpu.vm.memory.i32[at >> 2] = lo;
    vcpu.vm.memory.i32[(at >> 2) + 1] = hi;
    return 0;
  }
  switch (msr) {
    case M.MSR_IA32_SYSENTER_CS:
      vmcsWrite(vmx, F.VMCS_GUEST_SYSENTER_CS, lo);
      return 0;
    case M.MSR_TSC_AUX:
      vcpu.x86.tscAuxLo = lo;
      vcpu.x86.tscAuxHi = hi;
      loadTscAux(vcpu);
      return 0;
    case M.MSR_IA32_CR_PAT: {
      if (setMsrCommon(vcpu, msr, lo, hi, hostInitiated) !== 0) return 1;
      const v = vmx.nested.vmcs12;
      if (vcpu.guestMode && v.hasExit(VM_EXIT_SAVE_IA32_PAT)) v.set64(F.VMCS_GUEST_IA32_PAT, lo, hi);
      vmcsWrite64(vmx, F.VMCS_GUEST_IA32_PAT, lo, hi);
      return 0;
    }
    case M.MSR_IA32_FEAT_CTL: {
      const enable = FEAT_CTL_VMX_ENABLED_INSIDE_SMX | FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX;
      const valid = FEAT_CTL_LOCKED | (hostInitiated || guestCpuidHas(vcpu, X86_FEATURE_VMX) ? enable : 0);
      if ((lo & ~valid) !== 0 || hi !== 0) return 1;
      if (!hostInitiated && (vmx.featureControlLo & FEAT_CTL_LOCKED) !== 0) return 1;
      vmx.featureControlLo = lo;
      if (hostInitiated && lo === 0) vmxLeaveNested(vcpu);
      return 0;
    }
    default:
      if (isVmxMsr(msr)) {
        if (!hostInitiated || !guestCpuidHas(vcpu, X86_FEATURE_VMX) || vmx.nested.vmxon) return 1;
        return setVmxMsr(nestedMsrs(vcpu.vm), vmx.nested.msrs, msr, lo, hi) ? 0 : 1;
      }
      return setMsrCommon(vcpu, msr, lo, hi, hostInitiated);
  }
}
