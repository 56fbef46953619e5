/**
 * Every change of an entry goes through here: trace, page statistics, what the host is told of dirty and accessed pages, and the page
 * tables that a change cuts off (@kvm tdp_mmu.c handle_changed_spte, handle_removed_pt).
 */
import { EBUSY } from '../../../host/errno.ts';
import { LOCK_MMU, LOCK_MMU_WRITE } from '../../locks.ts';
import type { VmState } from '../../vm-state.ts';
import { setPfnAccessed, setPfnDirty } from '../host-page.ts';
import { tracePrepareZapPage, traceSpteChanged } from '../mmutrace.ts';
import { ROLE_IS_MIRROR, roleAsId, roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import {
  FROZEN_SPTE_HI,
  FROZEN_SPTE_LO,
  isAccessedSpte,
  isDirtySpte,
  isFrozenSpte,
  isLastSpte,
  isMmioSpte,
  isShadowPresent,
  SHADOW_NONPRESENT_HI,
  SHADOW_NONPRESENT_LO,
  sptePfn,
  spteWritableInvariantsHold,
} from '../spte.ts';
import { pagesPerLevel, type TdpIter } from '../tdp-iter.ts';
import { flushRemoteTlbsGfn } from '../tlb-flush.ts';
import { isMirrorSptep, removeExternalSpte, storeMirrored } from './mirror.ts';
import { ENTRIES_PER_PAGE, freeSp, unaccountNxHugePage } from './pages.ts';
import { writeSpte } from './write-spte.ts';

/** @kvm mmu.h kvm_update_page_stats. HOT */
export function updatePageStats(vm: VmState, level: number, count: number): void {
  if (level === 1) vm.stats.pages_4k += count;
  else if (level === 2) vm.stats.pages_2m += count;
  else vm.stats.pages_1g += count;
}

/**  @kvm tdp_mmu.c handle_changed_spte. HOT */
function handleChangedSpte(
  vm: VmState,
  asId: number,
  gfn: number,
  oldLo: number,
  oldHi: number,
  newLo: number,
  newHi: number,
  level: number,
  shared: boolean,
): void {
  const m = vm.mmu.masks;
  const wasPresent = isShadowPresent(oldLo);
  const isPresent = isShadowPresent(newLo);
  const wasLeaf = wasPresent && isLastSpte(oldLo, level);
  const isLeaf = isPresent && isLastSpte(newLo, level);
  const pfnChanged = ((oldLo ^ newLo) & ~0xfff) !== 0 || ((oldHi ^ newHi) & 0xfffff) !== 0;
  if (wasLeaf && isLeaf && pfnChanged) {
    throw new Error(
      `present leaf replaced by one with another frame: as ${asId} gfn 0x${gfn.toString(16)} level ${level}, ` +
        `frame 0x${sptePfn(oldLo, oldHi).toString(16)} by 0x${sptePfn(newLo, newHi).toString(16)}`,
    );
  }
  if (oldLo === newLo && oldHi === newHi) return;
  if (vm.trace.enabled) traceSpteChanged(vm, asId, gfn, level, oldLo, oldHi, newLo, newHi);
  if (isLeaf && !spteWritableInvariantsHold(m, newLo, newHi)) {
    vm.log.warnOnOnce(
      true,
      'check_spte_writable_invariants',
      'writable without MMU-writable, or that without host-writable',
    );
  }
  if (!wasPresent && !isPresent) {
    if (!isMmioSpte(m, oldLo, oldHi) && !isMmioSpte(m, newLo, newHi) && !isFrozenSpte(newLo, newHi)) {
      vm.log.warnOnOnce(true, 'handle_changed_spte', 'a non-present entry replaced by another');
    }
    return;
  }
  if (isLeaf !== wasLeaf) updatePageStats(vm, level, isLeaf ? 1 : -1);
  if (!wasPresent) return;
  if (wasLeaf) {
    const gone = !isPresent || pfnChanged;
    if (isDirtySpte(m, oldLo, oldHi) && (gone || !isDirtySpte(m, newLo, newHi))) setPfnDirty(vm, sptePfn(oldLo, oldHi));
    if (isAccessedSpte(m, oldLo, oldHi) && (gone || !isAccessedSpte(m, newLo, newHi))) {
      setPfnAccessed(vm, sptePfn(oldLo, oldHi));
    }
  } else if (isLeaf || !isPresent || vm.log.warnOnOnce(pfnChanged, 'handle_changed_spte', 'a page table moved')) {
    handleRemovedPt(vm, sptePfn(oldLo, oldHi), shared);
  }
}

/** Clears and frees the page table in frame `pfn`, which nothing points to any more, and all below it. @kvm tdp_mmu.c handle_removed_pt */
function handleRemovedPt(vm: VmState, pfn: number, shared: boolean): void {
  const sp = vm.mmu.shadowPage(pfn);
  const level = roleLevel(sp.role);
  const asId = roleAsId(sp.role);
  const i32 = vm.memory.i32;
  const step = pagesPerLevel(level);
  const { external } = vm.mmu;
  const mirrored = external !== null && (sp.role & ROLE_IS_MIRROR) !== 0;
  if (mirrored) vm.log.kvmBugOn(shared, 'handle_removed_pt', 'a mirror page removed without the write lock');
  if (vm.trace.enabled) tracePrepareZapPage(vm, sp);
  vm.mmu.tdpMmuPages--;
  if (sp.nxHugePageDisallowed) unaccountNxHugePage(vm, sp);
  for (let i = 0; i < ENTRIES_PER_PAGE; i++) {
    const sptep = (pfn << 10) | (i << 1);
    const oldLo = i32[sptep]!;
    const oldHi = i32[sptep + 1]!;
    // Shared: another fault may be about to fill any entry, so all are frozen. Exclusive: only what maps something matters.
    if (!shared && !isShadowPresent(oldLo)) continue;
    writeSpte(i32, sptep, FROZEN_SPTE_LO, FROZEN_SPTE_HI);
    handleChangedSpte(vm, asId, sp.gfn + i * step, oldLo, oldHi, FROZEN_SPTE_LO, FROZEN_SPTE_HI, level, shared);
    if (mirrored) removeExternalSpte(vm, external, sp.gfn + i * step, oldLo, oldHi, level);
  }
  if (mirrored && external.freeSpt(sp.gfn, level, sp.externalSpt) !== 0) {
    vm.log.warnOnOnce(true, 'handle_removed_pt', 'an external page table is lost');
    sp.externalSpt = -1;
  }
  freeSp(vm, sp);
}

/**
 * Replaces the entry the iterator is on if it is still what the iterator saw; mmu_lock held for read suffices.
 * @returns 0 or -EBUSY, after which the iterator holds the present value; -EIO when tables that are mirrored could not follow.
 * @kvm tdp_mmu.c tdp_mmu_set_spte_atomic. HOT
 */
export function setSpteAtomic(vm: VmState, iter: TdpIter, lo: number, hi: number): number {
  vm.locks.assertHeld(LOCK_MMU);
  const i32 = vm.memory.i32;
  const sptep = iter.sptep;
  const oldLo = iter.oldLo;
  const oldHi = iter.oldHi;
  if (i32[sptep] !== oldLo || i32[sptep + 1] !== oldHi) {
    iter.refresh();
    return -EBUSY;
  }
  const { external } = vm.mmu;
  if (external === null) writeSpte(i32, sptep, lo, hi);
  else {
    const ret = storeMirrored(vm, external, iter, lo, hi);
    if (ret !== 0) return ret;
  }
  handleChangedSpte(vm, iter.asId, iter.gfn, oldLo, oldHi, lo, hi, iter.level, true);
  return 0;
}

/** Clears the entry, with the flush before anyone can reuse it (@kvm tdp_mmu.c tdp_mmu_zap_spte_atomic). 0 or -EBUSY. */
export function zapSpteAtomic(vm: VmState, iter: TdpIter): number {
  vm.locks.assertHeld(LOCK_MMU);
  const i32 = vm.memory.i32;
  if (i32[iter.sptep] !== iter.oldLo || i32[iter.sptep + 1] !== iter.oldHi) {
    iter.refresh();
    return -EBUSY;
  }
  writeSpte(i32, iter.sptep, FROZEN_SPTE_LO, FROZEN_SPTE_HI);
  flushRemoteTlbsGfn(vm, iter.gfn, iter.level);
  writeSpte(i32, iter.sptep, SHADOW_NONPRESENT_LO, SHADOW_NONPRESENT_HI);
  handleChangedSpte(
    vm,
    iter.asId,
    iter.gfn,
    iter.oldLo,
    iter.oldHi,
    SHADOW_NONPRESENT_LO,
    SHADOW_NONPRESENT_HI,
    iter.level,
    true,
  );
  return 0;
}

/** Replaces the entry the iterator is on; mmu_lock held for write (@kvm tdp_mmu.c tdp_mmu_iter_set_spte). */
export function iterSetSpte(vm: VmState, iter: TdpIter, lo: number, hi: number): void {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  // The processor may have set A or D since: what is there now is what is replaced.
  iter.refresh();
  writeSpte(vm.memory.i32, iter.sptep, lo, hi);
  handleChangedSpte(vm, iter.asId, iter.gfn, iter.oldLo, iter.oldHi, lo, hi, iter.level, false);
  const { external } = vm.mmu;
  if (external !== null && isMirrorSptep(vm, iter.sptep)) {
    vm.log.kvmBugOn(isShadowPresent(lo), 'tdp_mmu_set_spte', 'a mirror changed but for a zap');
    removeExternalSpte(vm, external, iter.gfn, iter.oldLo, iter.oldHi, iter.level);
  }
}

/**
 * Empties the entry that points to `sp`, which goes with all below it; mmu_lock held for write. True when TLBs must be flushed.
 * @kvm tdp_mmu.c kvm_tdp_mmu_zap_sp
 */
export function tdpMmuZapSp(vm: VmState, sp: ShadowPage): boolean {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  const { ptep } = sp;
  if (vm.log.warnOnOnce(ptep < 0, 'kvm_tdp_mmu_zap_sp', 'a root')) return false;
  const i32 = vm.memory.i32;
  const lo = i32[ptep]!;
  const hi = i32[ptep + 1]!;
  if (vm.log.warnOnOnce(!isShadowPresent(lo), 'kvm_tdp_mmu_zap_sp', 'nothing points to the page')) return false;
  writeSpte(i32, ptep, SHADOW_NONPRESENT_LO, SHADOW_NONPRESENT_HI);
  const level = roleLevel(sp.role) + 1;
  handleChangedSpte(vm, roleAsId(sp.role), sp.gfn, lo, hi, SHADOW_NONPRESENT_LO, SHADOW_NONPRESENT_HI, level, false);
  return true;
}
