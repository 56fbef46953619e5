/** MSRs that live in the VMCS or that Intel defines (@kvm vmx.c vmx_get_msr, vmx_set_msr). */
import * as F from '../../arch/vmcs.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { loadGuestContext, loadTscAux } from '../x86/guest-context.ts';
import { getMsrCommon, setMsrCommon } from '../x86/msr.ts';
import * as M from '../x86/msr-index.ts';
import { syscallMsrAt } from './syscall-msrs.ts';
import { vmcsRead, vmcsReadHi, vmcsWrite, vmcsWrite64 } from './vmcs-access.ts';

const MSR_IA32_FEAT_CTL = 0x3a;
const FEAT_CTL_LOCKED = 1;
/** LBR and BTF: what a guest without performance monitoring may write to DEBUGCTL. */
const DEBUGCTL_VALID = 1 << 1;

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
    case MSR_IA32_FEAT_CTL:
      out[0] = vmx.featureControlLo;
      return 0;
    default:
      return getMsrCommon(vcpu, msr, hostInitiated);
  }
}

/** @kvm vmx.c vmx_set_msr */
export function vmxSetMsr(vcpu: VcpuState, msr: number, lo: number, hi: number, hostInitiated: boolean): number {
  const vmx = vcpu.vmx;
  if (msr === M.MSR_IA32_DEBUGCTL && (hi !== 0 || (lo & ~DEBUGCTL_VALID) !== 0)) return 1;
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
    case M.MSR_IA32_CR_PAT: {
      const ret = setMsrCommon(vcpu, msr, lo, hi, hostInitiated);
      if (ret === 0) vmcsWrite64(vmx, F.VMCS_GUEST_IA32_PAT, lo, hi);
      return ret;
    }
    case M.MSR_TSC_AUX:
      vcpu.x86.tscAuxLo = lo;
      vcpu.x86.tscAuxHi = hi;
      loadTscAux(vcpu);
      return 0;
    case MSR_IA32_FEAT_CTL:
      // Nested VMX is not there to be enabled.
      if ((lo & ~FEAT_CTL_LOCKED) !== 0 || hi !== 0) return 1;
      if (!hostInitiated && (vmx.featureControlLo & FEAT_CTL_LOCKED) !== 0) return 1;
      vmx.featureControlLo = lo;
      return 0;
    default:
      return setMsrCommon(vcpu, msr, lo, hi, hostInitiated);
  }
}
