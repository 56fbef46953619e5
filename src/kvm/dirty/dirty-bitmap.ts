/** Dirty logging by bitmap: KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG (@kvm kvm_main.c kvm_get_dirty_log_protect). */
import { EINVAL, ENOENT, ENXIO } from '../../host/errno.ts';
import { runActor } from '../actors/actor.ts';
import { DirtyLogHarvest, dirtyLogStages } from '../actors/dirty-log.ts';
import { LOCK_SLOTS } from '../locks.ts';
import { KVM_USER_MEM_SLOTS, type Memslot } from '../memslots/memslot.ts';
import type { VmState } from '../vm-state.ts';

/** Bits of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2. */
export const KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1 << 0;
export const KVM_DIRTY_LOG_INITIALLY_SET = 1 << 1;

/** Caller holds slots_lock. @kvm dirty_ring.c kvm_use_dirty_bitmap */
export function useDirtyBitmap(vm: VmState): boolean {
  vm.locks.assertHeld(LOCK_SLOTS);
  return vm.dirtyRingSize === 0 || vm.dirtyRingWithBitmap;
}

/** @kvm kvm_host.h kvm_dirty_bitmap_bytes: whole 64-bit words. */
export function dirtyBitmapBytes(npages: number): number {
  return Math.ceil(npages / 64) * 8;
}

/** The slot that an ioctl names, if it has a bitmap; or -EINVAL, -ENOENT. */
function loggedSlot(vm: VmState, slot: number): Memslot | number {
  const asId = slot >>> 16;
  const id = slot & 0xffff;
  if (asId >= vm.slots.count || id >= KVM_USER_MEM_SLOTS) return -EINVAL;
  const memslot = vm.slots.sets[asId]!.idToMemslot(id);
  return memslot === null || memslot.dirtyBitmap === null ? -ENOENT : memslot;
}

function locked<T>(vm: VmState, fn: () => T): T {
  vm.locks.acquire(LOCK_SLOTS);
  const result = fn();
  vm.locks.release(LOCK_SLOTS);
  return result;
}

/**
 * A copy of the slot's bitmap. Without manual protection its pages are write-protected again and the log starts anew.
 * @returns the bitmap, -ENXIO (the ring is used instead), -EINVAL (slot id), -ENOENT (no such slot, or not logged)
 * @kvm kvm_main.c kvm_get_dirty_log_protect
 */
export function getDirtyLog(vm: VmState, slot: number): Uint8Array | number {
  return locked(vm, () => getDirtyLogLocked(vm, slot));
}

function getDirtyLogLocked(vm: VmState, slot: number): Uint8Array | number {
  if (!useDirtyBitmap(vm)) return -ENXIO;
  const memslot = loggedSlot(vm, slot);
  if (typeof memslot === 'number') return memslot;
  if (vm.manualDirtyLogProtect !== 0) return memslot.dirtyBitmap!.slice();
  const copy = new Uint8Array(memslot.dirtyBitmap!.length).fill(0xff);
  runActor(dirtyLogStages, new DirtyLogHarvest(vm, memslot, 0, new Int32Array(copy.buffer)));
  return copy;
}

/** Arguments of KVM_CLEAR_DIRTY_LOG. */
export interface ClearDirtyLog {
  readonly slot: number;
  /** A multiple of 64. */
  readonly firstPage: number;
  /** A multiple of 64, unless it reaches the end of the slot. */
  readonly numPages: number;
  /** Pages to clear: bit 0 of byte 0 is `firstPage`. Shorter than needed reads as zeros. */
  readonly bitmap: Uint8Array;
}

/**
 * Clears bits of the slot's bitmap and write-protects the pages that were set.
 * @returns 0, -ENXIO (the ring is used instead), -EINVAL (slot id, page range), -ENOENT (no such slot, or not logged)
 * @kvm kvm_main.c kvm_clear_dirty_log_protect
 */
export function clearDirtyLog(vm: VmState, log: ClearDirtyLog): number {
  return locked(vm, () => clearDirtyLogLocked(vm, log));
}

function clearDirtyLogLocked(vm: VmState, log: ClearDirtyLog): number {
  if (!useDirtyBitmap(vm)) return -ENXIO;
  if (log.slot >>> 16 >= vm.slots.count || (log.slot & 0xffff) >= KVM_USER_MEM_SLOTS) return -EINVAL;
  if (log.firstPage % 64 !== 0) return -EINVAL;
  const memslot = loggedSlot(vm, log.slot);
  if (typeof memslot === 'number') return memslot;
  const left = memslot.npages - log.firstPage;
  if (left < 0 || log.numPages > left || (log.numPages < left && log.numPages % 64 !== 0)) return -EINVAL;
  const asked = new Uint8Array(dirtyBitmapBytes(log.numPages));
  asked.set(log.bitmap.subarray(0, asked.length));
  runActor(dirtyLogStages, new DirtyLogHarvest(vm, memslot, log.firstPage, new Int32Array(asked.buffer)));
  return 0;
}
