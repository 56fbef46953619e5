/** What the MMU does when slots change (@kvm mmu.c kvm_arch_flush_shadow_memslot, x86.c kvm_arch_commit_memory_region). */
import { PG_LEVEL_4K } from '../../arch/paging.ts';
import { EINVAL } from '../../host/errno.ts';
import { LOCK_MMU_READ, LOCK_MMU_WRITE } from '../locks.ts';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, type Memslot, type MemslotChange } from '../memslots/memslots.ts';
import type { VmState } from '../vm-state.ts';
import { KVM_X86_DEFAULT_VM } from '../vm-type.ts';
import { hasQuirk, KVM_X86_QUIRK_SLOT_ZAP_ALL } from '../x86/vm-x86.ts';
import { dirtyLogManualProtectAndInitSet } from './dirty-log.ts';
import { createSlotArch, KVM_MAX_HUGEPAGE_LEVEL } from './lpage-info.ts';
import { maxGfn } from './max-gfn.ts';
import { initMemslotMemoryAttributes } from './memory-attributes.ts';
import { unmapGfnRange } from './notifier-handlers.ts';
import { changeMmuPages, zapAllShadowPages, zapMemslotPagesAndFlush } from './shadow/recycle.ts';
import { memslotsHaveRmaps, walkSlotRmaps } from './shadow/rmap.ts';
import { rmapTrySplitHugePages, rmapZapCollapsibleSptes } from './shadow/slot-range.ts';
import { rmapWriteProtectForLog } from './shadow/write-protect.ts';
import { MMIO_SPTE_GEN_MASK } from './spte.ts';
import { zapAllRoots } from './tdp-mmu/roots.ts';
import { trySplitHugePages } from './tdp-mmu/split.ts';
import { wrprotSlot } from './tdp-mmu/write-protect.ts';
import { zapCollapsibleSptes } from './tdp-mmu/zap.ts';
import { zapAllFastFrontHalf } from './zap-all-fast.ts';

export { enableLogDirtyPtMasked, syncDirtyLog } from './dirty-log.ts';
export type { SlotArch } from './lpage-info.ts';

/** @kvm kvm_host.h KVM_MEMSLOT_PAGES_TO_MMU_PAGES_RATIO, KVM_MIN_ALLOC_MMU_PAGES */
const SLOT_PAGES_TO_MMU_PAGES = 50;
const MIN_ALLOC_MMU_PAGES = 64;

/** Prepares a new or moved slot. 0, or -EINVAL when it reaches beyond what the tables can map. @kvm x86.c kvm_arch_prepare_memory_region */
export function archCreateMemslot(vm: VmState, slot: Memslot): number {
  if (slot.baseGfn + slot.npages - 1 > maxGfn(vm)) return -EINVAL;
  slot.arch = createSlotArch(slot);
  initMemslotMemoryAttributes(vm, slot);
  return 0;
}

/** Losing one slot drops every mapping of the VM, as userspace came to expect of ordinary VMs. @kvm mmu.c kvm_memslot_flush_zap_all */
export function slotZapsAll(vm: VmState): boolean {
  return vm.type === KVM_X86_DEFAULT_VM && hasQuirk(vm.x86, KVM_X86_QUIRK_SLOT_ZAP_ALL);
}

/**
 * The slot is marked invalid and will go or move: nothing of it stays mapped. With `slotZapsAll` the roots are only made invalid here, and
 * zapped afterwards. mmu_lock held for write. True when TLBs must be flushed. @kvm mmu.c kvm_arch_flush_shadow_memslot
 */
export function archZapMemslot(vm: VmState, slot: Memslot): boolean {
  if (slotZapsAll(vm)) {
    zapAllFastFrontHalf(vm);
    return false;
  }
  const flush = unmapGfnRange(vm, {
    slot,
    start: slot.baseGfn,
    end: slot.baseGfn + slot.npages,
    attributes: 0,
    attrFilter: 0,
    mayBlock: true,
  });
  if (vm.mmu.activePages.newest === null) return flush;
  zapMemslotPagesAndFlush(vm, slot, flush);
  return false;
}

/** The process or the VM goes: nothing at all stays mapped. @kvm mmu.c kvm_arch_flush_shadow_all */
export function archFlushShadowAll(vm: VmState): void {
  vm.locks.acquire(LOCK_MMU_WRITE);
  zapAllShadowPages(vm);
  if (vm.mmu.tdpMmuEnabled) zapAllRoots(vm);
  vm.locks.release(LOCK_MMU_WRITE);
}

