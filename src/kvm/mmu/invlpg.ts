/** INVLPG, executed by the guest or emulated (@kvm mmu.c kvm_mmu_invlpg, kvm_mmu_invalidate_addr). */
import { CR4_LA57 } from '../../arch/registers.ts';
import type { VcpuState } from '../vcpu-state.ts';

/** Bits above the linear address width are not copies of its top bit. */
function isNoncanonical(vcpu: VcpuState, hi: number): boolean {
  // Bit 47 is bit 15 of the high half, bit 56 its bit 24.
  const unused = (vcpu.cr4 & CR4_LA57) !== 0 ? 7 : 16;
  return (hi << unused) >> unused !== hi;
}

/**
 * Drops what the processor caches for the address; without effect on a non-canonical one. Under TDP there is no shadow to bring in line.
 * @kvm mmu.c kvm_mmu_invalidate_addr
 */
export function mmuInvalidateAddr(vcpu: VcpuState, lo: number, hi: number): void {
  if (!isNoncanonical(vcpu, hi)) vcpu.vm.vendor.flushTlbGva(vcpu, lo, hi);
}

/** @kvm mmu.c kvm_mmu_invlpg */
export function mmuInvlpg(vcpu: VcpuState, lo: number, hi: number): void {
  mmuInvalidateAddr(vcpu, lo, hi);
  vcpu.stats.invlpg++;
}
