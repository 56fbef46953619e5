/** Undoing, little by little, what the NX huge page workaround has split (@kvm mmu.c kvm_recover_nx_huge_pages). */
import { LOCK_MMU_WRITE } from '../locks.ts';
import { kvmSlotDirtyTrackEnabled } from '../memslots/memslots.ts';
import type { KvmParams } from '../params.ts';
import type { VmState } from '../vm-state.ts';
import { roleAsId } from './role.ts';
import { prepareZapPage } from './shadow/zap-page.ts';
import type { ShadowPage } from './shadow-page.ts';
import { tdpMmuZapSp } from './tdp-mmu/changed-spte.ts';
import { unaccountNxHugePage } from './tdp-mmu/pages.ts';

const HOUR_MS = 60 * 60 * 1000;

/** Milliseconds between two recoveries, 0 for none. @kvm mmu.c calc_nx_huge_pages_recovery_period */
export function nxRecoveryPeriodMs(params: KvmParams): number {
  const ratio = params.nxHugePagesRecoveryRatio;
  if (!params.nxHugePages || ratio === 0) return 0;
  if (params.nxHugePagesRecoveryPeriodMs !== 0) return params.nxHugePagesRecoveryPeriodMs;
  return Math.floor(HOUR_MS / Math.min(ratio, 3600));
}

/** Pages that one recovery takes, as of now: a part of those that the workaround split. */
export function nxPagesToRecover(vm: VmState): number {
  const ratio = vm.params.nxHugePagesRecoveryRatio;
  return ratio === 0 ? 0 : Math.ceil(vm.stats.nx_lpage_splits / ratio);
}

/** The slot of the page is dirty logged: its faults make small pages, whatever is recovered. */
function isDirtyTracked(vm: VmState, sp: ShadowPage): boolean {
  if (vm.slots.nrDirtyLogging === 0) return false;
  const slot = vm.slots.sets[roleAsId(sp.role)]!.find(sp.gfn);
  vm.log.warnOnOnce(slot === null, 'kvm_recover_nx_huge_pages', 'a page table of a gfn that no slot has');
  return slot !== null && kvmSlotDirtyTrackEnabled(slot);
}

/**
 * Zaps the `count` oldest page tables in whose place a huge page could be. One of a slot that is dirty logged is only taken off the list: what
 * ends the log recovers it. mmu_lock held for write. Pages of the shadow MMU go onto `invalid`; true when TLBs must be flushed.
 */
export function recoverNxHugePages(vm: VmState, count: number, invalid: ShadowPage[]): boolean {
  vm.locks.assertHeld(LOCK_MMU_WRITE);
  const list = vm.mmu.possibleNxHugePages;
  let flush = false;
  for (let left = count; left > 0 && list.length > 0; left--) {
    const sp = list[0]!;
    vm.log.warnOnOnce(!sp.nxHugePageDisallowed, 'kvm_recover_nx_huge_pages', 'nothing was disallowed');
    if (isDirtyTracked(vm, sp)) unaccountNxHugePage(vm, sp);
    else if (sp.tdpMmuPage) flush = tdpMmuZapSp(vm, sp) || flush;
    else prepareZapPage(vm, sp, invalid);
    vm.log.warnOnOnce(sp.nxHugePageDisallowed, 'kvm_recover_nx_huge_pages', 'a page stays disallowed');
  }
  return flush;
}
