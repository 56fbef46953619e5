/** The MMU as L2 and L1 take turns (@kvm nested.c nested_svm_load_cr3). */
import * as V from '../../arch/vmcb.ts';
import { EINVAL } from '../../host/errno.ts';
import { loadPdptrs } from '../mmu/pdptrs.ts';
import { initMmu } from '../mmu/roles.ts';
import { mmuNewPgd } from '../mmu/roots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { isLegalCr3 } from '../x86/control-registers.ts';
import { isPaePaging } from '../x86/registers.ts';
import { checkFails } from './nested-checks.ts';
import { vmcb12Read } from './vmcb-access.ts';

/** L2 has nested page tables. @kvm svm.h nested_npt_enabled */
export function nestedNptEnabled(vcpu: VcpuState): boolean {
  return (vmcb12Read(vcpu.svm, V.VMCB_NESTED_CTL) & 1) !== 0;
}

/** @kvm nested.c nested_svm_uninit_mmu_context */
export function uninitNestedMmuContext(vcpu: VcpuState): void {
  vcpu.mmu.mmu = vcpu.mmu.rootMmu;
  vcpu.mmu.walkMmu = vcpu.mmu.rootMmu;
}

/** CR3 (halves) of L2 at VMRUN, or of L1 after an exit: 0 or -EINVAL. @kvm nested.c nested_svm_load_cr3 */
export function nestedLoadCr3(vcpu: VcpuState, lo: number, hi: number, npt: boolean, reloadPdptrs: boolean): number {
  if (checkFails(vcpu, !isLegalCr3(vcpu, hi), '!kvm_vcpu_is_legal_cr3(vcpu, cr3)')) return -EINVAL;
  if (reloadPdptrs && !npt && isPaePaging(vcpu)) {
    if (checkFails(vcpu, !loadPdptrs(vcpu, lo, hi), '!load_pdptrs(vcpu, cr3)')) return -EINVAL;
  }
  vcpu.cr3Lo = lo;
  vcpu.cr3Hi = hi;
  initMmu(vcpu);
  if (!npt) mmuNewPgd(vcpu, lo, hi);
  return 0;
}
