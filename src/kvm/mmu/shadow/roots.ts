/** Roots of the shadow MMU: made for a vCPU, and brought in line with the guest's tables (@kvm mmu.c mmu_alloc_shadow_roots, kvm_mmu_sync_roots). */
import { numberOf } from '../../../arch/halves.ts';
import {
  PT_ACCESSED_MASK,
  PT_PRESENT_MASK,
  PT_USER_MASK,
  PT_WRITABLE_MASK,
  PT64_FRAME_HI,
  ptePfn,
} from '../../../arch/paging.ts';
import { ENOMEM } from '../../../host/errno.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import { isVisibleMemslot, vcpuGfnToMemslot } from '../../memslots/memslots.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { mmuFreeRoots, mmuRootPrevious } from '../free-roots.ts';
import { MMIO_GVA_ANY, vcpuClearMmioInfo } from '../mmio-cache.ts';
import type { Mmu } from '../mmu-context.ts';
import { rootToSp } from '../obsolete.ts';
import { refreshPdptrs } from '../pdptrs.ts';
import { ROLE_DIRECT, ROLE_LEVEL_MASK, ROLE_QUADRANT_SHIFT, roleLevel } from '../role.ts';
import { sptePfn } from '../spte.ts';
import { getShadowPage } from './get-page.ts';
import { makeMmuPagesAvailable } from './recycle.ts';
import { syncChildren } from './sync.ts';

/** Takes the shadow page of a root table as a root. Answers its frame. @kvm mmu.c mmu_alloc_root */
function allocRootPage(vcpu: VcpuState, gfn: number, quadrant: number, level: number): number {
  const role = (vcpu.mmu.mmu.rootRole & ~ROLE_LEVEL_MASK) | level | (quadrant << ROLE_QUADRANT_SHIFT);
  const sp = getShadowPage(vcpu.vm, vcpu, gfn, role);
  sp.rootCount++;
  return sp.pfn;
}

function setPaeRoot(vm: VmState, mmu: Mmu, i: number, lo: number): void {
  const at = (mmu.paeRoot << 10) | (i << 1);
  vm.memory.i32[at] = lo;
  vm.memory.i32[at + 1] = 0;
}

/** 0, -ENOMEM or -ENOSPC. @kvm mmu.c mmu_alloc_direct_roots */
export function allocDirectShadowRoots(vcpu: VcpuState): number {
  const vm = vcpu.vm;
  const mmu = vcpu.mmu.mmu;
  const level = roleLevel(mmu.rootRole);
  vm.locks.acquire(LOCK_MMU_WRITE);
  const r = makeMmuPagesAvailable(vm);
  if (r === 0) {
    if (level >= 4) {
      mmu.root.pfn = allocRootPage(vcpu, 0, 0, level);
    } else {
      for (let i = 0; i < 4; i++) {
        setPaeRoot(vm, mmu, i, (allocRootPage(vcpu, i << 18, 0, 2) << 12) | PT_PRESENT_MASK);
      }
      mmu.root.pfn = mmu.paeRoot;
    }
    mmu.root.pgd = 0;
  }
  vm.locks.release(LOCK_MMU_WRITE);
  return r;
}

/** @kvm kvm_main.c kvm_vcpu_is_visible_gfn */
function isVisible(vcpu: VcpuState, gfn: number): boolean {
  return isVisibleMemslot(vcpuGfnToMemslot(vcpu, gfn));
}

const pdpte = new Int32Array(2);

/** The four page directories of a guest with 2 or 3 levels. @param cr3Gfn the root of a 2-level guest */
function allocPaeRoots(vcpu: VcpuState, mmu: Mmu, cr3Gfn: number): void {
  const vm = vcpu.vm;
  const isPae = roleLevel(mmu.cpuRole) === 3;
  const top = roleLevel(mmu.rootRole);
  const flags = PT_PRESENT_MASK | (top >= 4 ? PT_ACCESSED_MASK | PT_WRITABLE_MASK | PT_USER_MASK : 0);
  if (top >= 4) {
    vm.memory.i32[mmu.pml4Root << 10] = (mmu.paeRoot << 12) | flags;
    if (top === 5) vm.memory.i32[mmu.pml5Root << 10] = (mmu.pml4Root << 12) | flags;
  }
  for (let i = 0; i < 4; i++) {
    let gfn = cr3Gfn;
    if (isPae) {
      if (mmu.nestedTables !== null) mmu.nestedTables.pdptr(vcpu, i, pdpte);
      else {
        pdpte[0] = mmu.pdptrs[2 * i]!;
        pdpte[1] = mmu.pdptrs[2 * i + 1]!;
      }
      const lo = pdpte[0]!;
      gfn = ptePfn(lo, pdpte[1]!);
      if ((lo & PT_PRESENT_MASK) === 0 || !isVisible(vcpu, gfn)) {
        setPaeRoot(vm, mmu, i, 0);
        continue;
      }
    }
    setPaeRoot(vm, mmu, i, (allocRootPage(vcpu, gfn, isPae ? 0 : i, 2) << 12) | flags);
  }
  mmu.root.pfn = top === 5 ? mmu.pml5Root : top === 4 ? mmu.pml4Root : mmu.paeRoot;
}

