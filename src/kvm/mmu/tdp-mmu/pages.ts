/** Page tables of the TDP MMU: made, described, freed (@kvm tdp_mmu.c tdp_mmu_alloc_sp, tdp_mmu_init_sp, tdp_mmu_free_sp). */
import type { VmState } from '../../vm-state.ts';
import { traceGetPage } from '../mmutrace.ts';
import { ROLE_LEVEL_MASK, roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { SHADOW_NONPRESENT_HI, SHADOW_NONPRESENT_LO } from '../spte.ts';
import type { TdpIter } from '../tdp-iter.ts';

export const ENTRIES_PER_PAGE = 512;

/** A page table with nothing in it. */
const NONPRESENT_PAGE = new Int32Array(2 * ENTRIES_PER_PAGE);
for (let i = 0; i < ENTRIES_PER_PAGE; i++) {
  NONPRESENT_PAGE[2 * i] = SHADOW_NONPRESENT_LO;
  NONPRESENT_PAGE[2 * i + 1] = SHADOW_NONPRESENT_HI;
}

/** An empty page table, or null when the host has no memory left. @kvm tdp_mmu.c tdp_mmu_alloc_sp */
export function allocSp(vm: VmState): ShadowPage | null {
  const pfn = vm.host.pages.allocPageForCopy();
  if (pfn < 0) return null;
  vm.memory.i32.set(NONPRESENT_PAGE, pfn << 10);
  return vm.mmu.takePage(pfn);
}

/** @param ptep entry of the parent, -1 for a root. @kvm tdp_mmu.c tdp_mmu_init_sp */
export function initSp(vm: VmState, sp: ShadowPage, ptep: number, gfn: number, role: number): void {
  sp.role = role;
  sp.gfn = gfn;
  sp.ptep = ptep;
  sp.tdpMmuPage = true;
  sp.tdpMmuRootCount = 0;
  sp.scheduledRootToZap = false;
  sp.nxHugePageDisallowed = false;
  sp.possibleNxHugePage = false;
  sp.unsync = false;
  sp.rootBias = 0;
  if (vm.trace.enabled) traceGetPage(vm, sp, true);
}

/** Describes the page that is to hang from the entry the iterator is on (@kvm tdp_mmu.c tdp_mmu_init_child_sp). */
export function initChildSp(vm: VmState, sp: ShadowPage, iter: TdpIter): void {
  const parent = vm.mmu.shadowPage(iter.sptep >>> 10);
  initSp(vm, sp, iter.sptep, iter.gfn, (parent.role & ~ROLE_LEVEL_MASK) | (roleLevel(parent.role) - 1));
}

/** A frame for the page that `sp` mirrors; false when the host has no memory left. @kvm mmu_internal.h kvm_mmu_alloc_external_spt */
export function allocExternalSpt(vm: VmState, sp: ShadowPage): boolean {
  sp.externalSpt = vm.host.pages.allocPage();
  return sp.externalSpt >= 0;
}

/** @kvm tdp_mmu.c tdp_mmu_free_sp */
export function freeSp(vm: VmState, sp: ShadowPage): void {
  const pfn = sp.pfn;
  if (sp.externalSpt >= 0) {
    vm.host.pages.freePage(sp.externalSpt);
    sp.externalSpt = -1;
  }
  vm.mmu.dropPage(sp);
  vm.host.pages.freePage(pfn);
}

/** A huge page could be here but for the NX workaround (@kvm mmu.c track_possible_nx_huge_page). */
export function trackPossibleNxHugePage(vm: VmState, sp: ShadowPage): void {
  if (sp.possibleNxHugePage) return;
  sp.possibleNxHugePage = true;
  vm.mmu.possibleNxHugePages.push(sp);
  vm.stats.nx_lpage_splits++;
}

/** @kvm mmu.c untrack_possible_nx_huge_page */
export function untrackPossibleNxHugePage(vm: VmState, sp: ShadowPage): void {
  if (!sp.possibleNxHugePage) return;
  const list = vm.mmu.possibleNxHugePages;
  sp.possibleNxHugePage = false;
  list.splice(list.indexOf(sp), 1);
  vm.stats.nx_lpage_splits--;
}

/** The page is no longer what stands in the way of a huge page, or is taken to be so (@kvm mmu.c unaccount_nx_huge_page). */
export function unaccountNxHugePage(vm: VmState, sp: ShadowPage): void {
  sp.nxHugePageDisallowed = false;
  untrackPossibleNxHugePage(vm, sp);
}
