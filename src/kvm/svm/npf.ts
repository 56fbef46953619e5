/** A nested page fault on its way from the processor's report to the MMU (@kvm svm.c npf_interception). */
import { PFERR_GUEST_ENC_HI, PFERR_GUEST_RMP, PFERR_PRIVATE_ACCESS_HI } from '../../arch/error-code.ts';
import { hex64 } from '../../arch/flags.ts';
import { RIP } from '../../arch/registers.ts';
import { mmuPageFault } from '../mmu/page-fault.ts';
import { dropSyntheticBits } from '../mmu/synthetic-bits.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_X86_SNP_VM } from '../vm-type.ts';
import { sevHandleRmpFault } from './sev/gmem.ts';

/**
 * Handles a nested page fault at (addrLo, addrHi) with EXITINFO1 (errorLo, errorHi).
 * @returns as mmuPageFault
 * HOT
 * @kvm svm.c npf_interception
 */
export function handleNpf(vcpu: VcpuState, addrLo: number, addrHi: number, errorLo: number, errorHi: number): number {
  const { vm } = vcpu;
  const { rules } = vm.revision;
  let codeHi = rules.npfDropsSynthetic ? dropSyntheticBits(vcpu, errorHi, 'npf_interception') : errorHi;
  if (rules.snpEncIsPrivate && vm.type === KVM_X86_SNP_VM && (errorHi & PFERR_GUEST_ENC_HI) !== 0) {
    codeHi |= PFERR_PRIVATE_ACCESS_HI;
  }
  if (vm.trace.enabled) {
    vm.trace.emit('kvm_page_fault', {
      vcpu: vcpu.id,
      rip: hex64(vcpu.regs[2 * RIP]!, vcpu.regs[2 * RIP + 1]!),
      address: hex64(addrLo, addrHi),
      error_code: hex64(errorLo, codeHi),
    });
  }
  const r = mmuPageFault(vcpu, addrLo, addrHi, errorLo, codeHi);
  if (r > 0 && (errorLo & PFERR_GUEST_RMP) !== 0 && vm.sev !== null) {
    sevHandleRmpFault(vcpu, addrLo, addrHi, errorLo, errorHi);
  }
  return r;
}
