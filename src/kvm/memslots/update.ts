/**
 * What the stages of a slot update (actors/memslot-update.ts) are made of: the two halves of a swap of the active slots, preparing the new slot,
 * and what follows when it is there (@kvm kvm_main.c kvm_set_memslot).
 */
import { dirtyBitmapBytes, useDirtyBitmap } from '../dirty/dirty-bitmap.ts';
import { gmemUnbind } from '../guest-memfd/guest-memfd.ts';
import { archCommitMemoryRegion, archCreateMemslot } from '../mmu/slot-hooks.ts';
import type { VmState } from '../vm-state.ts';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEMSLOT_INVALID, Memslot, type MemslotChange } from './memslot.ts';

/** The first half of a swap: readers see `next` instead of `old`, and that an update is in flight. */
export function beginSwap(vm: VmState, asId: number, old: Memslot | null, next: Memslot | null): void {
  if (vm.notifier.activeInvalidateCount !== 0) {
    // The kernel waits here: starts and ends of invalidations must see the same slots.
    throw new Error('slots cannot change while an MMU notifier invalidation is under way');
  }
  const set = vm.slots.sets[asId]!;
  set.replace(old, next);
  set.updateInProgress = true;
}

/** The generation that the set has after the swap that is in flight. */
export function nextGeneration(vm: VmState, asId: number): number {
  return vm.slots.sets[asId]!.generation + vm.slots.count;
}

/** The second half: nobody uses what was replaced any more; the generation moves on and MMIO caches go stale. */
export function endSwap(vm: VmState, asId: number): void {
  const set = vm.slots.sets[asId]!;
  set.generation = nextGeneration(vm, asId);
  set.updateInProgress = false;
}

/** The copy of a slot under which the MMU drops all that it has of it. @kvm kvm_main.c kvm_invalidate_memslot */
export function invalidCopy(old: Memslot): Memslot {
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
  return invalid;
}

/** Gives the new slot its bitmap and its MMU part. @kvm kvm_main.c kvm_prepare_memory_region */
export function prepareMemoryRegion(
  vm: VmState,
  old: Memslot | null,
  next: Memslot | null,
  change: MemslotChange,
): number {
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

/** The change is done; what it means for the mappings of the slot comes after. @kvm kvm_main.c kvm_commit_memory_region */
export function commitMemoryRegion(
  vm: VmState,
  old: Memslot | null,
  next: Memslot | null,
  change: MemslotChange,
): void {
  if (change === 'delete') vm.slots.nrMemslotPages -= old!.npages;
  else if (change === 'create') vm.slots.nrMemslotPages += next!.npages;
  const oldLogs = old === null ? 0 : old.flags & KVM_MEM_LOG_DIRTY_PAGES;
  const newLogs = next === null ? 0 : next.flags & KVM_MEM_LOG_DIRTY_PAGES;
  if (oldLogs !== newLogs) vm.slots.nrDirtyLogging += newLogs !== 0 ? 1 : -1;
  archCommitMemoryRegion(vm, change);
  if (change === 'delete') gmemUnbind(old!);
}
