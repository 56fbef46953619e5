/** Installing a leaf (@kvm mmu.c mmu_set_spte), and the ones around it ahead of their use (@kvm mmu.c __direct_pte_prefetch). */
import { hiOf, loOf } from '../../../arch/halves.ts';
import { PG_LEVEL_4K } from '../../../arch/paging.ts';
import { getUserPageFastOnly } from '../../../host/gup.ts';
import { gfnToHva } from '../../memslots/hva.ts';
import {
  KVM_MEMSLOT_INVALID,
  kvmSlotDirtyTrackEnabled,
  type Memslot,
  vcpuGfnToMemslot,
} from '../../memslots/memslots.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { PageFault } from '../fault.ts';
import { makeSpte } from '../make-spte.ts';
import { traceSetSpte } from '../mmutrace.ts';
import { isNoslotPfn } from '../pfn.ts';
import { RET_PF_EMULATE, RET_PF_FIXED, RET_PF_SPURIOUS, RET_PF_WRITE_PROTECTED } from '../ret-pf.ts';
import { ACC_WRITE_MASK, ROLE_AD_DISABLED, roleAccess, roleLevel } from '../role.ts';
import { isLargePte, isShadowPresent, sptePfn } from '../spte.ts';
import { flushRemoteTlbsGfn } from '../tlb-flush.ts';
import { dropSpte, rmapAdd } from './rmap.ts';
import { mmuSpteUpdate } from './spte-store.ts';
import { markMmioSpte } from './sync.ts';
import { pageGetGfn, pageSetAccess, spteIndexOf, sptepToSp } from './translation.ts';
import { dropParentPte } from './zap-page.ts';

/** Entries that are looked at together when one is filled. @kvm mmu.c PTE_PREFETCH_NUM */
export const PTE_PREFETCH_NUM = 8;

/** @param fault null for an entry that is filled ahead of its use. @kvm mmu.c mmu_set_spte */
export function mmuSetSpte(
  vcpu: VcpuState,
  slot: Memslot | null,
  sptep: number,
  access: number,
  gfn: number,
  pfn: number,
  fault: PageFault | null,
): number {
  const vm = vcpu.vm;
  const i32 = vm.memory.i32;
  const sp = sptepToSp(vm, sptep);
  const level = roleLevel(sp.role);
  const oldLo = i32[sptep]!;
  const oldHi = i32[sptep + 1]!;
  let wasRmapped = false;
  let flush = false;
  const noSlot = isNoslotPfn(pfn);
  if (isShadowPresent(oldLo) && (!noSlot || vm.revision.rules.mmioDropsPresent)) {
    if (level > PG_LEVEL_4K && !isLargePte(oldLo)) {
      dropParentPte(vm, vm.mmu.shadowPage(sptePfn(oldLo, oldHi)), sptep);
      flush = true;
    } else if (pfn !== sptePfn(oldLo, oldHi)) {
      dropSpte(vm, sptep);
      flush = true;
    } else {
      wasRmapped = true;
    }
  }
  if (noSlot) {
    vcpu.stats.pf_mmio_spte_created++;
    markMmioSpte(vcpu, sptep, gfn, access);
    if (flush) flushRemoteTlbsGfn(vm, gfn, level);
    return RET_PF_EMULATE;
  }
  const prefetch = fault === null || fault.prefetch;
  const hostWritable = fault === null || fault.mapWritable;
  const now = i32[sptep]!;
  const wrprot = makeSpte(vcpu, sp.role, slot!, access, gfn, pfn, now, prefetch, true, hostWritable);
  const { lo, hi } = vm.mmu.newSpte;
  let ret = RET_PF_FIXED;
  if (lo === now && hi === i32[sptep + 1]) {
    ret = RET_PF_SPURIOUS;
  } else {
    if (mmuSpteUpdate(vm, sptep, lo, hi)) flush = true;
    if (vm.trace.enabled) traceSetSpte(vm, level, gfn, lo, hi);
  }
  if (wrprot && fault?.write === true) ret = RET_PF_WRITE_PROTECTED;
  if (flush) flushRemoteTlbsGfn(vm, gfn, level);
  if (wasRmapped) pageSetAccess(vm, sp, spteIndexOf(sptep), access);
  else rmapAdd(vm, slot!, sptep, gfn, access);
  return ret;
}

/** The slot, unless it goes, or its log would count pages that nobody wrote. @kvm mmu.c gfn_to_memslot_dirty_bitmap */
export function slotToPrefetch(vcpu: VcpuState, gfn: number, access: number): Memslot | null {
  const slot = vcpuGfnToMemslot(vcpu, gfn);
  if (slot === null || (slot.flags & KVM_MEMSLOT_INVALID) !== 0) return null;
  return (access & ACC_WRITE_MASK) !== 0 && kvmSlotDirtyTrackEnabled(slot) ? null : slot;
}

/** The frame behind `gfn` if the host maps it writable right now, else -1. @kvm kvm_main.c gfn_to_pfn_memslot_atomic */
export function pfnToPrefetch(vcpu: VcpuState, slot: Memslot, gfn: number): number {
  const hva = gfnToHva(slot, gfn, true);
  return hva < 0 ? -1 : getUserPageFastOnly(vcpu.vm.mm, loOf(hva), hiOf(hva), true);
}

/** Entries [start, end) of a direct page; false when there is nothing there to map. @kvm mmu.c direct_pte_prefetch_many */
function directPrefetchMany(vcpu: VcpuState, start: number, end: number): boolean {
  const sp = sptepToSp(vcpu.vm, start);
  const access = roleAccess(sp.role);
  let gfn = pageGetGfn(sp, spteIndexOf(start));
  const slot = slotToPrefetch(vcpu, gfn, access);
  if (slot === null || gfn + (end - start) / 2 > slot.baseGfn + slot.npages) return false;
  for (let sptep = start; sptep < end; sptep += 2) {
    const pfn = pfnToPrefetch(vcpu, slot, gfn);
    if (pfn < 0) return sptep > start;
    mmuSetSpte(vcpu, slot, sptep, access, gfn, pfn, null);
    gfn++;
  }
  return true;
}

/** Not without A bits, as nobody could tell which of them were used, and not during an invalidation. @kvm mmu.c direct_pte_prefetch */
export function directPtePrefetch(vcpu: VcpuState, sptep: number): void {
  const vm = vcpu.vm;
  const { role } = sptepToSp(vm, sptep);
  if ((role & ROLE_AD_DISABLED) !== 0 || roleLevel(role) > PG_LEVEL_4K || vm.mmuInvalidateInProgress !== 0) return;
  directPtePrefetchAround(vcpu, sptep);
}

/** Fills the empty entries among the eight around `sptep`, which the fault itself filled. @kvm mmu.c __direct_pte_prefetch */
export function directPtePrefetchAround(vcpu: VcpuState, sptep: number): void {
  const vm = vcpu.vm;
  const first = sptep & ~(2 * PTE_PREFETCH_NUM - 1);
  const end = first + 2 * PTE_PREFETCH_NUM;
  let start = -1;
  for (let at = first; at < end; at += 2) {
    if (isShadowPresent(vm.memory.i32[at]!) || at === sptep) {
      if (start >= 0 && !directPrefetchMany(vcpu, start, at)) return;
      start = -1;
    } else if (start < 0) {
      start = at;
    }
  }
  if (start >= 0) directPrefetchMany(vcpu, start, end);
}
