/** INVLPG, executed by the guest or emulated (@kvm mmu.c kvm_mmu_invlpg, kvm_mmu_invalidate_addr). */
import type { VcpuState } from '../vcpu-state.ts';
import { isNoncanonicalBase } from '../x86/canonical.ts';
import { MMU_ROOT_CURRENT, MMU_ROOTS_ALL, mmuRootPrevious } from './free-roots.ts';
import { INVALID_ROOT, type Mmu } from './mmu-context.ts';
import { getActivePcid, getPcid } from './pcid.ts';
import { ROLE_DIRECT } from './role.ts';
import { shadowInvalidateAddr } from './shadow/invalidate-addr.ts';

/**
 * Drops what is cached for the address: by the processor, unless the address is not canonical, and in the shadow tables below the roots
 * that `which` names. In the MMU of a nested guest the address is L2's physical one.
 * @kvm mmu.c kvm_mmu_invalidate_addr
 */
export function mmuInvalidateAddr(vcpu: VcpuState, mmu: Mmu, lo: number, hi: number, which: number): void {
  if (mmu !== vcpu.mmu.guestMmu) {
    if (isNoncanonicalBase(vcpu, hi)) return;
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

/**
 * One address of one process-context identifier: in the roots that are for it. What no root reaches is synchronised when its CR3 comes back.
 * @kvm mmu.c kvm_mmu_invpcid_gva
 */
export function mmuInvpcidGva(vcpu: VcpuState, lo: number, hi: number, pcid: number): void {
  const mmu = vcpu.mmu.mmu;
  let which = pcid === getActivePcid(vcpu) ? MMU_ROOT_CURRENT : 0;
  mmu.prevRoots.forEach((prev, i) => {
    if (prev.pfn !== INVALID_ROOT && getPcid(vcpu, prev.pgd) === pcid) which |= mmuRootPrevious(i);
  });
  if (which !== 0) mmuInvalidateAddr(vcpu, mmu, lo, hi, which);
  vcpu.stats.invlpg++;
}
