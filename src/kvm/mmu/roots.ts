/** A vCPU's roots: loaded before it enters the guest, freed, and swapped when CR3 changes (@kvm mmu.c kvm_mmu_load, kvm_mmu_new_pgd). */
import { numberOf } from '../../arch/halves.ts';
import { LOCK_MMU_READ } from '../locks.ts';
import { makeRequest, REQ_LOAD_MMU_PGD, REQ_TLB_FLUSH_GUEST, type VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { MMIO_GVA_ANY, vcpuClearMmioInfo } from './mmio-cache.ts';
import { INVALID_ROOT, type Mmu, NUM_PREV_ROOTS, type RootInfo } from './mmu-context.ts';
import { ROLE_DIRECT, ROLE_INVALID, roleLevel } from './role.ts';
import type { ShadowPage } from './shadow-page.ts';
import { allocRoot, putRoot } from './tdp-mmu/roots.ts';

/** Which roots of an MMU: the current one, and the previous ones by index. */
export const MMU_ROOT_CURRENT = 1 << 0;
function mmuRootPrevious(index: number): number {
  return 2 << index;
}
export const MMU_ROOTS_ALL = (2 << NUM_PREV_ROOTS) - 1;

/** The page is not to be used for new translations (@kvm mmu.c is_obsolete_sp). HOT */
export function isObsoleteSp(sp: ShadowPage): boolean {
  return (sp.role & ROLE_INVALID) !== 0;
}

function freeRoot(vm: VmState, root: RootInfo): void {
  if (root.pfn === INVALID_ROOT) return;
  putRoot(vm, vm.mmu.shadowPage(root.pfn));
  root.pfn = INVALID_ROOT;
}

/** Puts the roots that `which` names (@kvm mmu.c kvm_mmu_free_roots). */
function mmuFreeRoots(vm: VmState, mmu: Mmu, which: number): void {
  const freeCurrent = (which & MMU_ROOT_CURRENT) !== 0 && mmu.root.pfn !== INVALID_ROOT;
  const freePrevious = mmu.prevRoots.some((root, i) => (which & mmuRootPrevious(i)) !== 0 && root.pfn !== INVALID_ROOT);
  if (!freeCurrent && !freePrevious) return;
  vm.locks.acquire(LOCK_MMU_READ);
  mmu.prevRoots.forEach((root, i) => {
    if ((which & mmuRootPrevious(i)) !== 0) freeRoot(vm, root);
  });
  if (freeCurrent) {
    freeRoot(vm, mmu.root);
    mmu.root.pgd = 0;
  }
  vm.locks.release(LOCK_MMU_READ);
}

/** Programs the vendor with the current root (@kvm mmu.h kvm_mmu_load_pgd). */
export function mmuLoadPgd(vcpu: VcpuState): void {
  const mmu = vcpu.mmu.mmu;
  if (mmu.root.pfn !== INVALID_ROOT) vcpu.vm.vendor.loadMmuPgd(vcpu, mmu.root.pfn, roleLevel(mmu.rootRole));
}

/** Finds or makes a root. 0 or -ENOMEM. @kvm mmu.c kvm_mmu_load */
function mmuLoad(vcpu: VcpuState): number {
  const r = allocRoot(vcpu);
  if (r !== 0) return r;
  mmuLoadPgd(vcpu);
  // Where the root comes from is not known: nothing the TLB holds for it may be used.
  vcpu.vm.vendor.flushTlbCurrent(vcpu);
  return 0;
}

/** The vCPU has a root when this returns 0; -ENOMEM otherwise. @kvm mmu.h kvm_mmu_reload. HOT */
export function mmuReload(vcpu: VcpuState): number {
  return vcpu.mmu.mmu.root.pfn !== INVALID_ROOT ? 0 : mmuLoad(vcpu);
}

/** @kvm mmu.c kvm_mmu_unload */
export function mmuUnload(vcpu: VcpuState): void {
  mmuFreeRoots(vcpu.vm, vcpu.mmu.rootMmu, MMU_ROOTS_ALL);
  mmuFreeRoots(vcpu.vm, vcpu.mmu.guestMmu, MMU_ROOTS_ALL);
  vcpuClearMmioInfo(vcpu, MMIO_GVA_ANY, MMIO_GVA_ANY);
}

/** @kvm mmu.c is_obsolete_root */
function isObsoleteRoot(vm: VmState, root: RootInfo): boolean {
  return root.pfn !== INVALID_ROOT && isObsoleteSp(vm.mmu.shadowPage(root.pfn));
}

function freeObsoleteRootsOf(vm: VmState, mmu: Mmu): void {
  let which = isObsoleteRoot(vm, mmu.root) ? MMU_ROOT_CURRENT : 0;
  mmu.prevRoots.forEach((root, i) => {
    if (isObsoleteRoot(vm, root)) which |= mmuRootPrevious(i);
  });
  if (which !== 0) mmuFreeRoots(vm, mmu, which);
}

/** Serves REQ_MMU_FREE_OBSOLETE_ROOTS (@kvm mmu.c kvm_mmu_free_obsolete_roots). */
export function mmuFreeObsoleteRoots(vcpu: VcpuState): void {
  freeObsoleteRootsOf(vcpu.vm, vcpu.mmu.rootMmu);
  freeObsoleteRootsOf(vcpu.vm, vcpu.mmu.guestMmu);
}

function swapRoots(a: RootInfo, b: RootInfo): void {
  const { pfn, pgd } = a;
  a.pfn = b.pfn;
  a.pgd = b.pgd;
  b.pfn = pfn;
  b.pgd = pgd;
}

/** @kvm mmu.c is_root_usable */
function isRootUsable(vm: VmState, root: RootInfo, pgd: number, role: number): boolean {
  if (root.pfn === INVALID_ROOT) return false;
  if ((role & ROLE_DIRECT) === 0 && root.pgd !== pgd) return false;
  return vm.mmu.shadowPage(root.pfn).role === role;
}

/** Makes a usable root the current one: the current itself or a previous one (@kvm mmu.c fast_pgd_switch). */
function fastPgdSwitch(vm: VmState, mmu: Mmu, pgd: number, role: number): boolean {
  if (mmu.root.pfn !== INVALID_ROOT) {
    if (isRootUsable(vm, mmu.root, pgd, role)) return true;
    for (const previous of mmu.prevRoots) {
      swapRoots(mmu.root, previous);
      if (isRootUsable(vm, mmu.root, pgd, role)) return true;
    }
    mmuFreeRoots(vm, mmu, MMU_ROOT_CURRENT);
    return false;
  }
  const found = mmu.prevRoots.findIndex((root) => isRootUsable(vm, root, pgd, role));
  if (found < 0) return false;
  swapRoots(mmu.root, mmu.prevRoots[found]!);
  for (let i = found; i < NUM_PREV_ROOTS - 1; i++) swapRoots(mmu.prevRoots[i]!, mmu.prevRoots[i + 1]!);
  mmu.prevRoots[NUM_PREV_ROOTS - 1]!.pfn = INVALID_ROOT;
  return true;
}

/** CR3 (or the nested CR3) has a new value (halves): keeps a root that fits, or leaves none for mmuReload (@kvm mmu.c kvm_mmu_new_pgd). */
export function mmuNewPgd(vcpu: VcpuState, cr3Lo: number, cr3Hi: number): void {
  const mmu = vcpu.mmu.mmu;
  const pgd = numberOf(cr3Lo, cr3Hi & 0xfffff);
  if (!fastPgdSwitch(vcpu.vm, mmu, pgd, mmu.rootRole)) return;
  makeRequest(vcpu, REQ_LOAD_MMU_PGD);
  vcpuClearMmioInfo(vcpu, MMIO_GVA_ANY, MMIO_GVA_ANY);
}

/** Translations of one PCID are void (@kvm x86.c kvm_invalidate_pcid): under TDP they are only in the processor. */
export function mmuInvalidatePcid(vcpu: VcpuState, _pcid: number): void {
  makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
}
