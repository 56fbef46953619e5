/** MSRs that live in the VMCB or that SVM defines (@kvm svm.c svm_get_msr, svm_set_msr). */
import { numberOf } from '../../arch/halves.ts';
import { EFER_SVME } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_VIRT_SSBD } from '../x86/cpuid-features.ts';
import { loadTscAux } from '../x86/guest-context.ts';
import { guestCpuidHas, guestCpuidIsIntelCompatible } from '../x86/guest-cpuid.ts';
import { getMsrCommon, setMsrCommon } from '../x86/msr.ts';
import * as M from '../x86/msr-index.ts';
import { KVM_MSR_RET_UNSUPPORTED } from '../x86/msr-index.ts';
import { isLegalGpa } from './nested-checks.ts';
import { syncSaveArea, touchSaveArea } from './save-area.ts';
import { vmcb01Read, vmcb01Write64, vmcbWrite64 } from './vmcb-access.ts';

/** Byte offset in the VMCB of an MSR that VMLOAD and VMSAVE move, or -1. */
function saveAreaOffset(msr: number): number {
  switch (msr) {
    case M.MSR_STAR:
      return V.VMCB_STAR;
    case M.MSR_LSTAR:
      return V.VMCB_LSTAR;
    case M.MSR_CSTAR:
      return V.VMCB_CSTAR;
    case M.MSR_SYSCALL_MASK:
      return V.VMCB_SFMASK;
    case M.MSR_KERNEL_GS_BASE:
      return V.VMCB_KERNEL_GS_BASE;
    case M.MSR_FS_BASE:
      return V.VMCB_FS + 8;
    case M.MSR_GS_BASE:
      return V.VMCB_GS + 8;
    case M.MSR_IA32_SYSENTER_CS:
      return V.VMCB_SYSENTER_CS;
    case M.MSR_IA32_SYSENTER_EIP:
      return V.VMCB_SYSENTER_EIP;
    case M.MSR_IA32_SYSENTER_ESP:
      return V.VMCB_SYSENTER_ESP;
    default:
      return -1;
  }
}

/** @kvm svm.c svm_get_msr: the value goes into `vcpu.x86.msrValue`. */
export function svmGetMsr(vcpu: VcpuState, msr: number, hostInitiated: boolean): number {
  const svm = vcpu.svm;
  const out = vcpu.x86.msrValue;
  const at = saveAreaOffset(msr);
  if (at >= 0) {
    syncSaveArea(vcpu);
    out[0] = vmcb01Read(svm, at);
    out[1] = vmcb01Read(svm, at + 4);
    if (msr === M.MSR_IA32_SYSENTER_EIP || msr === M.MSR_IA32_SYSENTER_ESP) {
      const high = msr === M.MSR_IA32_SYSENTER_EIP ? svm.sysenterEipHi : svm.sysenterEspHi;
      if (msr === M.MSR_IA32_SYSENTER_EIP) out[1] = 0;
      if (guestCpuidIsIntelCompatible(vcpu)) out[1]! |= high;
    }
    return 0;
  }
  out[1] = 0;
  switch (msr) {
    case M.MSR_TSC_AUX:
      out[0] = vcpu.x86.tscAuxLo;
      out[1] = vcpu.x86.tscAuxHi;
      return 0;
    case M.MSR_IA32_DEBUGCTL:
    case M.MSR_IA32_LASTBRANCHFROMIP:
    case M.MSR_IA32_LASTBRANCHTOIP:
    case M.MSR_IA32_LASTINTFROMIP:
    case M.MSR_IA32_LASTINTTOIP:
      out[0] = 0; // no LBR virtualization on this hardware
      return 0;
    case M.MSR_VM_HSAVE_PA:
      out[0] = svm.hsaveLo;
      out[1] = svm.hsaveHi;
      return 0;
    case M.MSR_VM_CR:
      out[0] = svm.vmCr;
      return 0;
    case M.MSR_AMD64_VIRT_SPEC_CTRL:
      if (!hostInitiated && !guestCpuidHas(vcpu, X86_FEATURE_VIRT_SSBD)) return 1;
      out[0] = svm.virtSpec;
      return 0;
    case M.MSR_AMD64_DE_CFG:
      out[0] = svm.msrDecfgLo;
      return 0;
    default:
      return getMsrCommon(vcpu, msr, hostInitiated);
  }
}

