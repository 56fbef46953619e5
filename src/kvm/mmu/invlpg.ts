/** INVLPG, executed by the guest or emulated (@kvm mmu.c kvm_mmu_invlpg, kvm_mmu_invalidate_addr). */
import { CR4_LA57 } from '../../arch/registers.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { MMU_ROOT_CURRENT, MMU_ROOTS_ALL, mmuRootPrevious } from './free-roots.ts';
import type { Mmu } from './mmu-context.ts';
import { ROLE_DIRECT } from './role.ts';
import { shadowInvalidateAddr } from './shadow/invalidate-addr.ts';

/** Bits above the linear address width are not copies of its top bit. */
function isNoncanonical(vcpu: VcpuState, hi: number): boolean {
  // Bit 47 is bit 15 of the high half, bit 56 its bit 24.
  const unused = (vcpu.cr4 & CR4_LA57) !== 0 ? 7 : 16;
  return (hi << unused) >> unused !== hi;
}

/**
 * Drops what is cached for the address: by the processor, unless the address is not canonical, and in the shadow tables below the roots
 * that `which` names. In the MMU of a nested guest the address is L2's physical one.
 * @kvm mmu.c kvm_mmu_invalidate_addr
 */
export function mmuInvalidateAddr(vcpu: VcpuState, mmu: Mmu, lo: number, hi: number, which: number): void {
  if (mmu !== vcpu.mmu.guestMmu) {
    if (isNoncanonical(vcpu, hi)) return;
    vcpu.vm.vendor.flushTlbGva(vcpu, lo, hi);
  }
  // Nothing of the guest's tables is shadowed in a direct MMU, nor of L2's own.
  if (mmu === vcpu.mmu.nestedMmu || (mmu.rootRole & ROLE_DIRECT) !== 0) return;
  if ((which & MMU_ROOT_CURRENT) !== 0) shadowInvalidateAddr(vcpu, mmu, lo, hi, mmu.root.pfn);
  mmu.prevRoots.forEach((prev, i) => {
    if ((which & mmuRootPrevious(i)) !== 0) shadowInvalidateAddr(vcpu, mmu, lo, hi, prev.pfn);
  });
}

/** @kvm mmu.c kvm_mmu_invlpg */
export function mmuInvlpg(vcpu: VcpuState, lo: number, hi: number): void {
  mmuInvalidateAddr(vcpu, vcpu.mmu.walkMmu, lo, hi, MMU_ROOTS_ALL);
  vcpu.stats.invlpg++;
}
