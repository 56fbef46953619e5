/** Removing leaf entries: invalidations, and page tables that a huge page could replace (@kvm tdp_mmu.c tdp_mmu_zap_leafs). */
import { PG_LEVEL_2M } from '../../../arch/paging.ts';
import { LOCK_MMU, LOCK_MMU_WRITE } from '../../locks.ts';
import type { Memslot } from '../../memslots/memslots.ts';
import type { GfnRange } from '../../notifier.ts';
import { KVM_FILTER_PRIVATE, KVM_FILTER_SHARED } from '../../notifier-filter.ts';
import type { VmState } from '../../vm-state.ts';
import { maxMappingLevel } from '../hugepage-adjust.ts';
import { KVM_MAX_HUGEPAGE_LEVEL } from '../lpage-info.ts';
import { maxGfn } from '../max-gfn.ts';
import { ROLE_INVALID } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isLastSpte, isShadowPresent, SHADOW_NONPRESENT_HI, SHADOW_NONPRESENT_LO } from '../spte.ts';
import { iterSetSpte, zapSpteAtomic } from './changed-spte.ts';
import { mirrorRoots, tdpMmuRoots } from './roots.ts';

/** Zaps the leaves of one root that map anything in [start, end). Answers `flush`, or true when a flush became necessary. */
function zapLeafsRoot(vm: VmState, root: ShadowPage, start: number, end: number, flush: boolean): boolean {
  const iter = vm.mmu.iter;
  const limit = Math.min(end, maxGfn(vm) + 1);
  const valid = (root.role & ROLE_INVALID) === 0;
  let need = flush;
  for (iter.start(root, 1, start); iter.valid && iter.gfn < limit; iter.next()) {
    if (!isShadowPresent(iter.oldLo) || !isLastSpte(iter.oldLo, iter.level)) continue;
    iterSetSpte(vm, iter, SHADOW_NONPRESENT_LO, SHADOW_NONPRESENT_HI);
    if (valid) need = true;
  }
  return need;
}

/** In all roots of the slot's address space, invalid ones too. mmu_lock held for write. @kvm tdp_mmu.c kvm_tdp_mmu_unmap_gfn_range */
export function tdpMmuUnmapGfnRange(vm: VmState, range: GfnRange, flush: boolean): boolean {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  let need = flush;
  // Without mirrors private memory is in the same tables as shared memory.
  const { external } = vm.mmu;
  if (external === null || range.attrFilter !== KVM_FILTER_PRIVATE) {
    for (const root of tdpMmuRoots(vm, range.slot.asId, false)) {
      need = zapLeafsRoot(vm, root, range.start, range.end, need);
    }
  }
  if (external !== null && range.attrFilter !== KVM_FILTER_SHARED) {
    for (const root of mirrorRoots(vm)) need = zapLeafsRoot(vm, root, range.start, range.end, need);
  }
  return need;
}

/** Zaps the page tables of the slot whose range a huge page could map. @kvm tdp_mmu.c kvm_tdp_mmu_zap_collapsible_sptes */
export function zapCollapsibleSptes(vm: VmState, slot: Memslot): void {
  vm.locks.assertHeld(LOCK_MMU);
  const start = slot.baseGfn;
  const end = start + slot.npages;
  const iter = vm.mmu.iter;
  for (const root of tdpMmuRoots(vm, slot.asId, true)) {
    for (iter.start(root, PG_LEVEL_2M, start); iter.valid && iter.gfn < end; iter.next()) {
      if (iter.level > KVM_MAX_HUGEPAGE_LEVEL || iter.gfn < start) continue;
      while (isShadowPresent(iter.oldLo) && !isLastSpte(iter.oldLo, iter.level)) {
        if (maxMappingLevel(vm, slot, iter.gfn, KVM_MAX_HUGEPAGE_LEVEL) < iter.level) break;
        if (zapSpteAtomic(vm, iter) === 0) break;
      }
    }
  }
}
