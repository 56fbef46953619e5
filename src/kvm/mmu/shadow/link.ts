/** Hanging a shadow page from an entry (@kvm mmu.c __link_shadow_page). */
import type { VmState } from '../../vm-state.ts';
import { ROLE_AD_DISABLED, roleAccess, roleLevel } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { isLargePte, isShadowPresent, makeNonleafSpte, sptePfn } from '../spte.ts';
import { flushRemoteTlbsGfn } from '../tlb-flush.ts';
import { mmuSpteSet } from './spte-store.ts';
import { pageGetGfn, spteIndexOf, sptepToSp } from './translation.ts';
import { markUnsync } from './unsync.ts';
import { dropParentPte, mmuPageZapPte, remoteFlushOrZap } from './zap-page.ts';

/** What the entry held before goes. @kvm mmu.c link_shadow_page */
export function linkShadowPage(vm: VmState, sptep: number, sp: ShadowPage): void {
  if (isShadowPresent(vm.memory.i32[sptep]!)) {
    const invalid: ShadowPage[] = [];
    mmuPageZapPte(vm, sptepToSp(vm, sptep), sptep, invalid);
    remoteFlushOrZap(vm, invalid, true);
  }
  const spte = vm.mmu.newSpte;
  makeNonleafSpte(vm.mmu.masks, spte, sp.pfn, (sp.role & ROLE_AD_DISABLED) !== 0);
  mmuSpteSet(vm, sptep, spte.lo, spte.hi);
  sp.parentPtes = vm.mmu.pteLists.add(sp.parentPtes, sptep);
  vm.log.warnOnOnce(sp.unsyncChildren !== 0, '__link_shadow_page', 'the page has unsync children');
  if (sp.unsyncChildren !== 0 || sp.unsync) markUnsync(vm, sptep);
}

/** The entry's direct page has other rights than the guest's huge page has now: it goes. @kvm mmu.c validate_direct_spte */
export function validateDirectSpte(vm: VmState, sptep: number, access: number): void {
  const lo = vm.memory.i32[sptep]!;
  if (!isShadowPresent(lo) || isLargePte(lo)) return;
  const child = vm.mmu.shadowPage(sptePfn(lo, vm.memory.i32[sptep + 1]!));
  if (roleAccess(child.role) === access) return;
  dropParentPte(vm, child, sptep);
  flushRemoteTlbsSptep(vm, sptep);
}

/** @kvm mmu.c kvm_flush_remote_tlbs_sptep */
export function flushRemoteTlbsSptep(vm: VmState, sptep: number): void {
  const sp = sptepToSp(vm, sptep);
  flushRemoteTlbsGfn(vm, pageGetGfn(sp, spteIndexOf(sptep)), roleLevel(sp.role));
}
