/** Hanging a page table from its parent (@kvm tdp_mmu.c tdp_mmu_link_sp). */
import type { VmState } from '../../vm-state.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { makeNonleafSpte } from '../spte.ts';
import type { TdpIter } from '../tdp-iter.ts';
import { iterSetSpte, setSpteAtomic } from './changed-spte.ts';

/** Hangs the page table from the entry the iterator is on. 0 or -EBUSY. @kvm tdp_mmu.c tdp_mmu_link_sp. HOT */
export function linkSp(vm: VmState, iter: TdpIter, sp: ShadowPage, shared: boolean): number {
  const spte = vm.mmu.newSpte;
  makeNonleafSpte(vm.mmu.masks, spte, sp.pfn, vm.mmu.masks.accessed === 0);
  if (shared) {
    const ret = setSpteAtomic(vm, iter, spte.lo, spte.hi);
    if (ret !== 0) return ret;
  } else {
    iterSetSpte(vm, iter, spte.lo, spte.hi);
  }
  vm.mmu.tdpMmuPages++;
  return 0;
}