const VM_CR_VALID = 0x1f;
const VM_CR_LOCK = 1 << 3;
const VM_CR_SVM_DIS = 1 << 4;

/** @kvm svm.c svm_set_vm_cr */
function setVmCr(vcpu: VcpuState, lo: number, hi: number): number {
  if (hi !== 0 || (lo & ~VM_CR_VALID) !== 0) return 1;
  const svm = vcpu.svm;
  let change = VM_CR_VALID;
  if ((svm.vmCr & VM_CR_SVM_DIS) !== 0) change &= ~(VM_CR_LOCK | VM_CR_SVM_DIS);
  svm.vmCr = (svm.vmCr & ~change) | (lo & change);
  // It cannot be taken away while it is in use.
  return (svm.vmCr & VM_CR_SVM_DIS) !== 0 && (vcpu.efer & EFER_SVME) !== 0 ? 1 : 0;
}

/** @kvm svm.c svm_set_msr */
export function svmSetMsr(vcpu: VcpuState, msr: number, lo: number, hi: number, hostInitiated: boolean): number {
  const svm = vcpu.svm;
  const at = saveAreaOffset(msr);
  if (at >= 0) {
    syncSaveArea(vcpu);
    touchSaveArea(vcpu);
    let high = hi;
    if (msr === M.MSR_IA32_SYSENTER_EIP || msr === M.MSR_IA32_SYSENTER_ESP) {
      // Hardware keeps 32 bits; the rest is remembered for a guest that believes in Intel's 64.
      const kept = guestCpuidIsIntelCompatible(vcpu) ? hi : 0;
      if (msr === M.MSR_IA32_SYSENTER_EIP) svm.sysenterEipHi = kept;
      else svm.sysenterEspHi = kept;
      high = 0;
    }
    vmcb01Write64(svm, at, lo, high);
    return 0;
  }
  switch (msr) {
    case M.MSR_IA32_CR_PAT: {
      const ret = setMsrCommon(vcpu, msr, lo, hi, hostInitiated);
      if (ret !== 0) return ret;
      vmcb01Write64(svm, V.VMCB_G_PAT, lo, hi);
      // L2's is L1's.
      if (vcpu.guestMode) vmcbWrite64(svm, V.VMCB_G_PAT, lo, hi);
      return ret;
    }
    case M.MSR_TSC_AUX:
      vcpu.x86.tscAuxLo = lo;
      vcpu.x86.tscAuxHi = hi;
      loadTscAux(vcpu);
      return 0;
    case M.MSR_IA32_DEBUGCTL:
      return 0;
    case M.MSR_IA32_LASTBRANCHFROMIP:
    case M.MSR_IA32_LASTBRANCHTOIP:
    case M.MSR_IA32_LASTINTFROMIP:
    case M.MSR_IA32_LASTINTTOIP:
      return KVM_MSR_RET_UNSUPPORTED;
    case M.MSR_VM_HSAVE_PA:
      if (!hostInitiated && ((lo & 0xfff) !== 0 || !isLegalGpa(vcpu, numberOf(lo, hi)))) return 1;
      svm.hsaveLo = lo & ~0xfff;
      svm.hsaveHi = hi;
      return 0;
    case M.MSR_VM_CR:
      return setVmCr(vcpu, lo, hi);
    case M.MSR_VM_IGNNE:
      return 0;
    case M.MSR_AMD64_VIRT_SPEC_CTRL:
      if (!hostInitiated && !guestCpuidHas(vcpu, X86_FEATURE_VIRT_SSBD)) return 1;
      if (hi !== 0 || (lo & ~4) !== 0) return 1;
      svm.virtSpec = lo;
      return 0;
    case M.MSR_AMD64_DE_CFG:
      // LFENCE serialising is the one bit that can be there.
      if (hi !== 0 || (lo & ~2) !== 0) return 1;
      svm.msrDecfgLo = lo;
      return 0;
    default:
      return setMsrCommon(vcpu, msr, lo, hi, hostInitiated);
  }
}
