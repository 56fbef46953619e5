/** Roots of the TDP MMU: found or made for a vCPU, invalidated together, zapped, put (@kvm tdp_mmu.c). */
import { ENOMEM } from '../../../host/errno.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE } from '../../locks.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { maxGfn } from '../max-gfn.ts';
import { ROLE_INVALID, ROLE_IS_MIRROR, roleAsId, roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isShadowPresent, SHADOW_NONPRESENT_HI, SHADOW_NONPRESENT_LO } from '../spte.ts';
import { iterSetSpte, setSpteAtomic } from './changed-spte.ts';
import { allocSp, freeSp, initSp } from './pages.ts';

/** The roots of address space `asId` (any when it is negative) but mirrors, in the order the kernel's list has them. */
export function tdpMmuRoots(vm: VmState, asId: number, onlyValid: boolean): ShadowPage[] {
  const without = ROLE_IS_MIRROR | (onlyValid ? ROLE_INVALID : 0);
  return vm.mmu.tdpMmuRoots.filter((root) => (asId < 0 || roleAsId(root.role) === asId) && (root.role & without) === 0);
}

/** The mirror roots. @kvm tdp_mmu.h KVM_MIRROR_ROOTS */
export function mirrorRoots(vm: VmState): ShadowPage[] {
  return vm.mmu.tdpMmuRoots.filter((root) => (root.role & ROLE_IS_MIRROR) !== 0);
}

/** Words to the upper half of a root of four levels: gfn bit 35. */
const SHARED_HALF = 256 * 2;

/** Gives the vCPU's MMU a root: one with its role, or a new one. 0 or -ENOMEM. @kvm tdp_mmu.c kvm_tdp_mmu_alloc_root */
export function allocRoot(vcpu: VcpuState, mirror = false): number {
  const vm = vcpu.vm;
  const mmu = vcpu.mmu.mmu;
  const role = mirror ? mmu.rootRole | ROLE_IS_MIRROR : mmu.rootRole;
  vm.locks.acquire(LOCK_MMU_READ);
  // An invalid root has ROLE_INVALID in its role and so never matches.
  let root = vm.mmu.tdpMmuRoots.find((r) => r.role === role) ?? null;
  if (root !== null) {
    root.tdpMmuRootCount++;
  } else {
    root = allocSp(vm);
    if (root !== null) {
      initSp(vm, root, -1, 0, role);
      root.tdpMmuRootCount = 2;
      if (!mirror && vm.mmu.gfnDirectBits !== 0) root.rootBias = SHARED_HALF;
      vm.mmu.tdpMmuRoots.unshift(root);
    }
  }
  vm.locks.release(LOCK_MMU_READ);
  if (root === null) return -ENOMEM;
  if (mirror) {
    mmu.mirrorRoot = root.pfn;
    return 0;
  }
  mmu.root.pfn = root.pfn;
  mmu.root.pgd = 0;
  return 0;
}

/** Drops a reference; the last one frees the root, which must be invalid and zapped by then. @kvm tdp_mmu.c kvm_tdp_mmu_put_root */
export function putRoot(vm: VmState, root: ShadowPage): void {
  root.tdpMmuRootCount--;
  if (root.tdpMmuRootCount !== 0) return;
  vm.log.kvmBugOn(
    (root.role & ROLE_INVALID) === 0,
    'kvm_tdp_mmu_put_root',
    'the last reference to a valid root was put',
  );
  vm.mmu.tdpMmuRoots.splice(vm.mmu.tdpMmuRoots.indexOf(root), 1);
  freeSp(vm, root);
}

/** No vCPU may take these roots any more; their entries go in zapInvalidatedRoots. @kvm tdp_mmu.c kvm_tdp_mmu_invalidate_all_roots */
export function invalidateAllRoots(vm: VmState, mirrors = false): void {
  for (const root of vm.mmu.tdpMmuRoots) {
    if ((root.role & ROLE_INVALID) !== 0 || ((root.role & ROLE_IS_MIRROR) !== 0 && !mirrors)) continue;
    root.scheduledRootToZap = true;
    root.role |= ROLE_INVALID;
  }
}

/** @kvm tdp_mmu.c kvm_tdp_mmu_zap_invalidated_roots */
export function zapInvalidatedRoots(vm: VmState): void {
  vm.locks.acquire(LOCK_MMU_READ);
  for (const root of tdpMmuRoots(vm, -1, false)) {
    if (!root.scheduledRootToZap) continue;
    root.scheduledRootToZap = false;
    zapRoot(vm, root, true);
    putRoot(vm, root);
  }
  vm.locks.release(LOCK_MMU_READ);
}

/** Drops every entry of every root, valid or not; the VM or its process is going. @kvm tdp_mmu.c kvm_tdp_mmu_zap_all */
export function zapAllRoots(vm: VmState): void {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  for (const root of tdpMmuRoots(vm, -1, false)) zapRoot(vm, root, false);
}

/**
 * From the bottom up in two steps, as a kernel does that proves its MMU (CONFIG_KVM_PROVE_MMU): first what hangs from the entries for
 * 1 GiB, then from the root's.
 * @kvm tdp_mmu.c tdp_mmu_zap_root
 */
function zapRoot(vm: VmState, root: ShadowPage, shared: boolean): void {
  zapRootLevel(vm, root, shared, 3);
  zapRootLevel(vm, root, shared, roleLevel(root.role));
}

function zapRootLevel(vm: VmState, root: ShadowPage, shared: boolean, zapLevel: number): void {
  const iter = vm.mmu.iter;
  const end = maxGfn(vm) + 1;
  for (iter.start(root, zapLevel, 0); iter.valid && iter.gfn < end; iter.next()) {
    if (iter.level > zapLevel) continue;
    while (isShadowPresent(iter.oldLo)) {
      if (!shared) {
        iterSetSpte(vm, iter, SHADOW_NONPRESENT_LO, SHADOW_NONPRESENT_HI);
        break;
      }
      if (setSpteAtomic(vm, iter, SHADOW_NONPRESENT_LO, SHADOW_NONPRESENT_HI) === 0) break;
    }
  }
}

/** With the VM, under the write lock: a mirror cannot be zapped while others use it. */
function freeMirrorRoots(vm: VmState): void {
  vm.locks.acquire(LOCK_MMU_WRITE);
  for (const root of mirrorRoots(vm)) {
    zapRoot(vm, root, false);
    putRoot(vm, root);
  }
  vm.locks.release(LOCK_MMU_WRITE);
}

/** @kvm tdp_mmu.c kvm_mmu_uninit_tdp_mmu */
export function uninitTdpMmu(vm: VmState): void {
  invalidateAllRoots(vm, true);
  zapInvalidatedRoots(vm);
  freeMirrorRoots(vm);
  vm.log.warnOnOnce(vm.mmu.tdpMmuPages !== 0, 'kvm_mmu_uninit_tdp_mmu', `${vm.mmu.tdpMmuPages} page tables left`);
  vm.log.warnOnOnce(vm.mmu.tdpMmuRoots.length !== 0, 'kvm_mmu_uninit_tdp_mmu', 'roots left');
}
