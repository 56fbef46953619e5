/** Taking shadow pages out of use (@kvm mmu.c __kvm_mmu_prepare_zap_page, kvm_mmu_commit_zap_page). mmu_lock is held for write. */
import { LOCK_MMU_WRITE } from '../../locks.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { tracePrepareZapPage } from '../mmutrace.ts';
import { isObsoleteSp } from '../obsolete.ts';
import { ROLE_GUEST_MODE, ROLE_INVALID, roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isLastSpte, isMmioSpte, isShadowPresent, sptePfn } from '../spte.ts';
import { ENTRIES_PER_PAGE, freeSp, unaccountNxHugePage } from '../tdp-mmu/pages.ts';
import { flushRemoteTlbs, makeAllCpusRequest } from '../tlb-flush.ts';
import { unaccountShadowed } from './account.ts';
import { dropSpte } from './rmap.ts';
import { mmuSpteClearNoTrack } from './spte-store.ts';
import { spHasGptes, sptepOf } from './translation.ts';
import { UnsyncWalk, unlinkUnsyncPage } from './unsync.ts';

/** The entry does not point to `child` any more. @kvm mmu.c drop_parent_pte */
export function dropParentPte(vm: VmState, child: ShadowPage, sptep: number): void {
  child.parentPtes = vm.mmu.pteLists.remove(child.parentPtes, sptep);
  mmuSpteClearNoTrack(vm, sptep);
}

/**
 * Empties one entry of `sp`. A nested guest's table that loses its last parent goes too, where there is a list for it.
 * @returns number of pages put on the list
 * @kvm mmu.c mmu_page_zap_pte
 */
export function mmuPageZapPte(vm: VmState, sp: ShadowPage, sptep: number, invalid: ShadowPage[] | null): number {
  const i32 = vm.memory.i32;
  const lo = i32[sptep]!;
  const hi = i32[sptep + 1]!;
  if (!isShadowPresent(lo)) {
    if (vm.mmu.enableMmioCaching && isMmioSpte(vm.mmu.masks, lo, hi)) mmuSpteClearNoTrack(vm, sptep);
    return 0;
  }
  if (isLastSpte(lo, roleLevel(sp.role))) {
    dropSpte(vm, sptep);
    return 0;
  }
  const child = vm.mmu.shadowPage(sptePfn(lo, hi));
  dropParentPte(vm, child, sptep);
  const orphan = (child.role & ROLE_GUEST_MODE) !== 0 && child.rootCount === 0 && child.parentPtes === 0;
  if (!vm.vendor.tdpEnabled || invalid === null || !orphan) return 0;
  return prepareZapPage(vm, child, invalid) !== 0 ? 1 : 0;
}

/** @kvm mmu.c mmu_zap_unsync_children */
function zapUnsyncChildren(vm: VmState, parent: ShadowPage, invalid: ShadowPage[]): number {
  if (roleLevel(parent.role) === 1) return 0;
  const walk = new UnsyncWalk(vm);
  let zapped = 0;
  while (walk.walk(parent)) {
    for (let sp = walk.first(); sp !== null; sp = walk.next()) {
      prepareZapPage(vm, sp, invalid);
      walk.clearParents();
      zapped++;
    }
  }
  return zapped;
}

/**
 * Empties the page, unhooks it from all that points to it, and puts it on the list of pages to free; a root in use stays until the
 * last vCPU lets it go. `vm.mmu.listUnstable` says whether other pages went with it.
 * @returns number of pages that were put on the list
 * @kvm mmu.c __kvm_mmu_prepare_zap_page
 */
export function prepareZapPage(vm: VmState, sp: ShadowPage, invalid: ShadowPage[]): number {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  if (vm.trace.enabled) tracePrepareZapPage(vm, sp);
  vm.stats.mmu_shadow_zapped++;
  let zapped = zapUnsyncChildren(vm, sp, invalid);
  for (let i = 0; i < ENTRIES_PER_PAGE; i++) zapped += mmuPageZapPte(vm, sp, sptepOf(sp, i), invalid);
  for (;;) {
    const parent = vm.mmu.pteLists.first(sp.parentPtes);
    if (parent === 0) break;
    dropParentPte(vm, sp, parent);
  }
  const unstable = zapped !== 0;
  const wasInvalid = (sp.role & ROLE_INVALID) !== 0;
  if (!wasInvalid && spHasGptes(sp)) unaccountShadowed(vm, sp);
  if (sp.unsync) unlinkUnsyncPage(vm, sp);
  let zappedRoot = false;
  if (!wasInvalid) vm.mmu.activePages.remove(sp);
  if (sp.rootCount === 0) {
    zapped++;
    invalid.push(sp);
    vm.mmu.nUsedMmuPages--;
  } else {
    zappedRoot = !isObsoleteSp(vm, sp);
  }
  if (sp.nxHugePageDisallowed) unaccountNxHugePage(vm, sp);
  sp.role |= ROLE_INVALID;
  if (zappedRoot) makeAllCpusRequest(vm, REQ_MMU_FREE_OBSOLETE_ROOTS);
  vm.mmu.listUnstable = unstable;
  return zapped;
}

/** Frees the pages on the list, after a flush, and empties it. @kvm mmu.c kvm_mmu_commit_zap_page */
export function commitZapPage(vm: VmState, invalid: ShadowPage[]): void {
  if (invalid.length === 0) return;
  flushRemoteTlbs(vm);
  for (const sp of invalid) {
    vm.log.warnOnOnce(sp.rootCount !== 0, 'kvm_mmu_commit_zap_page', 'a root in use is freed');
    vm.mmu.pageHash.remove(sp);
    sp.shadowedTranslation = null;
    freeSp(vm, sp);
  }
  invalid.length = 0;
}

/** Frees what is on the list, or only flushes. Answers whether TLBs were flushed. @kvm mmu.c kvm_mmu_remote_flush_or_zap */
export function remoteFlushOrZap(vm: VmState, invalid: ShadowPage[], flush: boolean): boolean {
  if (!flush && invalid.length === 0) return false;
  if (invalid.length !== 0) commitZapPage(vm, invalid);
  else flushRemoteTlbs(vm);
  return true;
}
