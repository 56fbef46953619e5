/**
 * The begin/end protocol that every invalidation follows, whoever starts it: a fault that took its snapshot of `mmuInvalidateSeq` before
 * sees the change and retries (@kvm kvm_main.c kvm_mmu_invalidate_begin).
 */
import { LOCK_MMU_WRITE } from './locks.ts';
import type { Memslot } from './memslots/memslot.ts';
import { unmapGfnRange } from './mmu/notifier-handlers.ts';
import type { VmState } from './vm-state.ts';

export { KVM_FILTER_PRIVATE, KVM_FILTER_SHARED } from './notifier-filter.ts';

/** A part of one slot that a handler works on. @kvm kvm_host.h struct kvm_gfn_range */
export interface GfnRange {
  slot: Memslot;
  /** First frame, and one past the last. */
  start: number;
  end: number;
  /** The attributes being set, for the attribute hooks. */
  attributes: number;
  /** KVM_FILTER_* bits; 0 means both. */
  attrFilter: number;
  mayBlock: boolean;
}

export type GfnHandler = (vm: VmState, range: GfnRange) => boolean;

/** Caller holds mmu_lock for write. @kvm kvm_main.c kvm_mmu_invalidate_begin */
export function mmuInvalidateBegin(vm: VmState): void {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  vm.mmuInvalidateInProgress++;
  if (vm.mmuInvalidateInProgress === 1) {
    vm.mmuInvalidateRangeStart = -1;
    vm.mmuInvalidateRangeEnd = -1;
  }
}

/** Ranges invalidated together are kept as the one range that covers them. @kvm kvm_main.c kvm_mmu_invalidate_range_add */
export function mmuInvalidateRangeAdd(vm: VmState, start: number, end: number): void {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  vm.log.warnOnOnce(vm.mmuInvalidateInProgress === 0, 'kvm_mmu_invalidate_range_add', 'no invalidation in progress');
  if (vm.mmuInvalidateRangeStart === -1) {
    vm.mmuInvalidateRangeStart = start;
    vm.mmuInvalidateRangeEnd = end;
  } else {
    vm.mmuInvalidateRangeStart = Math.min(vm.mmuInvalidateRangeStart, start);
    vm.mmuInvalidateRangeEnd = Math.max(vm.mmuInvalidateRangeEnd, end);
  }
}

/** Caller holds mmu_lock for write. @kvm kvm_main.c kvm_mmu_invalidate_end */
export function mmuInvalidateEnd(vm: VmState): void {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  vm.mmuInvalidateSeq++;
  vm.mmuInvalidateInProgress--;
  vm.log.kvmBugOn(vm.mmuInvalidateInProgress < 0, 'kvm_mmu_invalidate_end', 'more ends than begins');
  vm.log.warnOnOnce(vm.mmuInvalidateRangeStart === -1, 'kvm_mmu_invalidate_end', 'no range was added');
}

/**
 * A mapping of `gfn` prepared since the snapshot `seq` must not be installed. Caller holds mmu_lock.
 * @kvm kvm_host.h mmu_invalidate_retry_gfn. HOT
 */
export function mmuInvalidateRetryGfn(vm: VmState, seq: number, gfn: number): boolean {
  if (vm.mmuInvalidateInProgress !== 0) {
    if (vm.mmuInvalidateRangeStart === -1) {
      vm.log.warnOnOnce(true, 'mmu_invalidate_retry_gfn', 'invalidation in progress without a range');
      return true;
    }
    if (gfn >= vm.mmuInvalidateRangeStart && gfn < vm.mmuInvalidateRangeEnd) return true;
  }
  return vm.mmuInvalidateSeq !== seq;
}

/**
 * The same test without mmu_lock: a false alarm costs a retry, a miss is caught later under the lock.
 * @kvm kvm_host.h mmu_invalidate_retry_gfn_unsafe. HOT
 */
export function mmuInvalidateRetryGfnUnsafe(vm: VmState, seq: number, gfn: number): boolean {
  if (vm.mmuInvalidateInProgress !== 0 && gfn >= vm.mmuInvalidateRangeStart && gfn < vm.mmuInvalidateRangeEnd)
    return true;
  return vm.mmuInvalidateSeq !== seq;
}

/** Adds the range to the invalidation, then unmaps it. @kvm kvm_main.c kvm_mmu_unmap_gfn_range */
export function mmuUnmapGfnRange(vm: VmState, range: GfnRange): boolean {
  mmuInvalidateRangeAdd(vm, range.start, range.end);
  return unmapGfnRange(vm, range);
}

/** Calls `fn` for the part of each slot that [start, end) (gfns) covers, in every address space. @kvm kvm_main.c kvm_handle_gfn_range */
export function forGfnRanges(vm: VmState, start: number, end: number, fn: (range: GfnRange) => void): void {
  for (let asId = 0; asId < vm.slots.count; asId++) {
    vm.slots.forEachInGfnRange(asId, start, end, (slot) => {
      fn({
        slot,
        start: Math.max(start, slot.baseGfn),
        end: Math.min(end, slot.baseGfn + slot.npages),
        attributes: 0,
        attrFilter: 0,
        mayBlock: true,
      });
    });
  }
}
