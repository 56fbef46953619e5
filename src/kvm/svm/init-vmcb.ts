/** The VMCB after RESET and INIT: what KVM intercepts (@kvm svm.c init_vmcb). */
import { AC_VECTOR, DB_VECTOR, GP_VECTOR, MC_VECTOR, PF_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { MSR_IA32_SYSENTER_EIP, MSR_IA32_SYSENTER_ESP } from '../../arch/msr.ts';
import * as V from '../../arch/vmcb.ts';
import type { HostMachine } from '../../host/machine.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_INVPCID, X86_FEATURE_RDTSCP } from '../x86/cpuid-features.ts';
import { guestCpuidHas, guestCpuidIsIntelCompatible } from '../x86/guest-cpuid.ts';
import { allocContiguous } from './contiguous-pages.ts';
import { setMsrInterception } from './msrpm.ts';
import { initSegments } from './segments.ts';
import { sevInitVmcb } from './sev/sev.ts';
import {
  clrExceptionIntercept,
  clrIntercept,
  setExceptionIntercept,
  setIntercept,
  vmcbRead,
  vmcbWrite,
  vmcbWrite64,
} from './vmcb-access.ts';

/** Control-register intercepts: reads in bits 0 to 15, writes in 16 to 31. */
const CR_READ = (cr: number): number => 1 << cr;
const CR_WRITE = (cr: number): number => 1 << (16 + cr);
/** Every read and write of DR0 to DR7. */
export const INTERCEPT_DR_ALL = 0x00ff_00ff;

/** I/O permission maps, one a machine: every port exits. */
const iopms = new WeakMap<HostMachine, number>();
const IOPM_PAGES = 3;

/** First frame of the machine's I/O permission map, or -1 (@kvm svm.c iopm_base). */
export function iopmPfn(vcpu: VcpuState): number {
  const host = vcpu.vm.host;
  let pfn = iopms.get(host);
  if (pfn === undefined) {
    pfn = allocContiguous(host.pages, IOPM_PAGES);
    if (pfn < 0) return -1;
    vcpu.vm.memory.u8.fill(0xff, pfn * 4096, (pfn + IOPM_PAGES) * 4096);
    iopms.set(host, pfn);
  }
  return pfn;
}

/** @kvm svm.c set_dr_intercepts */
export function setDrIntercepts(vcpu: VcpuState): void {
  setIntercept(vcpu.svm, V.VMCB_INTERCEPT_DR, INTERCEPT_DR_ALL);
}

/** @kvm svm.c clr_dr_intercepts */
export function clrDrIntercepts(vcpu: VcpuState): void {
  clrIntercept(vcpu.svm, V.VMCB_INTERCEPT_DR, -1);
}

function initIntercepts(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  const tdp = vcpu.vm.vendor.tdpEnabled;
  let cr = CR_READ(0) | CR_READ(4) | CR_WRITE(0) | CR_WRITE(4) | CR_WRITE(8);
  if (!tdp) cr |= CR_READ(3) | CR_WRITE(3);
  setIntercept(svm, V.VMCB_INTERCEPT_CR, cr);
  setDrIntercepts(vcpu);
  for (const vector of [PF_VECTOR, UD_VECTOR, MC_VECTOR, AC_VECTOR, DB_VECTOR]) setExceptionIntercept(svm, vector);
  if (vcpu.vm.params.enableVmwareBackdoor) setExceptionIntercept(svm, GP_VECTOR);
  const exits = vcpu.vm.x86.disabledExits;
  setIntercept(
    svm,
    V.VMCB_INTERCEPT_WORD3,
    V.INTERCEPT_INTR |
      V.INTERCEPT_NMI |
      V.INTERCEPT_SMI |
      V.INTERCEPT_SELECTIVE_CR0 |
      V.INTERCEPT_RDPMC |
      V.INTERCEPT_CPUID |
      V.INTERCEPT_INVD |
      V.INTERCEPT_INVLPG |
      V.INTERCEPT_INVLPGA |
      V.INTERCEPT_IOIO_PROT |
      V.INTERCEPT_MSR_PROT |
      V.INTERCEPT_TASK_SWITCH |
      V.INTERCEPT_SHUTDOWN |
      V.INTERCEPT_RSM |
      ((exits & 2) === 0 ? V.INTERCEPT_HLT : 0) |
      ((exits & 4) === 0 ? V.INTERCEPT_PAUSE : 0),
  );
  setIntercept(
    svm,
    V.VMCB_INTERCEPT_WORD4,
    V.INTERCEPT_VMRUN |
      V.INTERCEPT_VMMCALL |
      V.INTERCEPT_VMLOAD |
      V.INTERCEPT_VMSAVE |
      V.INTERCEPT_STGI |
      V.INTERCEPT_CLGI |
      V.INTERCEPT_SKINIT |
      V.INTERCEPT_WBINVD |
      V.INTERCEPT_XSETBV |
      V.INTERCEPT_RDPRU |
      ((exits & 1) === 0 ? V.INTERCEPT_MONITOR | V.INTERCEPT_MWAIT : 0),
  );
  if (tdp) {
    clrIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_INVLPG);
    clrExceptionIntercept(svm, PF_VECTOR);
  }
}

