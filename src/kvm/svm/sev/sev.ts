/** SEV-SNP in the SVM module: VMs and vCPUs that are SNP guests (@kvm sev.c). */
import { MSR_EFER, MSR_IA32_CR_PAT } from '../../../arch/msr.ts';
import * as V from '../../../arch/vmcb.ts';
import { ENOMEM } from '../../../host/errno.ts';
import type { ConfidentialOps } from '../../confidential.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { KVM_X86_SNP_VM } from '../../vm-type.ts';
import { setMsrInterception } from '../msrpm.ts';
import { clrExceptionIntercept, clrIntercept, vmcbRead, vmcbWrite, vmcbWrite64 } from '../vmcb-access.ts';
import { sevGmemInvalidate, sevGmemPrepare, sevPrivateMaxMappingLevel } from './gmem.ts';
import { sevMemEncIoctl, snpDecommissionContext } from './launch.ts';
import { forgetSevAsid } from './run.ts';
import { snpHost } from './snp-host.ts';
import { VcpuSev, VmSev } from './vm-sev.ts';
import { setSevInfo } from './vmgexit.ts';

/** @kvm svm.c svm_vm_init */
function vmInit(vm: VmState): number {
  if (vm.type !== KVM_X86_SNP_VM) return 0;
  // Silicon has the reverse map from boot on.
  const host = snpHost(vm);
  if (typeof host === 'number') return host;
  vm.sev = new VmSev();
  return 0;
}

/** @kvm sev.c sev_vm_destroy */
function vmDestroy(vm: VmState): void {
  const { sev } = vm;
  if (sev === null || !sev.active) return;
  snpDecommissionContext(vm, sev);
  const host = snpHost(vm);
  if (typeof host !== 'number') host.asids.delete(sev.asid);
  forgetSevAsid(vm.processor, sev.asid);
  sev.active = false;
}

export const sevOps: ConfidentialOps = {
  vmTypes: 1 << KVM_X86_SNP_VM,
  vmInit,
  vmDestroy,
  memoryEncryptOp: sevMemEncIoctl,
  gmemPrepare: sevGmemPrepare,
  gmemInvalidate: sevGmemInvalidate,
  privateMaxMappingLevel: sevPrivateMaxMappingLevel,
};

/** The vCPU's VMSA: a page that is not at a multiple of 2 MiB. 0 or -ENOMEM. @kvm sev.c sev_vcpu_create, snp_safe_alloc_page */
export function sevVcpuCreate(vcpu: VcpuState): number {
  const { vm, svm } = vcpu;
  if (vm.sev === null) return 0;
  const { pages } = vm.host;
  let pfn = pages.allocPage();
  if (pfn % 512 === 0) {
    const other = pages.allocPage();
    pages.freePage(pfn);
    pfn = other;
  }
  if (pfn < 0) return -ENOMEM;
  svm.sev = new VcpuSev();
  svm.sev.vmsaPfn = pfn;
  return 0;
}

/** At RESET. @kvm sev.c sev_es_vcpu_reset */
export function sevEsVcpuReset(vcpu: VcpuState): void {
  if (vcpu.svm.sev !== null) setSevInfo(vcpu);
}

/**
 * @kvm sev.c sev_init_vmcb, sev_es_init_vmcb
 * @partial writes of CR0, CR4 and EFER are not followed by traps: KVM does not know them
 */
export function sevInitVmcb(vcpu: VcpuState): void {
  const { svm } = vcpu;
  if (svm.sev === null) return;
  const control = vmcbRead(svm, V.VMCB_NESTED_CTL);
  vmcbWrite(svm, V.VMCB_NESTED_CTL, control | V.NESTED_CTL_SEV_ENABLE | V.NESTED_CTL_SEV_ES_ENABLE);
  clrExceptionIntercept(svm, 6);
  clrExceptionIntercept(svm, 13);
  if (!svm.sev.hasGuestVmsa) vmcbWrite64(svm, V.VMCB_VMSA, (svm.sev.vmsaPfn * 4096) | 0, 0);
  vmcbWrite(svm, V.VMCB_INTERCEPT_CR, 0);
  clrIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_SELECTIVE_CR0);
  // Of the debug registers only DR7: reads at bit 7, writes at bit 23.
  vmcbWrite(svm, V.VMCB_INTERCEPT_DR, (1 << 7) | (1 << 23));
  clrIntercept(svm, V.VMCB_INTERCEPT_WORD4, V.INTERCEPT_XSETBV);
  setMsrInterception(vcpu, MSR_EFER, true, true);
  setMsrInterception(vcpu, MSR_IA32_CR_PAT, true, true);
}
