/** Arming the dirty log again for pages that were reported or cleared (@kvm mmu.c kvm_arch_mmu_enable_log_dirty_pt_masked). */
import { PG_LEVEL_2M, PG_LEVEL_4K } from '../../arch/paging.ts';
import type { Memslot } from '../memslots/memslots.ts';
import type { VmState } from '../vm-state.ts';
import { memslotsHaveRmaps, rmapEntries } from './shadow/rmap.ts';
import { rmapTrySplitHugePages } from './shadow/slot-range.ts';
import { rmapClearDirty, rmapWriteProtectForLog, slotGfnWriteProtect } from './shadow/write-protect.ts';
import { pagesPerLevel } from './tdp-iter.ts';
import { trySplitHugePages } from './tdp-mmu/split.ts';
import { clearDirtyPtMasked, highestBit, lowestBit } from './tdp-mmu/write-protect.ts';

/** KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 with both of its bits (@kvm kvm_host.h kvm_dirty_log_manual_protect_and_init_set). */
export function dirtyLogManualProtectAndInitSet(vm: VmState): boolean {
  return (vm.manualDirtyLogProtect & 2) !== 0;
}

/**
 * Takes write access, or with a log in the processor (`wrprot` false) the dirty bit.
 * @kvm mmu.c kvm_mmu_write_protect_pt_masked, kvm_mmu_clear_dirty_pt_masked
 */
function armPtMasked(vm: VmState, slot: Memslot, gfn: number, maskLo: number, maskHi: number, wrprot: boolean): void {
  if (vm.mmu.tdpMmuEnabled) clearDirtyPtMasked(vm, slot, gfn, maskLo, maskHi, wrprot);
  if (!memslotsHaveRmaps(vm)) return;
  const arm = wrprot ? rmapWriteProtectForLog : rmapClearDirty;
  for (let i = 0; i < 64; i++) {
    const bit = i < 32 ? maskLo >>> i : maskHi >>> (i - 32);
    if ((bit & 1) !== 0) arm(vm, rmapEntries(vm, slot, gfn + i, PG_LEVEL_4K));
  }
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
    if (vm.mmu.eagerPageSplit && vm.mmu.tdpMmuEnabled) {
      if (memslotsHaveRmaps(vm)) rmapTrySplitHugePages(vm, slot, start, end + 1, PG_LEVEL_4K);
      trySplitHugePages(vm, slot, start, end + 1, PG_LEVEL_4K, false);
    }
    slotGfnWriteProtect(vm, slot, start, PG_LEVEL_2M);
    const n = pagesPerLevel(PG_LEVEL_2M);
    if (Math.ceil(start / n) !== Math.ceil(end / n)) slotGfnWriteProtect(vm, slot, end, PG_LEVEL_2M);
  }
  armPtMasked(vm, slot, gfn, maskLo, maskHi, vm.vendor.cpuDirtyLogSize === 0);
}

/**
 * Before the log is read: what the hardware has logged on its own is taken in, which every exit does already (@kvm x86.c
 * kvm_arch_sync_dirty_log).
 */
export function syncDirtyLog(_vm: VmState, _slot: Memslot): void {}
