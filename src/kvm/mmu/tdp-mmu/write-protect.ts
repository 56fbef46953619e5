/** Taking write access, or the dirty bit, for the dirty log (@kvm tdp_mmu.c wrprot_gfn_range, clear_dirty_gfn_range, write_protect_gfn). */
import { PG_LEVEL_4K, PT_WRITABLE_MASK } from '../../../arch/paging.ts';
import { LOCK_MMU, LOCK_MMU_WRITE } from '../../locks.ts';
import type { Memslot } from '../../memslots/memslots.ts';
import type { VmState } from '../../vm-state.ts';
import { setPfnDirty } from '../host-page.ts';
import { traceSpteChanged } from '../mmutrace.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isLastSpte, isShadowPresent, sptePfn } from '../spte.ts';
import { iterSetSpte, setSpteAtomic } from './changed-spte.ts';
import { tdpMmuRoots } from './roots.ts';
import { writeSpte } from './write-spte.ts';

/** Takes `bit` from every leaf of the slot at or above `minLevel`. Answers whether one had it. */
function clearBitOfSlot(vm: VmState, slot: Memslot, minLevel: number, bit: number): boolean {
  vm.locks.assertHeld(LOCK_MMU);
  const iter = vm.mmu.iter;
  const end = slot.baseGfn + slot.npages;
  let changed = false;
  for (const root of tdpMmuRoots(vm, slot.asId, true)) {
    for (iter.start(root, minLevel, slot.baseGfn); iter.valid && iter.gfn < end; iter.next()) {
      while (isShadowPresent(iter.oldLo) && isLastSpte(iter.oldLo, iter.level) && (iter.oldLo & bit) !== 0) {
        if (setSpteAtomic(vm, iter, iter.oldLo & ~bit, iter.oldHi) === 0) {
          changed = true;
          break;
        }
      }
    }
  }
  return changed;
}

/** @kvm tdp_mmu.c kvm_tdp_mmu_wrprot_slot */
export function wrprotSlot(vm: VmState, slot: Memslot, minLevel: number): boolean {
  return clearBitOfSlot(vm, slot, minLevel, PT_WRITABLE_MASK);
}

/** The bit whose loss makes the next write visible: D, or W where the hardware has no D. */
function dirtyBit(vm: VmState): number {
  return vm.mmu.masks.dirty !== 0 ? vm.mmu.masks.dirty : PT_WRITABLE_MASK;
}

/** The processor's log sees the next write to each page. @kvm tdp_mmu.c kvm_tdp_mmu_clear_dirty_slot */
export function clearDirtySlot(vm: VmState, slot: Memslot): boolean {
  return clearBitOfSlot(vm, slot, PG_LEVEL_4K, dirtyBit(vm));
}

/** Index of the lowest bit of a 64-bit mask that is not 0. */
export function lowestBit(lo: number, hi: number): number {
  return lo !== 0 ? 31 - Math.clz32(lo & -lo) : 63 - Math.clz32(hi & -hi);
}

/** Index of the highest bit of a 64-bit mask that is not 0. */
export function highestBit(lo: number, hi: number): number {
  return hi !== 0 ? 63 - Math.clz32(hi) : 31 - Math.clz32(lo);
}

function clearDirtyPtMaskedRoot(
  vm: VmState,
  root: ShadowPage,
  gfn: number,
  maskLo: number,
  maskHi: number,
  bit: number,
): void {
  const iter = vm.mmu.iter;
  const m = vm.memory.i32;
  let lo = maskLo;
  let hi = maskHi;
  for (iter.start(root, 1, gfn + lowestBit(lo, hi)); iter.valid && iter.gfn < gfn + 64; iter.next()) {
    if (!isShadowPresent(iter.oldLo) || !isLastSpte(iter.oldLo, iter.level)) continue;
    if ((lo | hi) === 0) break;
    const n = iter.gfn - gfn;
    // A huge page that starts before the mask's range is left alone, as every huge page is.
    if (iter.level > 1 || n < 0) continue;
    if (((n < 32 ? lo >>> n : hi >>> (n - 32)) & 1) === 0) continue;
    if (n < 32) lo &= ~(1 << n);
    else hi &= ~(1 << (n - 32));
    if ((iter.oldLo & bit) === 0) continue;
    const newLo = iter.oldLo & ~bit;
    writeSpte(m, iter.sptep, newLo, iter.oldHi);
    if (vm.trace.enabled) {
      traceSpteChanged(vm, iter.asId, iter.gfn, iter.level, iter.oldLo, iter.oldHi, newLo, iter.oldHi);
    }
    setPfnDirty(vm, sptePfn(iter.oldLo, iter.oldHi));
  }
}

/**
 * For each bit of the 64-bit mask whose 4 KiB entry is there: takes its write access (`wrprot`) or its dirty bit. Bit 0 is `gfn`.
 * @kvm tdp_mmu.c kvm_tdp_mmu_clear_dirty_pt_masked
 */
export function clearDirtyPtMasked(
  vm: VmState,
  slot: Memslot,
  gfn: number,
  maskLo: number,
  maskHi: number,
  wrprot: boolean,
): void {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  const bit = wrprot ? PT_WRITABLE_MASK : dirtyBit(vm);
  for (const root of tdpMmuRoots(vm, slot.asId, true)) clearDirtyPtMaskedRoot(vm, root, gfn, maskLo, maskHi, bit);
}

/**
 * Takes write access from what maps `gfn` at or above `minLevel` for good: MMU-writable goes too. Answers whether anything changed.
 * @kvm tdp_mmu.c kvm_tdp_mmu_write_protect_gfn
 */
export function writeProtectGfn(vm: VmState, slot: Memslot, gfn: number, minLevel: number): boolean {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  const iter = vm.mmu.iter;
  const m = vm.mmu.masks;
  let changed = false;
  for (const root of tdpMmuRoots(vm, slot.asId, true)) {
    for (iter.start(root, minLevel, gfn); iter.valid && iter.gfn < gfn + 1; iter.next()) {
      if (!isShadowPresent(iter.oldLo) || !isLastSpte(iter.oldLo, iter.level)) continue;
      const newLo = iter.oldLo & ~(PT_WRITABLE_MASK | m.mmuWritableLo);
      const newHi = iter.oldHi & ~m.mmuWritableHi;
      if (newLo === iter.oldLo && newHi === iter.oldHi) break;
      iterSetSpte(vm, iter, newLo, newHi);
      changed = true;
    }
  }
  return changed;
}
