/**
 * Carrying out a slot update (@kvm kvm_main.c kvm_set_memslot). A slot that is deleted or moved is first replaced by an INVALID copy,
 * under which the MMU drops everything it has of the slot; each replacement moves the generation on.
 */
import { dirtyBitmapBytes, useDirtyBitmap } from '../dirty/dirty-bitmap.ts';
import { gmemUnbind } from '../guest-memfd/guest-memfd.ts';
import { LOCK_SLOTS_ARCH } from '../locks.ts';
import {
  archCommitMemoryRegion,
  archCreateMemslot,
  archFlushShadowMemslot,
  invalidateMmioSptes,
} from '../mmu/slot-hooks.ts';
import type { VmState } from '../vm-state.ts';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEMSLOT_INVALID, Memslot, type MemslotChange } from './memslot.ts';

/** The first half of an update: readers see `next` instead of `old`, and that an update is in flight. */
function beginSwap(vm: VmState, asId: number, old: Memslot | null, next: Memslot | null): void {
  if (vm.notifier.activeInvalidateCount !== 0) {
    // The kernel waits here: starts and ends of invalidations must see the same slots.
    throw new Error('slots cannot change while an MMU notifier invalidation is under way');
  }
  const set = vm.slots.sets[asId]!;
  set.replace(old, next);
  set.updateInProgress = true;
}

/** The second half: nobody uses what was replaced any more; the generation moves on and MMIO caches go stale. */
function endSwap(vm: VmState, asId: number): void {
  const set = vm.slots.sets[asId]!;
  const generation = set.generation + vm.slots.count;
  invalidateMmioSptes(vm, generation);
  set.generation = generation;
  set.updateInProgress = false;
}

/** @kvm kvm_main.c kvm_swap_active_memslots; drops slots_arch_lock. */
function swapActive(vm: VmState, asId: number, old: Memslot | null, next: Memslot | null): void {
  beginSwap(vm, asId, old, next);
  vm.locks.release(LOCK_SLOTS_ARCH);
  endSwap(vm, asId);
}

/** @kvm kvm_main.c kvm_invalidate_memslot */
function invalidateMemslot(vm: VmState, old: Memslot): Memslot {
  const invalid = new Memslot(
    old.id,
    old.asId,
    old.baseGfn,
    old.npages,
    old.flags | KVM_MEMSLOT_INVALID,
    old.userspaceAddr,
  );
  invalid.dirtyBitmap = old.dirtyBitmap;
  invalid.arch = old.arch;
  swapActive(vm, old.asId, old, invalid);
  archFlushShadowMemslot(vm, old);
  vm.locks.acquire(LOCK_SLOTS_ARCH);
  return invalid;
}

/** Gives the new slot its bitmap and its MMU part. @kvm kvm_main.c kvm_prepare_memory_region */
function prepareMemoryRegion(vm: VmState, old: Memslot | null, next: Memslot | null, change: MemslotChange): number {
  if (next === null) return 0;
  if ((next.flags & KVM_MEM_LOG_DIRTY_PAGES) === 0) {
    next.dirtyBitmap = null;
  } else if (old !== null && old.dirtyBitmap !== null) {
    next.dirtyBitmap = old.dirtyBitmap;
  } else if (useDirtyBitmap(vm)) {
    next.dirtyBitmap = new Uint8Array(dirtyBitmapBytes(next.npages));
    if ((vm.manualDirtyLogProtect & 2) !== 0) setAllPages(next.dirtyBitmap, next.npages);
  }
  if (change === 'flags-only') {
    next.arch = old!.arch;
    return 0;
  }
  return archCreateMemslot(vm, next);
}

function setAllPages(bitmap: Uint8Array, npages: number): void {
  bitmap.fill(0xff, 0, npages >>> 3);
  if ((npages & 7) !== 0) bitmap[npages >>> 3] = (1 << (npages & 7)) - 1;
}

/** @kvm kvm_main.c kvm_commit_memory_region */
function commitMemoryRegion(vm: VmState, old: Memslot | null, next: Memslot | null, change: MemslotChange): void {
  if (change === 'delete') vm.slots.nrMemslotPages -= old!.npages;
  else if (change === 'create') vm.slots.nrMemslotPages += next!.npages;
  const oldLogs = old === null ? 0 : old.flags & KVM_MEM_LOG_DIRTY_PAGES;
  const newLogs = next === null ? 0 : next.flags & KVM_MEM_LOG_DIRTY_PAGES;
  if (oldLogs !== newLogs) vm.slots.nrDirtyLogging += newLogs !== 0 ? 1 : -1;
  archCommitMemoryRegion(vm, old, next, change);
  if (change === 'delete') gmemUnbind(old!);
}

/**
 * Creates (`old` null), deletes (`next` null), moves, or changes the flags of a slot. Caller holds slots_lock.
 * @returns 0 or -errno; on an error the old slot is as it was.
 * @kvm kvm_main.c kvm_set_memslot
 */
export function setMemslot(vm: VmState, old: Memslot | null, next: Memslot | null, change: MemslotChange): number {
  vm.locks.acquire(LOCK_SLOTS_ARCH);
  const asId = (old ?? next)!.asId;
  const invalid = change === 'delete' || change === 'move' ? invalidateMemslot(vm, old!) : null;
  const r = prepareMemoryRegion(vm, old, next, change);
  if (r !== 0) {
    if (invalid !== null) swapActive(vm, asId, invalid, old);
    else vm.locks.release(LOCK_SLOTS_ARCH);
    return r;
  }
  swapActive(vm, asId, invalid ?? old, next);
  commitMemoryRegion(vm, old, next, change);
  return 0;
}
