/** Making leaf entries: the rights, the A/D state and the dirty log's share (@kvm spte.c make_spte, make_huge_page_split_spte). */
import { PG_LEVEL_4K, PT_PAGE_SIZE_MASK, PT_WRITABLE_MASK } from '../../arch/paging.ts';
import { markPageDirtyInSlot } from '../dirty/mark-dirty.ts';
import { kvmSlotDirtyTrackEnabled, type Memslot } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { ACC_EXEC_MASK, ACC_USER_MASK, ACC_WRITE_MASK, ROLE_AD_DISABLED, roleAccess, roleLevel } from './role.ts';
import { mmuTryToUnsyncPages } from './shadow/unsync.ts';
import {
  isLastSpte,
  isWritable,
  makeSpteExecutable,
  markSpteForAccessTrack,
  SPTE_MMU_PRESENT_MASK,
  SPTE_TDP_AD_DISABLED_HI,
  type SpteWord,
  spteAdEnabled,
} from './spte.ts';
import { pagesPerLevel } from './tdp-iter.ts';

/**
 * Leaves in `vm.mmu.newSpte` a leaf of a page with `role` that maps `gfn` to `pfn` with rights `access`, in place of (oldLo, oldHi).
 * Shadowed tables in the page become unsync, where `canUnsync`; else it is not made writable. A writable entry in a slot with dirty
 * logging marks its page dirty. Answers whether the page had to be write-protected.
 * HOT
 * @kvm spte.c make_spte
 */
export function makeSpte(
  vcpu: VcpuState,
  role: number,
  slot: Memslot,
  access: number,
  gfn: number,
  pfn: number,
  oldLo: number,
  prefetch: boolean,
  canUnsync: boolean,
  hostWritable: boolean,
): boolean {
  const vm = vcpu.vm;
  const m = vm.mmu.masks;
  const level = roleLevel(role);
  let lo = SPTE_MMU_PRESENT_MASK | m.presentLo | m.memtype;
  let hi = m.presentHi;
  if ((role & ROLE_AD_DISABLED) !== 0) hi |= SPTE_TDP_AD_DISABLED_HI;
  const adEnabled = spteAdEnabled(hi);
  let wrprot = false;
  if (!prefetch && adEnabled) lo |= m.accessed;
  if (level > PG_LEVEL_4K) {
    if (vm.mmu.nxHugePages) access &= ~ACC_EXEC_MASK;
    lo |= PT_PAGE_SIZE_MASK;
  }
  if ((access & ACC_EXEC_MASK) !== 0) lo |= m.x;
  else hi |= m.nxHi;
  if ((access & ACC_USER_MASK) !== 0) lo |= m.user;
  if (hostWritable) {
    lo |= m.hostWritableLo;
    hi |= m.hostWritableHi;
  } else {
    access &= ~ACC_WRITE_MASK;
  }
  lo |= pfn << 12;
  hi |= (pfn / 0x100000) | 0;
  if ((access & ACC_WRITE_MASK) !== 0) {
    // An old leaf that was writable: its tables are unsync already, and the page is marked dirty when it goes.
    const wasWritable = isLastSpte(oldLo, level) && isWritable(oldLo);
    wrprot =
      !wasWritable && vm.mmu.indirectShadowPages !== 0 && mmuTryToUnsyncPages(vm, slot, gfn, canUnsync, prefetch);
    if (!wrprot) {
      lo |= PT_WRITABLE_MASK | m.mmuWritableLo;
      hi |= m.mmuWritableHi;
      if (!wasWritable && adEnabled) lo |= m.dirty;
    }
  }
  const out = vm.mmu.newSpte;
  out.lo = lo;
  out.hi = hi;
  if (prefetch) markSpteForAccessTrack(m, out);
  if ((lo & PT_WRITABLE_MASK) !== 0 && kvmSlotDirtyTrackEnabled(slot)) {
    if (level > PG_LEVEL_4K) {
      vm.log.warnOnOnce(true, 'make_spte', `writable huge page at gfn 0x${gfn.toString(16)} of a dirty-logged slot`);
    }
    markPageDirtyInSlot(vm, vcpu, slot, gfn);
  }
  return wrprot;
}

/**
 * Leaves in `out` the entry `index` of the page with `childRole` that replaces the huge (hugeLo, hugeHi).
 * @kvm spte.c make_huge_page_split_spte
 */
export function makeHugePageSplitSpte(
  vm: VmState,
  out: SpteWord,
  hugeLo: number,
  hugeHi: number,
  childRole: number,
  index: number,
): void {
  const level = roleLevel(childRole);
  // A huge page is aligned to itself, so the offset never carries.
  const offset = index * pagesPerLevel(level);
  out.lo = hugeLo | (offset << 12);
  out.hi = hugeHi | Math.floor(offset / 0x100000);
  if (level !== PG_LEVEL_4K) return;
  out.lo &= ~PT_PAGE_SIZE_MASK;
  if ((roleAccess(childRole) & ACC_EXEC_MASK) !== 0 && vm.mmu.nxHugePages) makeSpteExecutable(vm.mmu.masks, out);
}
