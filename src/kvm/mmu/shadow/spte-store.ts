/** Changes of entries under the write lock, and what the host is told of the pages they map (@kvm mmu.c mmu_spte_set, mmu_spte_update). */
import type { VmState } from '../../vm-state.ts';
import { setPfnAccessed, setPfnDirty } from '../host-page.ts';
import { roleLevel } from '../role.ts';
import {
  isAccessedSpte,
  isDirtySpte,
  isMmuWritable,
  isShadowPresent,
  isWritable,
  SHADOW_NONPRESENT_HI,
  SHADOW_NONPRESENT_LO,
  sptePfn,
  spteWritableInvariantsHold,
} from '../spte.ts';
import { updatePageStats } from '../tdp-mmu/changed-spte.ts';
import { writeSpte } from '../tdp-mmu/write-spte.ts';
import { sptepToSp } from './translation.ts';

/** Fills an entry that maps nothing. @kvm mmu.c mmu_spte_set */
export function mmuSpteSet(vm: VmState, sptep: number, lo: number, hi: number): void {
  const i32 = vm.memory.i32;
  vm.log.warnOnOnce(isShadowPresent(i32[sptep]!), 'mmu_spte_set', 'the entry is present');
  writeSpte(i32, sptep, lo, hi);
}

/** @kvm mmu.c mmu_spte_clear_no_track */
export function mmuSpteClearNoTrack(vm: VmState, sptep: number): void {
  writeSpte(vm.memory.i32, sptep, SHADOW_NONPRESENT_LO, SHADOW_NONPRESENT_HI);
}

/** Changes the bits of an entry, not its frame. Answers whether TLBs must be flushed. @kvm mmu.c mmu_spte_update */
export function mmuSpteUpdate(vm: VmState, sptep: number, lo: number, hi: number): boolean {
  const i32 = vm.memory.i32;
  const m = vm.mmu.masks;
  const { log } = vm;
  const oldLo = i32[sptep]!;
  const oldHi = i32[sptep + 1]!;
  log.warnOnOnce(!isShadowPresent(lo), 'mmu_spte_update_no_track', 'the new entry is not present');
  log.warnOnOnce(
    !spteWritableInvariantsHold(m, lo, hi),
    'check_spte_writable_invariants',
    'writable but not MMU-writable',
  );
  if (!isShadowPresent(oldLo)) {
    mmuSpteSet(vm, sptep, lo, hi);
    return false;
  }
  writeSpte(i32, sptep, lo, hi);
  const pfn = sptePfn(oldLo, oldHi);
  log.warnOnOnce(pfn !== sptePfn(lo, hi), 'mmu_spte_update_no_track', 'the frame changed');
  let flush = isMmuWritable(m, oldLo, oldHi) && !isWritable(lo);
  if (isAccessedSpte(m, oldLo, oldHi) && !isAccessedSpte(m, lo, hi)) {
    flush = true;
    setPfnAccessed(vm, pfn);
  }
  if (isDirtySpte(m, oldLo, oldHi) && !isDirtySpte(m, lo, hi)) {
    flush = true;
    setPfnDirty(vm, pfn);
  }
  return flush;
}

/** Clears a leaf and tells the host what it recorded. Answers whether it was present. @kvm mmu.c mmu_spte_clear_track_bits */
export function mmuSpteClearTrackBits(vm: VmState, sptep: number): boolean {
  const i32 = vm.memory.i32;
  const m = vm.mmu.masks;
  const oldLo = i32[sptep]!;
  const oldHi = i32[sptep + 1]!;
  mmuSpteClearNoTrack(vm, sptep);
  if (!isShadowPresent(oldLo)) return false;
  updatePageStats(vm, roleLevel(sptepToSp(vm, sptep).role), -1);
  const pfn = sptePfn(oldLo, oldHi);
  if (isAccessedSpte(m, oldLo, oldHi)) setPfnAccessed(vm, pfn);
  if (isDirtySpte(m, oldLo, oldHi)) setPfnDirty(vm, pfn);
  return true;
}