/** @kvm svm.c init_vmcb. The VMCB's words are not cleared: RESET starts from a zeroed page, SHUTDOWN clears it itself. */
export function initVmcb(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  initIntercepts(vcpu);
  vmcbWrite64(svm, V.VMCB_IOPM_BASE, (iopmPfn(vcpu) * 4096) | 0, 0);
  vmcbWrite64(svm, V.VMCB_MSRPM_BASE, (svm.msrpmPfn * 4096) | 0, 0);
  vmcbWrite(svm, V.VMCB_INT_CTL, V.V_INTR_MASKING_MASK);
  initSegments(vcpu);
  if (vcpu.vm.vendor.tdpEnabled) {
    vmcbWrite(svm, V.VMCB_NESTED_CTL, vmcbRead(svm, V.VMCB_NESTED_CTL) | 1);
    vmcbWrite64(svm, V.VMCB_G_PAT, vcpu.x86.patLo, vcpu.x86.patHi);
    vmcbWrite64(svm, V.VMCB_CR3, 0, 0);
  }
  svm.currentVmcb.asidGeneration = 0;
  svm.nested.vmcb12Gpa = -1;
  svm.nested.lastVmcb12Gpa = -1;
  svm.asid = 0;
  initVmcbAfterSetCpuid(vcpu);
  sevInitVmcb(vcpu);
  svm.gif = true;
}

/** @kvm cpuid.c kvm_cpu_caps, of INVPCID */
function hostHasInvpcid(vcpu: VcpuState): boolean {
  const leaf = vcpu.vm.profile.cpuid.find((e) => e.leaf === 7 && e.index === 0);
  return leaf !== undefined && (leaf.ebx & (1 << (X86_FEATURE_INVPCID & 31))) !== 0;
}

/** @kvm svm.c init_vmcb_after_set_cpuid, svm_recalc_instruction_intercepts */
export function initVmcbAfterSetCpuid(vcpu: VcpuState): void {
  if (guestCpuidHas(vcpu, X86_FEATURE_RDTSCP)) clrIntercept(vcpu.svm, V.VMCB_INTERCEPT_WORD4, V.INTERCEPT_RDTSCP);
  else setIntercept(vcpu.svm, V.VMCB_INTERCEPT_WORD4, V.INTERCEPT_RDTSCP);
  // Under shadow paging there are roots to synchronise; a guest that has not got it is to see #UD.
  if (hostHasInvpcid(vcpu)) {
    const direct = vcpu.vm.vendor.tdpEnabled && guestCpuidHas(vcpu, X86_FEATURE_INVPCID);
    if (direct) clrIntercept(vcpu.svm, V.VMCB_INTERCEPT_WORD5, V.INTERCEPT_INVPCID);
    else setIntercept(vcpu.svm, V.VMCB_INTERCEPT_WORD5, V.INTERCEPT_INVPCID);
  }
  // The processor keeps only 32 bits of these; a guest that thinks it is on Intel sees all 64.
  const direct = !guestCpuidIsIntelCompatible(vcpu);
  setMsrInterception(vcpu, MSR_IA32_SYSENTER_EIP, direct, direct);
  setMsrInterception(vcpu, MSR_IA32_SYSENTER_ESP, direct, direct);
}
