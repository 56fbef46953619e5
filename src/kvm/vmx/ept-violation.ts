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
import { hex64 } from '../../arch/flags.ts';
import { RIP } from '../../arch/registers.ts';
import { VMCS_EXIT_QUALIFICATION, VMCS_GUEST_PHYSICAL_ADDRESS } from '../../arch/vmcs.ts';
import { INTR_INFO_UNBLOCK_NMI } from '../../arch/vmx-controls.ts';
import { mmuPageFault } from '../mmu/page-fault.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { vmxSetNmiMask } from './events.ts';
import { vmcsRead, vmcsReadHi } from './vmcs-access.ts';

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
 * @partial no smaller physical addresses for the guest (allow_smaller_maxphyaddr)
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

/**
 * The exit: what the VMCS says of it goes to the handler.
 * @kvm vmx.c handle_ept_violation
 * HOT
 */
export function handleEptViolationExit(vcpu: VcpuState): number {
  const vmx = vcpu.vmx;
  const { vm } = vcpu;
  const qualification = vmcsRead(vmx, VMCS_EXIT_QUALIFICATION);
  if (vmx.idtVectoringInfo >= 0 && (qualification & INTR_INFO_UNBLOCK_NMI) !== 0) vmxSetNmiMask(vcpu, true);
  const lo = vmcsRead(vmx, VMCS_GUEST_PHYSICAL_ADDRESS);
  const hi = vmcsReadHi(vmx, VMCS_GUEST_PHYSICAL_ADDRESS);
  if (vm.trace.enabled) {
    vm.trace.emit('kvm_page_fault', {
      vcpu: vcpu.id,
      rip: hex64(vcpu.regs[2 * RIP]!, vcpu.regs[2 * RIP + 1]!),
      address: hex64(lo, hi),
      error_code: hex64(qualification, vmcsReadHi(vmx, VMCS_EXIT_QUALIFICATION)),
    });
  }
  return handleEptViolation(vcpu, lo, hi, qualification);
}
