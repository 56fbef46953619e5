/** A vCPU's roots: loaded before it enters the guest, freed, and swapped when CR3 changes (@kvm mmu.c kvm_mmu_load, kvm_mmu_new_pgd). */
import { numberOf } from '../../arch/halves.ts';
import { CR4_PCIDE } from '../../arch/registers.ts';
import {
  makeRequest,
  REQ_LOAD_MMU_PGD,
  REQ_MMU_SYNC,
  REQ_TLB_FLUSH_CURRENT,
  REQ_TLB_FLUSH_GUEST,
  type VcpuState,
} from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { MMU_ROOT_CURRENT, MMU_ROOTS_ALL, mmuFreeRoots, mmuRootPrevious } from './free-roots.ts';
import { MMIO_GVA_ANY, vcpuClearMmioInfo } from './mmio-cache.ts';
import { INVALID_ROOT, type Mmu, NUM_PREV_ROOTS, type RootInfo } from './mmu-context.ts';
import { isObsoleteSp, rootToSp } from './obsolete.ts';
import { getActivePcid, getPcid } from './pcid.ts';
import { ROLE_DIRECT, roleLevel } from './role.ts';
import { topupShadowPages } from './shadow/recycle.ts';
import { allocDirectShadowRoots, allocShadowRoots, mmuSyncRoots } from './shadow/roots.ts';
import { allocRoot } from './tdp-mmu/roots.ts';

/** Programs the vendor with the current root (@kvm mmu.h kvm_mmu_load_pgd). */
export function mmuLoadPgd(vcpu: VcpuState): void {
  const mmu = vcpu.mmu.mmu;
  if (mmu.root.pfn !== INVALID_ROOT) vcpu.vm.vendor.loadMmuPgd(vcpu, mmu.root.pfn, roleLevel(mmu.rootRole));
}

const pgdOut = new Int32Array(2);

function allocRoots(vcpu: VcpuState): number {
  const direct = (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0;
  if (direct && vcpu.vm.mmu.tdpMmuEnabled) {
    const mirror = vcpu.vm.mmu.external !== null && vcpu.mmu.mmu.mirrorRoot === INVALID_ROOT;
    return (mirror ? allocRoot(vcpu, true) : 0) || allocRoot(vcpu);
  }
  const r = topupShadowPages(vcpu.vm);
  if (r !== 0) return r;
  if (direct) return allocDirectShadowRoots(vcpu);
  const { nestedTables } = vcpu.mmu.mmu;
  if (nestedTables === null) return allocShadowRoots(vcpu, vcpu.cr3Lo, vcpu.cr3Hi);
  nestedTables.guestPgd(vcpu, pgdOut);
  return allocShadowRoots(vcpu, pgdOut[0]!, pgdOut[1]!);
}

/** Finds or makes a root. 0, -ENOMEM or -ENOSPC. @kvm mmu.c kvm_mmu_load */
function mmuLoad(vcpu: VcpuState): number {
  const r = allocRoots(vcpu);
  if (r !== 0) return r;
  mmuSyncRoots(vcpu);
  mmuLoadPgd(vcpu);
  // Where the root comes from is not known: nothing the TLB holds for it may be used.
  vcpu.vm.vendor.flushTlbCurrent(vcpu);
  return 0;
}

/** The vCPU has a root when this returns 0; -ENOMEM or -ENOSPC otherwise. @kvm mmu.h kvm_mmu_reload. HOT */
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
  if (root.pfn === INVALID_ROOT) return false;
  // A root without a page of its own cannot tell whether it is fresh.
  const sp = rootToSp(vm, root.pfn);
  return sp === null || isObsoleteSp(vm, sp);
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
  return rootToSp(vm, root.pfn)?.role === role;
}

/** Makes a usable root the current one: the current itself or a previous one (@kvm mmu.c fast_pgd_switch). */
function fastPgdSwitch(vm: VmState, mmu: Mmu, pgd: number, role: number): boolean {
  // PDPTEs, and the dummy, are not kept.
  if (mmu.root.pfn !== INVALID_ROOT && rootToSp(vm, mmu.root.pfn) === null) mmuFreeRoots(vm, mmu, MMU_ROOT_CURRENT);
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
  if ((mmu.rootRole & ROLE_DIRECT) === 0) vcpu.vm.mmu.shadowPage(mmu.root.pfn).writeFloodingCount = 0;
}

/** Translations of one PCID are void. Under TDP they are only in the processor. @kvm x86.c kvm_invalidate_pcid */
export function mmuInvalidatePcid(vcpu: VcpuState, pcid: number): void {
  if (vcpu.vm.vendor.tdpEnabled) {
    makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
    return;
  }
  if (getActivePcid(vcpu) === pcid) makeRequest(vcpu, REQ_MMU_SYNC | REQ_TLB_FLUSH_CURRENT);
  // Without PCIDs every load of CR3 flushes, so previous roots are synced before they are used again.
  if ((vcpu.cr4 & CR4_PCIDE) === 0) return;
  const mmu = vcpu.mmu.mmu;
  let which = 0;
  mmu.prevRoots.forEach((prev, i) => {
    if (getPcid(vcpu, prev.pgd) === pcid) which |= mmuRootPrevious(i);
  });
  mmuFreeRoots(vcpu.vm, mmu, which);
}
