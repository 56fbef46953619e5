/** Which gfn and which rights an entry of a shadow page stands for (@kvm mmu.c kvm_mmu_page_get_gfn, kvm_mmu_page_get_access). */
import type { VmState } from '../../vm-state.ts';
import { ROLE_DIRECT, ROLE_PASSTHROUGH, roleAccess, roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { pagesPerLevel } from '../tdp-iter.ts';

/** The page that holds the entry at index `sptep` of the int32 view. @kvm spte.h sptep_to_sp */
export function sptepToSp(vm: VmState, sptep: number): ShadowPage {
  return vm.mmu.shadowPage(sptep >>> 10);
}

/** Number of the entry in its page. @kvm spte.h spte_index */
export function spteIndexOf(sptep: number): number {
  return (sptep & 1023) >> 1;
}

/** Position of the entry `index` of the page. */
export function sptepOf(sp: ShadowPage, index: number): number {
  return (sp.pfn << 10) | (index << 1);
}

/** The page shadows a table of the guest. @kvm mmu.c sp_has_gptes */
export function spHasGptes(sp: ShadowPage): boolean {
  return (sp.role & (ROLE_DIRECT | ROLE_PASSTHROUGH)) === 0;
}

/** @kvm mmu.c kvm_mmu_page_get_gfn */
export function pageGetGfn(sp: ShadowPage, index: number): number {
  if ((sp.role & ROLE_PASSTHROUGH) !== 0) return sp.gfn;
  if (sp.shadowedTranslation !== null) return Math.floor(sp.shadowedTranslation[index]! / 8);
  return sp.gfn + index * pagesPerLevel(roleLevel(sp.role));
}

/** @kvm mmu.c kvm_mmu_page_get_access */
export function pageGetAccess(sp: ShadowPage, index: number): number {
  return sp.shadowedTranslation !== null ? sp.shadowedTranslation[index]! % 8 : roleAccess(sp.role);
}

/** @kvm mmu.c kvm_mmu_page_set_translation */
export function pageSetTranslation(vm: VmState, sp: ShadowPage, index: number, gfn: number, access: number): void {
  if (sp.shadowedTranslation !== null) {
    sp.shadowedTranslation[index] = gfn * 8 + access;
    return;
  }
  const wrong = access !== pageGetAccess(sp, index) || gfn !== pageGetGfn(sp, index);
  vm.log.warnOnOnce(wrong, 'kvm_mmu_page_set_translation', 'an entry of a direct page with rights or gfn of its own');
}

/** @kvm mmu.c kvm_mmu_page_set_access */
export function pageSetAccess(vm: VmState, sp: ShadowPage, index: number, access: number): void {
  pageSetTranslation(vm, sp, index, pageGetGfn(sp, index), access);
}
