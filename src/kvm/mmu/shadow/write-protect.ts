/** Taking write access from leaves, for good or until the page is dirty again (@kvm mmu.c spte_write_protect, rmap_write_protect). */
import { PT_WRITABLE_MASK } from '../../../arch/paging.ts';
import type { Memslot } from '../../memslots/memslots.ts';
import type { VmState } from '../../vm-state.ts';
import { KVM_MAX_HUGEPAGE_LEVEL } from '../lpage-info.ts';
import { isMmuWritable, isWritable, SPTE_TDP_AD_MASK_HI } from '../spte.ts';
import { writeProtectGfn } from '../tdp-mmu/write-protect.ts';
import { memslotsHaveRmaps, rmapEntries } from './rmap.ts';
import { mmuSpteUpdate } from './spte-store.ts';

/** @param ptProtect the page holds a table that is shadowed: MMU-writable goes too. True when TLBs must be flushed. @kvm mmu.c spte_write_protect */
function spteWriteProtect(vm: VmState, sptep: number, ptProtect: boolean): boolean {
  const m = vm.mmu.masks;
  const lo = vm.memory.i32[sptep]!;
  const hi = vm.memory.i32[sptep + 1]!;
  if (!isWritable(lo) && !(ptProtect && isMmuWritable(m, lo, hi))) return false;
  const newLo = ptProtect ? lo & ~m.mmuWritableLo : lo;
  const newHi = ptProtect ? hi & ~m.mmuWritableHi : hi;
  return mmuSpteUpdate(vm, sptep, newLo & ~PT_WRITABLE_MASK, newHi);
}

/** @kvm mmu.c rmap_write_protect */
function rmapWriteProtect(vm: VmState, sptes: readonly number[], ptProtect: boolean): boolean {
  let flush = false;
  for (const sptep of sptes) if (spteWriteProtect(vm, sptep, ptProtect)) flush = true;
  return flush;
}

/** For the dirty log: the next write to what these leaves map faults. @kvm mmu.c slot_rmap_write_protect */
export function rmapWriteProtectForLog(vm: VmState, sptes: readonly number[]): boolean {
  return rmapWriteProtect(vm, sptes, false);
}

/**
 * For the processor's own log: the dirty bit goes, or the right to write where there is none. True when TLBs must be flushed.
 * @kvm mmu.c __rmap_clear_dirty
 */
export function rmapClearDirty(vm: VmState, sptes: readonly number[]): boolean {
  const { dirty } = vm.mmu.masks;
  let flush = false;
  for (const sptep of sptes) {
    const lo = vm.memory.i32[sptep]!;
    const hi = vm.memory.i32[sptep + 1]!;
    const bit = (hi & SPTE_TDP_AD_MASK_HI) !== 0 || dirty === 0 ? PT_WRITABLE_MASK : dirty;
    if ((lo & bit) !== 0 && mmuSpteUpdate(vm, sptep, lo & ~bit, hi)) flush = true;
  }
  return flush;
}

/**
 * Nothing maps `gfn` writable at or above `minLevel` any more, in either MMU. Answers whether something did.
 * @kvm mmu.c kvm_mmu_slot_gfn_write_protect
 */
export function slotGfnWriteProtect(vm: VmState, slot: Memslot, gfn: number, minLevel: number): boolean {
  let done = false;
  if (memslotsHaveRmaps(vm)) {
    for (let level = minLevel; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
      if (rmapWriteProtect(vm, rmapEntries(vm, slot, gfn, level), true)) done = true;
    }
  }
  if (vm.mmu.tdpMmuEnabled && writeProtectGfn(vm, slot, gfn, minLevel)) done = true;
  return done;
}
