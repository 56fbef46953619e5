/** Arming the dirty log again for pages that were reported or cleared (@kvm mmu.c kvm_arch_mmu_enable_log_dirty_pt_masked). */
import { PG_LEVEL_2M, PG_LEVEL_4K } from '../../arch/paging.ts';
import type { Memslot } from '../memslots/memslots.ts';
import type { VmState } from '../vm-state.ts';
import { pagesPerLevel } from './tdp-iter.ts';
import { trySplitHugePages } from './tdp-mmu/split.ts';
import { clearDirtyPtMasked, highestBit, lowestBit, writeProtectGfn } from './tdp-mmu/write-protect.ts';

/** KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 with both of its bits (@kvm kvm_host.h kvm_dirty_log_manual_protect_and_init_set). */
export function dirtyLogManualProtectAndInitSet(vm: VmState): boolean {
  return (vm.manualDirtyLogProtect & 2) !== 0;
}

/**
 * The next write to each page whose bit is set faults, so that it is seen. Bit 0 of the 64-bit mask (halves, not 0) is the slot's page
 * `gfnOffset`. mmu_lock held for write; the caller flushes.
 * @kvm mmu.c kvm_arch_mmu_enable_log_dirty_pt_masked
 */
export function enableLogDirtyPtMasked(
  vm: VmState,
  slot: Memslot,
  gfnOffset: number,
  maskLo: number,
  maskHi: number,
): void {
  const gfn = slot.baseGfn + gfnOffset;
  if (dirtyLogManualProtectAndInitSet(vm)) {
    // Pages count as dirty from the start, so huge pages were not split when logging began: now they must be.
    const start = gfn + lowestBit(maskLo, maskHi);
    const end = gfn + highestBit(maskLo, maskHi);
    if (vm.mmu.eagerPageSplit) trySplitHugePages(vm, slot, start, end + 1, PG_LEVEL_4K, false);
    writeProtectGfn(vm, slot, start, PG_LEVEL_2M);
    const n = pagesPerLevel(PG_LEVEL_2M);
    if (Math.ceil(start / n) !== Math.ceil(end / n)) writeProtectGfn(vm, slot, end, PG_LEVEL_2M);
  }
  clearDirtyPtMasked(vm, slot, gfn, maskLo, maskHi, true);
}

/** Before the log is read: what the hardware has logged on its own is taken in. NPT has no such log (@kvm x86.c kvm_arch_sync_dirty_log). */
export function syncDirtyLog(_vm: VmState, _slot: Memslot): void {}
