/** What VMRUN of L1 checks of its VMCB, as it was read into the cache (@kvm nested.c __nested_vmcb_check_controls, __nested_vmcb_check_save). */
import { numberOf } from '../../arch/halves.ts';
import { CR0_CD, CR0_NW, CR0_PE, CR0_PG, CR4_PAE, EFER_LME, EFER_SVME } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { isLegalCr3, isValidCr4 } from '../x86/control-registers.ts';
import { validEfer } from '../x86/msr.ts';

const MSRPM_SIZE = 0x2000;
const IOPM_SIZE = 0x3000;

/** `bad`, with the kernel's trace event of the check that failed. @kvm nested.h CC */
export function checkFails(vcpu: VcpuState, bad: boolean, text: string): boolean {
  const { trace } = vcpu.vm;
  if (bad && trace.enabled) trace.emit('kvm_nested_vmenter_failed', { text });
  return bad;
}

/** @kvm cpuid.h kvm_vcpu_is_legal_gpa */
export function isLegalGpa(vcpu: VcpuState, gpa: number): boolean {
  return gpa < 2 ** vcpu.maxPhyAddr;
}

/** @kvm nested.c nested_svm_check_bitmap_pa */
function legalBitmap(vcpu: VcpuState, cached: Int32Array, off: number, size: number): boolean {
  const pa = numberOf(cached[off >> 2]!, cached[(off >> 2) + 1]!);
  return isLegalGpa(vcpu, pa) && isLegalGpa(vcpu, pa + size - 1);
}

/** @kvm nested.c __nested_vmcb_check_controls */
export function checkControls(vcpu: VcpuState, cached: Int32Array): boolean {
  const word = (off: number): number => cached[off >> 2]!;
  const noVmrun = (word(V.VMCB_INTERCEPT_WORD4) & V.INTERCEPT_VMRUN) === 0;
  if (checkFails(vcpu, noVmrun, '!vmcb12_is_intercept(control, INTERCEPT_VMRUN)')) return false;
  if (checkFails(vcpu, word(V.VMCB_ASID) === 0, 'control->asid == 0')) return false;
  const npt = (word(V.VMCB_NESTED_CTL) & 1) !== 0;
  const noNpt = npt && !vcpu.vm.vendor.tdpEnabled;
  if (checkFails(vcpu, noNpt, '(control->nested_ctl & SVM_NESTED_CTL_NP_ENABLE) && !npt_enabled')) return false;
  const ncr3 = numberOf(word(V.VMCB_NESTED_CR3), word(V.VMCB_NESTED_CR3 + 4));
  const badCr3 =
    '(control->nested_ctl & SVM_NESTED_CTL_NP_ENABLE) && !kvm_vcpu_is_legal_gpa(vcpu, control->nested_cr3)';
  if (checkFails(vcpu, npt && !isLegalGpa(vcpu, ncr3), badCr3)) return false;
  const msrpm = legalBitmap(vcpu, cached, V.VMCB_MSRPM_BASE, MSRPM_SIZE);
  if (checkFails(vcpu, !msrpm, '!nested_svm_check_bitmap_pa(vcpu, control->msrpm_base_pa, MSRPM_SIZE)')) return false;
  const iopm = legalBitmap(vcpu, cached, V.VMCB_IOPM_BASE, IOPM_SIZE);
  if (checkFails(vcpu, !iopm, '!nested_svm_check_bitmap_pa(vcpu, control->iopm_base_pa, IOPM_SIZE)')) return false;
  const vnmi = (word(V.VMCB_INT_CTL) & V.V_NMI_ENABLE_MASK) !== 0;
  const noNmi = vnmi && (word(V.VMCB_INTERCEPT_WORD3) & V.INTERCEPT_NMI) === 0;
  return !checkFails(
    vcpu,
    noNmi,
    '(control->int_ctl & V_NMI_ENABLE_MASK) && !vmcb12_is_intercept(control, INTERCEPT_NMI)',
  );
}

/** @kvm nested.c __nested_vmcb_check_save */
export function checkSave(vcpu: VcpuState, cached: Int32Array): boolean {
  const lo = (off: number): number => cached[off >> 2]!;
  const hi = (off: number): number => cached[(off >> 2) + 1]!;
  const fails = (bad: boolean, text: string): boolean => checkFails(vcpu, bad, text);
  const efer = lo(V.VMCB_EFER);
  const cr0 = lo(V.VMCB_CR0);
  const cr4 = lo(V.VMCB_CR4);
  if (fails((efer & EFER_SVME) === 0, '!(save->efer & EFER_SVME)')) return false;
  const caching = (cr0 & CR0_CD) === 0 && (cr0 & CR0_NW) !== 0;
  if (fails(caching, '(save->cr0 & X86_CR0_CD) == 0 && (save->cr0 & X86_CR0_NW)')) return false;
  if (fails(hi(V.VMCB_CR0) !== 0, 'save->cr0 & ~0xffffffffULL')) return false;
  if (fails(hi(V.VMCB_DR6) !== 0, '!kvm_dr6_valid(save->dr6)')) return false;
  if (fails(hi(V.VMCB_DR7) !== 0, '!kvm_dr7_valid(save->dr7)')) return false;
  if ((efer & EFER_LME) !== 0 && (cr0 & CR0_PG) !== 0) {
    if (fails((cr4 & CR4_PAE) === 0, '!(save->cr4 & X86_CR4_PAE)')) return false;
    if (fails((cr0 & CR0_PE) === 0, '!(save->cr0 & X86_CR0_PE)')) return false;
    if (fails(!isLegalCr3(vcpu, hi(V.VMCB_CR3)), '!kvm_vcpu_is_legal_cr3(vcpu, save->cr3)')) return false;
    const both = V.VMCB_ATTR_L | V.VMCB_ATTR_DB;
    const wide = ((lo(V.VMCB_CS) >>> 16) & both) === both;
    if (fails(wide, '(save->cs.attrib & SVM_SELECTOR_L_MASK) && (save->cs.attrib & SVM_SELECTOR_DB_MASK)')) {
      return false;
    }
  }
  if (fails(!isValidCr4(vcpu, cr4, hi(V.VMCB_CR4)), '!__kvm_is_valid_cr4(vcpu, save->cr4)')) return false;
  return !fails(!validEfer(vcpu, efer, hi(V.VMCB_EFER)), '!kvm_valid_efer(vcpu, save->efer)');
}
