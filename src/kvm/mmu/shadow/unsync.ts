/**
 * Tables of the lowest level that the guest may write: what KVM shadows of them is good until the guest flushes its TLB, as an
 * entry in a real TLB would be (@kvm mmu.c kvm_unsync_page, mmu_try_to_unsync_pages, mark_unsync).
 */
import { PG_LEVEL_4K } from '../../../arch/paging.ts';
import type { Memslot } from '../../memslots/memslots.ts';
import type { VmState } from '../../vm-state.ts';
import { traceSyncPage, traceUnsyncPage } from '../mmutrace.ts';
import { isObsoleteSp } from '../obsolete.ts';
import { gfnIsWriteTracked } from '../page-track.ts';
import { roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isLargePte, isShadowPresent, sptePfn } from '../spte.ts';
import { spHasGptes, spteIndexOf, sptepOf, sptepToSp } from './translation.ts';

/** Something below the entry is unsync, and so below all that points to its page. @kvm mmu.c mark_unsync */
export function markUnsync(vm: VmState, sptep: number): void {
  const sp = sptepToSp(vm, sptep);
  const index = spteIndexOf(sptep);
  sp.unsyncChildBitmap ??= new Uint32Array(16);
  const bit = 1 << (index & 31);
  if ((sp.unsyncChildBitmap[index >> 5]! & bit) !== 0) return;
  sp.unsyncChildBitmap[index >> 5]! |= bit;
  if (sp.unsyncChildren++ === 0) markParentsUnsync(vm, sp);
}

/** @kvm mmu.c kvm_mmu_mark_parents_unsync */
function markParentsUnsync(vm: VmState, sp: ShadowPage): void {
  for (const sptep of vm.mmu.pteLists.entries(sp.parentPtes)) markUnsync(vm, sptep);
}

function clearUnsyncChildBit(sp: ShadowPage, index: number): void {
  sp.unsyncChildren--;
  sp.unsyncChildBitmap![index >> 5]! &= ~(1 << (index & 31));
}

/** @kvm mmu.c kvm_unsync_page */
function unsyncPage(vm: VmState, sp: ShadowPage): void {
  if (vm.trace.enabled) traceUnsyncPage(vm, sp);
  vm.stats.mmu_unsync++;
  sp.unsync = true;
  markParentsUnsync(vm, sp);
}

/** The page is in step with its table again, or about to go. @kvm mmu.c kvm_unlink_unsync_page */
export function unlinkUnsyncPage(vm: VmState, sp: ShadowPage): void {
  vm.log.warnOnOnce(!sp.unsync, 'kvm_unlink_unsync_page', 'the page is in sync');
  if (vm.trace.enabled) traceSyncPage(vm, sp);
  sp.unsync = false;
  vm.stats.mmu_unsync--;
}

/**
 * `gfn` is to be mapped writable: the tables it holds become unsync. True when it must stay write-protected instead.
 * @kvm mmu.c mmu_try_to_unsync_pages
 */
export function mmuTryToUnsyncPages(
  vm: VmState,
  slot: Memslot,
  gfn: number,
  canUnsync: boolean,
  prefetch: boolean,
): boolean {
  if (gfnIsWriteTracked(vm, slot, gfn)) return true;
  for (let sp = vm.mmu.pageHash.bucket(gfn); sp !== null; sp = sp.hashNext) {
    if (sp.gfn !== gfn || !spHasGptes(sp) || isObsoleteSp(vm, sp)) continue;
    if (!canUnsync) return true;
    if (sp.unsync) continue;
    if (prefetch) return true;
    vm.log.warnOnOnce(roleLevel(sp.role) !== PG_LEVEL_4K, 'mmu_try_to_unsync_pages', 'an upper table becomes unsync');
    unsyncPage(vm, sp);
  }
  return false;
}

/** Pages that one round of a walk takes. @kvm mmu.c KVM_PAGE_ARRAY_NR */
const MAX_PAGES = 16;
const INVALID_INDEX = -1;

/**
 * The unsync pages below a page, with the way that led there (@kvm mmu.c struct kvm_mmu_pages, struct mmu_page_path). A walk takes as
 * many as it has room for; who has dealt with them walks again.
 */
export class UnsyncWalk {
  private readonly pages: ShadowPage[] = [];
  private readonly index: number[] = [];
  private readonly parents: (ShadowPage | null)[] = new Array(5).fill(null);
  private readonly parentIndex: number[] = new Array(5).fill(INVALID_INDEX);
  private at = 0;
  private readonly vm: VmState;

  constructor(vm: VmState) {
    this.vm = vm;
  }

  /** Looks below `parent`; false when nothing is unsync there. @kvm mmu.c mmu_unsync_walk */
  walk(parent: ShadowPage): boolean {
    this.pages.length = 0;
    this.index.length = 0;
    if (parent.unsyncChildren === 0) return false;
    this.add(parent, INVALID_INDEX);
    return this.collect(parent) !== 0;
  }

  /** The first unsync page found, or null. @kvm mmu.c mmu_pages_first */
  first(): ShadowPage | null {
    if (this.pages.length === 0) return null;
    const top = this.pages[0]!;
    const level = roleLevel(top.role);
    this.parents[level - 2] = top;
    this.parents[level - 1] = null;
    this.at = 0;
    return this.next();
  }

  /** The one after it. @kvm mmu.c mmu_pages_next */
  next(): ShadowPage | null {
    for (this.at++; this.at < this.pages.length; this.at++) {
      const sp = this.pages[this.at]!;
      const level = roleLevel(sp.role);
      this.parentIndex[level - 1] = this.index[this.at]!;
      if (level === 1) return sp;
      this.parents[level - 2] = sp;
    }
    return null;
  }

  /** The page that `next` gave is dealt with. @kvm mmu.c mmu_pages_clear_parents */
  clearParents(): void {
    for (let level = 0; ; level++) {
      const sp = this.parents[level] ?? null;
      if (sp === null) return;
      clearUnsyncChildBit(sp, this.parentIndex[level]!);
      if (sp.unsyncChildren !== 0) return;
    }
  }

  /** @kvm mmu.c mmu_pages_add. True when there is no room for another. */
  private add(sp: ShadowPage, index: number): boolean {
    if (sp.unsync && this.pages.includes(sp)) return false;
    this.pages.push(sp);
    this.index.push(index);
    return this.pages.length === MAX_PAGES;
  }

  /** Number of unsync pages below `sp`, or -1 when there was no room for all. @kvm mmu.c __mmu_unsync_walk */
  private collect(sp: ShadowPage): number {
    const i32 = this.vm.memory.i32;
    const bitmap = sp.unsyncChildBitmap!;
    let found = 0;
    for (let i = 0; i < 512; i++) {
      if (((bitmap[i >> 5]! >>> (i & 31)) & 1) === 0) continue;
      const sptep = sptepOf(sp, i);
      const lo = i32[sptep]!;
      if (!isShadowPresent(lo) || isLargePte(lo)) {
        clearUnsyncChildBit(sp, i);
        continue;
      }
      const child = this.vm.mmu.shadowPage(sptePfn(lo, i32[sptep + 1]!));
      if (child.unsyncChildren !== 0) {
        if (this.add(child, i)) return -1;
        const below = this.collect(child);
        if (below < 0) return below;
        if (below === 0) clearUnsyncChildBit(sp, i);
        found += below;
      } else if (child.unsync) {
        found++;
        if (this.add(child, i)) return -1;
      } else {
        clearUnsyncChildBit(sp, i);
      }
    }
    return found;
  }
}