/** Tables above those that there is something to shadow of. 0 or -ENOMEM. @kvm mmu.c mmu_alloc_special_roots */
function allocSpecialRoots(vm: VmState, mmu: Mmu): number {
  const top = roleLevel(mmu.rootRole);
  if (roleLevel(mmu.cpuRole) >= 4 || top < 4) return 0;
  const { pages } = vm.host;
  if (mmu.paeRoot < 0) mmu.paeRoot = pages.allocPage();
  if (mmu.pml4Root < 0) mmu.pml4Root = pages.allocPage();
  if (top > 4 && mmu.pml5Root < 0) mmu.pml5Root = pages.allocPage();
  return mmu.paeRoot < 0 || mmu.pml4Root < 0 || (top > 4 && mmu.pml5Root < 0) ? -ENOMEM : 0;
}

/** 0, -ENOMEM or -ENOSPC. @kvm mmu.c mmu_alloc_shadow_roots */
export function allocShadowRoots(vcpu: VcpuState, pgdLo: number, pgdHi: number): number {
  const vm = vcpu.vm;
  const mmu = vcpu.mmu.mmu;
  const special = allocSpecialRoots(vm, mmu);
  if (special !== 0) return special;
  const gfn = (pgdHi & PT64_FRAME_HI) * 0x100000 + (pgdLo >>> 12);
  if (!isVisible(vcpu, gfn)) {
    mmu.root.pfn = vm.host.zero.small;
    return 0;
  }
  if (roleLevel(mmu.cpuRole) === 3 && mmu.nestedTables === null) refreshPdptrs(vcpu);
  vm.mmu.shadowRootAllocated = true;
  vm.locks.acquire(LOCK_MMU_WRITE);
  const r = makeMmuPagesAvailable(vm);
  if (r === 0) {
    if (roleLevel(mmu.cpuRole) >= 4) mmu.root.pfn = allocRootPage(vcpu, gfn, 0, roleLevel(mmu.rootRole));
    else allocPaeRoots(vcpu, mmu, gfn);
    mmu.root.pgd = numberOf(pgdLo, pgdHi & PT64_FRAME_HI);
  }
  vm.locks.release(LOCK_MMU_WRITE);
  return r;
}

/** @kvm mmu.c is_unsync_root */
function isUnsyncRoot(vm: VmState, pfn: number): boolean {
  if (pfn < 0) return false;
  const sp = rootToSp(vm, pfn);
  return sp !== null && (sp.unsync || sp.unsyncChildren !== 0);
}

/** All that the current root reaches is in line with the guest's tables afterwards. @kvm mmu.c kvm_mmu_sync_roots */
export function mmuSyncRoots(vcpu: VcpuState): void {
  const vm = vcpu.vm;
  const mmu = vcpu.mmu.mmu;
  if ((mmu.rootRole & ROLE_DIRECT) !== 0 || mmu.root.pfn < 0) return;
  vcpuClearMmioInfo(vcpu, MMIO_GVA_ANY, MMIO_GVA_ANY);
  if (roleLevel(mmu.cpuRole) >= 4) {
    if (!isUnsyncRoot(vm, mmu.root.pfn)) return;
    vm.locks.acquire(LOCK_MMU_WRITE);
    syncChildren(vcpu, vm.mmu.shadowPage(mmu.root.pfn));
    vm.locks.release(LOCK_MMU_WRITE);
    return;
  }
  vm.locks.acquire(LOCK_MMU_WRITE);
  const i32 = vm.memory.i32;
  for (let i = 0; i < 4; i++) {
    const at = (mmu.paeRoot << 10) | (i << 1);
    if ((i32[at]! | i32[at + 1]!) !== 0) syncChildren(vcpu, vm.mmu.shadowPage(sptePfn(i32[at]!, i32[at + 1]!)));
  }
  vm.locks.release(LOCK_MMU_WRITE);
}

/** The previous roots that would have to be synced are given up instead. @kvm mmu.c kvm_mmu_sync_prev_roots */
export function mmuSyncPrevRoots(vcpu: VcpuState): void {
  const mmu = vcpu.mmu.mmu;
  let which = 0;
  mmu.prevRoots.forEach((prev, i) => {
    if (isUnsyncRoot(vcpu.vm, prev.pfn)) which |= mmuRootPrevious(i);
  });
  mmuFreeRoots(vcpu.vm, mmu, which);
}
