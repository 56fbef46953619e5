/** An EPT violation on its way from the processor's report to the MMU (@kvm vmx/common.h __vmx_handle_ept_violation). */
import {
  EPT_VIOLATION_FETCH,
  EPT_VIOLATION_GVA_IS_VALID,
  EPT_VIOLATION_GVA_TRANSLATED,
  EPT_VIOLATION_PROT_MASK,
  EPT_VIOLATION_READ,
  EPT_VIOLATION_WRITE,
} from '../../arch/ept-qualification.ts';
import {
  PFERR_FETCH,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_PRESENT,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import { mmuPageFault } from '../mmu/page-fault.ts';
import type { VcpuState } from '../vcpu-state.ts';

/** High half of the error code: whose access it was. Where the linear address is not valid, the processor does not tell. */
export function eptErrorHi(vcpu: VcpuState, gvaIsValid: boolean, translated: boolean): number {
  const { eptPageBits } = vcpu.vm.revision.rules;
  if (eptPageBits === 'never' || (eptPageBits === 'gva-valid' && !gvaIsValid)) return 0;
  return translated ? PFERR_GUEST_FINAL_HI : PFERR_GUEST_PAGE_HI;
}

/**
 * Handles an EPT violation at the gpa (addrLo, addrHi).
 * @param qualification exit qualification, EPT_VIOLATION_*
 * @returns as mmuPageFault
 * @kvm vmx/common.h __vmx_handle_ept_violation
 * @partial no NMI unblocking, no smaller physical addresses for the guest: nothing runs on VMX
 */
export function handleEptViolation(vcpu: VcpuState, addrLo: number, addrHi: number, qualification: number): number {
  const lo =
    (qualification & EPT_VIOLATION_READ ? PFERR_USER : 0) |
    (qualification & EPT_VIOLATION_WRITE ? PFERR_WRITE : 0) |
    (qualification & EPT_VIOLATION_FETCH ? PFERR_FETCH : 0) |
    (qualification & EPT_VIOLATION_PROT_MASK ? PFERR_PRESENT : 0);
  const gvaIsValid = (qualification & EPT_VIOLATION_GVA_IS_VALID) !== 0;
  const translated = (qualification & EPT_VIOLATION_GVA_TRANSLATED) !== 0;
  return mmuPageFault(vcpu, addrLo, addrHi, lo, eptErrorHi(vcpu, gvaIsValid, translated));
}
