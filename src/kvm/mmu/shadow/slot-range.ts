/** What the shadow MMU does to a range or a slot of guest frames: aging, dirty logging, splitting, collapsing (@kvm mmu.c). */
import { PG_LEVEL_4K } from '../../../arch/paging.ts';
import { ENOSPC } from '../../../host/errno.ts';
import type { Memslot } from '../../memslots/memslots.ts';
import type { GfnRange } from '../../notifier.ts';
import type { VmState } from '../../vm-state.ts';
import { setPfnDirty } from '../host-page.ts';
import { maxMappingLevel } from '../hugepage-adjust.ts';
import { KVM_MAX_HUGEPAGE_LEVEL } from '../lpage-info.ts';
import { makeHugePageSplitSpte } from '../make-spte.ts';
import { traceSplitHugePage } from '../mmutrace.ts';
import { ROLE_DIRECT, ROLE_GUEST_MODE, ROLE_INVALID, roleAccess, roleLevel } from '../role.ts';
import {
  isAccessedSpte,
  isLargePte,
  isShadowPresent,
  isWritable,
  markSpteForAccessTrack,
  spteAdEnabled,
  sptePfn,
} from '../spte.ts';
import { ENTRIES_PER_PAGE } from '../tdp-mmu/pages.ts';
import { writeSpte } from '../tdp-mmu/write-spte.ts';
import { flushRemoteTlbsRange } from '../tlb-flush.ts';
import { childRole, getShadowPage } from './get-page.ts';
import { linkShadowPage } from './link.ts';
import { availableMmuPages, KVM_MIN_FREE_MMU_PAGES, topupShadowPages } from './recycle.ts';
import { dropSpte, rmapAdd, walkSlotRmaps } from './rmap.ts';
import { mmuSpteSet } from './spte-store.ts';
import { pageGetAccess, pageGetGfn, spteIndexOf, sptepOf, sptepToSp } from './translation.ts';

/** Clears what says that the pages were used, unless `testOnly`. True when one was. @kvm mmu.c kvm_rmap_age_gfn_range */
export function rmapAgeGfnRange(vm: VmState, range: GfnRange, testOnly: boolean): boolean {
  const i32 = vm.memory.i32;
  const m = vm.mmu.masks;
  return walkSlotRmaps(vm, range.slot, PG_LEVEL_4K, KVM_MAX_HUGEPAGE_LEVEL, range.start, range.end, (_vm, sptes) => {
    let young = false;
    for (const sptep of sptes) {
      const lo = i32[sptep]!;
      const hi = i32[sptep + 1]!;
      if (!isAccessedSpte(m, lo, hi)) continue;
      young = true;
      if (testOnly) continue;
      // Without A bits the rights are taken, and with them the record of writes.
      if (!spteAdEnabled(hi) && isWritable(lo)) setPfnDirty(vm, sptePfn(lo, hi));
      const spte = vm.mmu.newSpte;
      spte.lo = lo;
      spte.hi = hi;
      markSpteForAccessTrack(m, spte);
      writeSpte(i32, sptep, spte.lo, spte.hi);
    }
    return young;
  });
}

/** Direct pages whose memory a huge page could map lose their leaves. @kvm mmu.c kvm_rmap_zap_collapsible_sptes */
export function rmapZapCollapsibleSptes(vm: VmState, slot: Memslot): void {
  const end = slot.baseGfn + slot.npages;
  const flush = walkSlotRmaps(vm, slot, PG_LEVEL_4K, KVM_MAX_HUGEPAGE_LEVEL - 1, slot.baseGfn, end, (_vm, sptes) => {
    let need = false;
    for (const sptep of sptes) {
      const sp = sptepToSp(vm, sptep);
      if ((sp.role & ROLE_DIRECT) === 0 || sp.gfn < slot.baseGfn || sp.gfn >= end) continue;
      if (roleLevel(sp.role) >= maxMappingLevel(vm, slot, sp.gfn, KVM_MAX_HUGEPAGE_LEVEL)) continue;
      dropSpte(vm, sptep);
      need = true;
    }
    return need;
  });
  if (flush) flushRemoteTlbsRange(vm, slot.baseGfn, slot.npages);
}

/** @kvm mmu.c shadow_mmu_split_huge_page */
function splitHugePage(vm: VmState, slot: Memslot, hugeSptep: number): void {
  const i32 = vm.memory.i32;
  const hugeLo = i32[hugeSptep]!;
  const hugeHi = i32[hugeSptep + 1]!;
  const hugeSp = sptepToSp(vm, hugeSptep);
  const index = spteIndexOf(hugeSptep);
  const role = childRole(vm, hugeSptep, true, pageGetAccess(hugeSp, index));
  const sp = getShadowPage(vm, null, pageGetGfn(hugeSp, index), role);
  for (let i = 0; i < ENTRIES_PER_PAGE; i++) {
    const sptep = sptepOf(sp, i);
    if (isShadowPresent(i32[sptep]!)) continue;
    makeHugePageSplitSpte(vm, vm.mmu.newSpte, hugeLo, hugeHi, sp.role, i);
    mmuSpteSet(vm, sptep, vm.mmu.newSpte.lo, vm.mmu.newSpte.hi);
    rmapAdd(vm, slot, sptep, pageGetGfn(sp, i), roleAccess(sp.role));
  }
  linkShadowPage(vm, hugeSptep, sp);
}

/**
 * Splits the huge pages of nested guests in [start, end) down to `targetLevel`; only beside the TDP MMU, which has L1's.
 * @kvm mmu.c kvm_shadow_mmu_try_split_huge_pages
 */
export function rmapTrySplitHugePages(
  vm: VmState,
  slot: Memslot,
  start: number,
  end: number,
  targetLevel: number,
): void {
  for (let level = KVM_MAX_HUGEPAGE_LEVEL; level > targetLevel; level--) {
    walkSlotRmaps(vm, slot, level, level, start, end, (_vm, sptes) => {
      for (const sptep of sptes) {
        const { role } = sptepToSp(vm, sptep);
        const lo = vm.memory.i32[sptep]!;
        const hi = vm.memory.i32[sptep + 1]!;
        if ((role & ROLE_GUEST_MODE) === 0 || (role & ROLE_INVALID) !== 0 || !isLargePte(lo)) continue;
        const gfn = pageGetGfn(sptepToSp(vm, sptep), spteIndexOf(sptep));
        const r = availableMmuPages(vm) <= KVM_MIN_FREE_MMU_PAGES ? -ENOSPC : topupShadowPages(vm);
        if (r === 0) splitHugePage(vm, slot, sptep);
        if (vm.trace.enabled) traceSplitHugePage(vm, gfn, lo, hi, level, r);
        if (r !== 0) return false;
      }
      return false;
    });
  }
}
