/** Whether a page table still counts (@kvm mmu.c is_obsolete_sp). */
import type { VmState } from '../vm-state.ts';
import { ROLE_INVALID } from './role.ts';
import type { ShadowPage } from './shadow-page.ts';

/** The page is not to be used for new translations. Pages of the TDP MMU have no generation. @kvm mmu.c is_obsolete_sp. HOT */
export function isObsoleteSp(vm: VmState, sp: ShadowPage): boolean {
  if ((sp.role & ROLE_INVALID) !== 0) return true;
  return !sp.tdpMmuPage && sp.mmuValidGen !== vm.mmu.mmuValidGen;
}

/** The page table in a root's frame; null for a root that is not one: PDPTEs, and the dummy. @kvm spte.h root_to_sp. HOT */
export function rootToSp(vm: VmState, pfn: number): ShadowPage | null {
  const { mmu } = vm;
  const index = mmu.pageOfPfn[pfn]!;
  return index === 0 ? null : mmu.pages[index - 1]!;
}

/** The root of a vCPU whose CR3 points nowhere: nothing is mapped below it. @kvm mmu_internal.h kvm_mmu_is_dummy_root */
export function isDummyRoot(vm: VmState, pfn: number): boolean {
  return pfn === vm.host.zero.small;
}
