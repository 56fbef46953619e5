/**
 * Mirror page tables: where the tables that the processor walks belong to somebody else (the TDX module), KVM keeps a copy in memory of
 * its own and has every change of it made in the external tables as well (@kvm tdp_mmu.c set_external_spte_present,
 * remove_external_spte). None of it concerns other VMs.
 */
import { EBUSY } from '../../../host/errno.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import type { VmState } from '../../vm-state.ts';
import { ROLE_IS_MIRROR } from '../role.ts';
import { FROZEN_SPTE_HI, FROZEN_SPTE_LO, isFrozenSpte, isLastSpte, isShadowPresent, sptePfn } from '../spte.ts';
import type { TdpIter } from '../tdp-iter.ts';
import { writeSpte } from './write-spte.ts';

/** The owner of the external tables. Answers are 0, -EBUSY (try again) or -EIO (the VM is dead). */
export interface ExternalTables {
  /** A table, in frame `spt`, is to hang from the entry of `level` for `gfn`. @kvm kvm-x86-ops.h link_external_spt */
  linkSpt(gfn: number, level: number, spt: number): number;
  /** Frame `pfn` is to be mapped. @kvm kvm-x86-ops.h set_external_spte */
  setSpte(gfn: number, level: number, pfn: number): number;
  /** The table in frame `spt`, of `level`, is no longer used. @kvm kvm-x86-ops.h free_external_spt */
  freeSpt(gfn: number, level: number, spt: number): number;
  /** Frame `pfn` is to be unmapped. @kvm kvm-x86-ops.h remove_external_spte */
  removeSpte(gfn: number, level: number, pfn: number): number;
}

/** @kvm spte.h is_mirror_sptep */
export function isMirrorSptep(vm: VmState, sptep: number): boolean {
  return (vm.mmu.shadowPage(sptep >>> 10).role & ROLE_IS_MIRROR) !== 0;
}

/**
 * Replaces a non-present entry of a mirror by one that maps something: frozen until the external tables have it, so that nobody acts on
 * it meanwhile. 0, or -EBUSY or another error with the entry as it was.
 * @kvm tdp_mmu.c set_external_spte_present
 */
function setExternalSptePresent(vm: VmState, external: ExternalTables, iter: TdpIter, lo: number, hi: number): number {
  const { i32 } = vm.memory;
  const { sptep, oldLo, oldHi, level } = iter;
  vm.log.kvmBugOn(isShadowPresent(oldLo), 'set_external_spte_present', 'a mapped private page replaced');
  writeSpte(i32, sptep, FROZEN_SPTE_LO, FROZEN_SPTE_HI);
  const pfn = sptePfn(lo, hi);
  const ret = isLastSpte(lo, level)
    ? external.setSpte(iter.gfn, level, pfn)
    : external.linkSpt(iter.gfn, level, vm.mmu.shadowPage(pfn).externalSpt);
  if (ret !== 0) writeSpte(i32, sptep, oldLo, oldHi);
  else writeSpte(i32, sptep, lo, hi);
  return ret;
}

/** The store of setSpteAtomic where the entry may be a mirror's: 0, or an error with the entry unchanged. @kvm tdp_mmu.c __tdp_mmu_set_spte_atomic */
export function storeMirrored(vm: VmState, external: ExternalTables, iter: TdpIter, lo: number, hi: number): number {
  if (!isMirrorSptep(vm, iter.sptep) || isFrozenSpte(lo, hi)) {
    writeSpte(vm.memory.i32, iter.sptep, lo, hi);
    return 0;
  }
  const gone = !isShadowPresent(lo);
  if (vm.log.kvmBugOn(gone, '__tdp_mmu_set_spte_atomic', 'a mirror zapped without the write lock')) return -EBUSY;
  return setExternalSptePresent(vm, external, iter, lo, hi);
}

/** A mirror's entry is gone: what it mapped goes from the external tables. Tables there are freed with their own. @kvm tdp_mmu.c remove_external_spte */
export function removeExternalSpte(
  vm: VmState,
  external: ExternalTables,
  gfn: number,
  oldLo: number,
  oldHi: number,
  level: number,
): void {
  if (!isShadowPresent(oldLo) || !isLastSpte(oldLo, level)) return;
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  const ret = external.removeSpte(gfn, level, sptePfn(oldLo, oldHi));
  vm.log.kvmBugOn(ret !== 0, 'remove_external_spte', 'a private page stays mapped');
}
