/**
 * Which linear addresses KVM takes for canonical (@kvm x86.h is_noncanonical_address): those to be accessed by the guest's CR4.LA57;
 * those in MSRs, bases of tables and segments, and what is to be invalidated, by what the host's processor has, because most of them
 * never come to KVM and the processor judges them so.
 */
import { isCanonical } from '../../arch/linear-address.ts';
import { CR4_LA57 } from '../../arch/registers.ts';
import type { VcpuState } from '../vcpu-state.ts';

/** An address that the guest accesses or jumps to. @kvm x86.h vcpu_virt_addr_bits */
export function isNoncanonicalAddress(vcpu: VcpuState, hi: number): boolean {
  return !isCanonical(hi, (vcpu.cr4 & CR4_LA57) !== 0);
}

/** A base, an address in an MSR or one to be invalidated. @kvm x86.h max_host_virt_addr_bits, is_noncanonical_msr_address, is_noncanonical_base_address, is_noncanonical_invlpg_address */
export function isNoncanonicalBase(vcpu: VcpuState, hi: number): boolean {
  return !isCanonical(hi, vcpu.vm.profile.la57);
}
