/** Many shadow pages at once: the oldest for want of room, all of an old generation, or all (@kvm mmu.c kvm_mmu_zap_oldest_mmu_pages). */
import { ENOMEM, ENOSPC } from '../../../host/errno.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import type { Memslot } from '../../memslots/memslots.ts';
import type { VmState } from '../../vm-state.ts';
import { isObsoleteSp } from '../obsolete.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { spHasGptes } from './translation.ts';
import { commitZapPage, prepareZapPage, remoteFlushOrZap } from './zap-page.ts';

/** Pages that stay free for the next fault. @kvm kvm_host.h KVM_MIN_FREE_MMU_PAGES */
export const KVM_MIN_FREE_MMU_PAGES = 5;
/** How many are free once room was made. @kvm kvm_host.h KVM_REFILL_PAGES */
const KVM_REFILL_PAGES = 25;

/** @kvm mmu.c kvm_mmu_zap_oldest_mmu_pages */
function zapOldestMmuPages(vm: VmState, wanted: number): void {
  const invalid: ShadowPage[] = [];
  let total = 0;
  for (let sp = vm.mmu.activePages.oldest; sp !== null; ) {
    const newer: ShadowPage | null = sp.newer;
    // A root in use could not be freed anyway.
    if (sp.rootCount !== 0 && vm.revision.rules.reclaimTakesRoots !== true) {
      sp = newer;
      continue;
    }
    total += prepareZapPage(vm, sp, invalid);
    if (total >= wanted) break;
    sp = vm.mmu.listUnstable ? vm.mmu.activePages.oldest : newer;
  }
  commitZapPage(vm, invalid);
  vm.stats.mmu_recycled += total;
}

/** @kvm mmu.c kvm_mmu_available_pages */
export function availableMmuPages(vm: VmState): number {
  return Math.max(0, vm.mmu.nMaxMmuPages - vm.mmu.nUsedMmuPages);
}

/** One table a level. @kvm mmu.c mmu_topup_memory_caches */
const PAGES_OF_A_WALK = 5;

/** Whether the host has memory for the tables that a walk may need: 0 or -ENOMEM. @kvm mmu.c mmu_topup_memory_caches */
export function topupShadowPages(vm: VmState): number {
  return vm.host.pages.freeFrames >= PAGES_OF_A_WALK ? 0 : -ENOMEM;
}

/** Makes room for the pages that a fault may need. 0, or -ENOSPC when not even one is free. @kvm mmu.c make_mmu_pages_available */
export function makeMmuPagesAvailable(vm: VmState): number {
  const available = availableMmuPages(vm);
  if (available >= KVM_MIN_FREE_MMU_PAGES) return 0;
  zapOldestMmuPages(vm, KVM_REFILL_PAGES - available);
  return availableMmuPages(vm) === 0 ? -ENOSPC : 0;
}

/** Sets the limit: where pages had to go for it, to what is left in use then, which may be more or less. @kvm mmu.c kvm_mmu_change_mmu_pages */
export function changeMmuPages(vm: VmState, goal: number): void {
  vm.locks.acquire(LOCK_MMU_WRITE);
  const { mmu } = vm;
  let limit = goal;
  if (mmu.nUsedMmuPages > goal) {
    zapOldestMmuPages(vm, mmu.nUsedMmuPages - goal);
    limit = mmu.nUsedMmuPages;
  }
  mmu.nMaxMmuPages = limit;
  vm.locks.release(LOCK_MMU_WRITE);
}

/** Pages of the generation before this one; no vCPU uses them any more. @kvm mmu.c kvm_zap_obsolete_pages */
export function zapObsoletePages(vm: VmState): void {
  const invalid: ShadowPage[] = [];
  for (let sp = vm.mmu.activePages.oldest; sp !== null && isObsoleteSp(vm, sp); ) {
    const newer: ShadowPage | null = sp.newer;
    prepareZapPage(vm, sp, invalid);
    sp = vm.mmu.listUnstable ? vm.mmu.activePages.oldest : newer;
  }
  commitZapPage(vm, invalid);
}

/** @kvm mmu.c kvm_mmu_zap_all */
export function zapAllShadowPages(vm: VmState): void {
  const invalid: ShadowPage[] = [];
  for (let sp = vm.mmu.activePages.newest; sp !== null; ) {
    const older: ShadowPage | null = sp.older;
    prepareZapPage(vm, sp, invalid);
    sp = vm.mmu.listUnstable ? vm.mmu.activePages.newest : older;
  }
  commitZapPage(vm, invalid);
}

/** The slot goes: no page may shadow a table in it, as its accounting goes with it. @kvm mmu.c kvm_mmu_zap_memslot_pages_and_flush */
export function zapMemslotPagesAndFlush(vm: VmState, slot: Memslot, flush: boolean): void {
  const invalid: ShadowPage[] = [];
  const end = slot.baseGfn + slot.npages;
  for (let sp = vm.mmu.activePages.newest; sp !== null; ) {
    const older: ShadowPage | null = sp.older;
    const inSlot = sp.gfn >= slot.baseGfn && sp.gfn < end && spHasGptes(sp) && !isObsoleteSp(vm, sp);
    if (!inSlot) {
      sp = older;
      continue;
    }
    prepareZapPage(vm, sp, invalid);
    sp = vm.mmu.listUnstable ? vm.mmu.activePages.newest : older;
  }
  remoteFlushOrZap(vm, invalid, flush);
}
