/**
 * What private and shared memory mean for mappings: none survives a change, huge pages need uniform attributes (@kvm mmu.c
 * hugepage_has_attrs).
 */
import { PG_LEVEL_2M } from '../../arch/paging.ts';
import { getMemoryAttributes, KVM_MEMORY_ATTRIBUTE_PRIVATE, rangeHasMemoryAttributes } from '../attributes.ts';
import type { Memslot } from '../memslots/memslots.ts';
import { type GfnRange, KVM_FILTER_PRIVATE, KVM_FILTER_SHARED, mmuInvalidateRangeAdd } from '../notifier.ts';
import type { VmState } from '../vm-state.ts';
import { hugepageMarkMixed, hugepageTestMixed, KVM_MAX_HUGEPAGE_LEVEL } from './lpage-info.ts';
import { unmapGfnRange } from './notifier-handlers.ts';
import { gfnRoundForLevel, pagesPerLevel } from './tdp-iter.ts';

/**
 * Before attributes change: zaps the range, and sees to it that no fault nearby maps a huge page over its ends. True when TLBs must be
 * flushed. mmu_lock held for write. @kvm mmu.c kvm_arch_pre_set_memory_attributes
 */
export function preSetMemoryAttributes(vm: VmState, range: GfnRange): boolean {
  if (vm.log.warnOnOnce(!vm.hasPrivateMem, 'kvm_arch_pre_set_memory_attributes', 'VM without private memory'))
    return false;
  if (vm.log.warnOnOnce(range.end <= range.start, 'kvm_arch_pre_set_memory_attributes', 'empty range')) return false;
  if (vm.revision.rules.attributesHoldHugePages) holdCutHugePages(vm, range);
  range.attrFilter = (range.attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE) !== 0 ? KVM_FILTER_SHARED : KVM_FILTER_PRIVATE;
  return unmapGfnRange(vm, range);
}

/** The huge pages that the ends of the range cut are part of the invalidation. */
function holdCutHugePages(vm: VmState, range: GfnRange): void {
  const { slot } = range;
  const slotEnd = slot.baseGfn + slot.npages;
  for (let level = PG_LEVEL_2M; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
    const start = gfnRoundForLevel(range.start, level);
    const end = gfnRoundForLevel(range.end - 1, level);
    const n = pagesPerLevel(level);
    const headCut = start !== range.start || start + n > range.end;
    if (headCut && start >= slot.baseGfn && start + n <= slotEnd && !hugepageTestMixed(slot, start, level)) {
      mmuInvalidateRangeAdd(vm, start, start + n);
    }
    if (end === start) continue;
    if (end + n > range.end && end + n <= slotEnd && !hugepageTestMixed(slot, end, level)) {
      mmuInvalidateRangeAdd(vm, end, end + n);
    }
  }
}

/** Whether all of the huge page at `gfn` has `attrs`; levels below have been looked at before. @kvm mmu.c hugepage_has_attrs */
function hugepageHasAttrs(vm: VmState, slot: Memslot, gfn: number, level: number, attrs: number): boolean {
  const end = gfn + pagesPerLevel(level);
  if (level === PG_LEVEL_2M) return rangeHasMemoryAttributes(vm, gfn, end, ~0, attrs);
  for (let at = gfn; at < end; at += pagesPerLevel(level - 1)) {
    if (hugepageTestMixed(slot, at, level - 1) || getMemoryAttributes(vm, at) !== attrs) return false;
  }
  return true;
}

/** After attributes changed: says anew which huge pages are mixed. @kvm mmu.c kvm_arch_post_set_memory_attributes */
export function postSetMemoryAttributes(vm: VmState, range: GfnRange): boolean {
  if (vm.log.warnOnOnce(!vm.hasPrivateMem, 'kvm_arch_post_set_memory_attributes', 'VM without private memory'))
    return false;
  const { slot, attributes } = range;
  const slotEnd = slot.baseGfn + slot.npages;
  for (let level = PG_LEVEL_2M; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
    const n = pagesPerLevel(level);
    let gfn = gfnRoundForLevel(range.start, level);
    if (gfn !== range.start || gfn + n > range.end) {
      if (gfn >= slot.baseGfn && gfn + n <= slotEnd) {
        hugepageMarkMixed(slot, gfn, level, !hugepageHasAttrs(vm, slot, gfn, level, attributes));
      }
      gfn += n;
    }
    for (; gfn + n <= range.end; gfn += n) hugepageMarkMixed(slot, gfn, level, false);
    if (gfn < range.end && gfn + n <= slotEnd) {
      hugepageMarkMixed(slot, gfn, level, !hugepageHasAttrs(vm, slot, gfn, level, attributes));
    }
  }
  return false;
}

/** A new slot may lie over attributes that are mixed already. @kvm mmu.c kvm_mmu_init_memslot_memory_attributes */
export function initMemslotMemoryAttributes(vm: VmState, slot: Memslot): void {
  if (!vm.hasPrivateMem) return;
  for (let level = PG_LEVEL_2M; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
    const n = pagesPerLevel(level);
    const end = gfnRoundForLevel(slot.baseGfn + slot.npages, level);
    let gfn = gfnRoundForLevel(slot.baseGfn, level);
    if (gfn < slot.baseGfn) gfn += n;
    for (; gfn < end; gfn += n) {
      hugepageMarkMixed(slot, gfn, level, !hugepageHasAttrs(vm, slot, gfn, level, getMemoryAttributes(vm, gfn)));
    }
  }
}