/** A slot is there, or gone: the limit of shadow pages follows. @kvm x86.c kvm_arch_commit_memory_region */
export function archCommitMemoryRegion(vm: VmState, change: MemslotChange): void {
  if (vm.mmu.nRequestedMmuPages === 0 && (change === 'create' || change === 'delete')) {
    changeMmuPages(vm, Math.max(Math.floor(vm.slots.nrMemslotPages / SLOT_PAGES_TO_MMU_PAGES), MIN_ALLOC_MMU_PAGES));
  }
}

/** What a change of flags means for the mappings of the slot (@kvm x86.c kvm_mmu_slot_apply_flags). */
export type LogChange = 'none' | 'begins' | 'ends';

/** `old` and `next` are null where there is none. Where every page counts as dirty when logging begins, nothing is to be done yet. */
export function slotLogChange(
  vm: VmState,
  old: Memslot | null,
  next: Memslot | null,
  change: MemslotChange,
): LogChange {
  if (change !== 'flags-only' || next === null || (next.flags & KVM_MEM_READONLY) !== 0) return 'none';
  const same = (((old === null ? 0 : old.flags) ^ next.flags) & KVM_MEM_LOG_DIRTY_PAGES) === 0;
  if (vm.log.warnOnOnce(same, 'kvm_mmu_slot_apply_flags', 'no change')) return 'none';
  if ((next.flags & KVM_MEM_LOG_DIRTY_PAGES) === 0) return 'ends';
  return dirtyLogManualProtectAndInitSet(vm) ? 'none' : 'begins';
}

/** Small pages of a slot that is no longer logged go where a huge one could be. @kvm mmu.c kvm_mmu_zap_collapsible_sptes */
export function collapseAfterLog(vm: VmState, slot: Memslot): void {
  inBothMmus(
    vm,
    () => rmapZapCollapsibleSptes(vm, slot),
    () => zapCollapsibleSptes(vm, slot),
  );
}

/** Huge pages of a slot that is to be logged become small ones, all at once (kvm.eager_page_split). @kvm mmu.c kvm_mmu_slot_try_split_huge_pages */
export function splitForLog(vm: VmState, slot: Memslot): void {
  if (!vm.mmu.eagerPageSplit || !vm.mmu.tdpMmuEnabled) return;
  const end = slot.baseGfn + slot.npages;
  inBothMmus(
    vm,
    () => rmapTrySplitHugePages(vm, slot, slot.baseGfn, end, PG_LEVEL_4K),
    () => trySplitHugePages(vm, slot, slot.baseGfn, end, PG_LEVEL_4K, true),
  );
}

/** The next write to each page of the slot is seen, once TLBs are flushed. @kvm mmu.c kvm_mmu_slot_remove_write_access */
export function writeProtectForLog(vm: VmState, slot: Memslot): void {
  const end = slot.baseGfn + slot.npages;
  inBothMmus(
    vm,
    () => walkSlotRmaps(vm, slot, PG_LEVEL_4K, KVM_MAX_HUGEPAGE_LEVEL, slot.baseGfn, end, rmapWriteProtectForLog),
    () => wrprotSlot(vm, slot, PG_LEVEL_4K),
  );
}

/** Locks that each of these takes, one after the other. */
export function logLocks(vm: VmState): number {
  return (memslotsHaveRmaps(vm) ? LOCK_MMU_WRITE : 0) | (vm.mmu.tdpMmuEnabled ? LOCK_MMU_READ : 0);
}

/** First the shadow MMU's share, under the write lock, then the TDP MMU's, under the read lock; each where there is one. */
function inBothMmus(vm: VmState, shadow: () => void, tdp: () => void): void {
  if (memslotsHaveRmaps(vm)) {
    vm.locks.acquire(LOCK_MMU_WRITE);
    shadow();
    vm.locks.release(LOCK_MMU_WRITE);
  }
  if (vm.mmu.tdpMmuEnabled) {
    vm.locks.acquire(LOCK_MMU_READ);
    tdp();
    vm.locks.release(LOCK_MMU_READ);
  }
}

/**
 * Slots are to have a new generation: when it wraps, MMIO entries of long ago would look fresh, so all must go first. @kvm mmu.c
 * kvm_mmu_invalidate_mmio_sptes
 */
export function mmioGenerationWraps(vm: VmState, generation: number): boolean {
  const mmioGeneration = generation % (MMIO_SPTE_GEN_MASK + 1);
  return mmioGeneration - (mmioGeneration % vm.slots.count) === 0;
}
