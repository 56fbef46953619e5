/** How large a page a fault may map (@kvm mmu.c kvm_mmu_hugepage_adjust). */
import { hiOf, loOf } from '../../arch/halves.ts';
import { PG_LEVEL_4K } from '../../arch/paging.ts';
import { hostMappingLevel } from '../../host/gup.ts';
import { memIsPrivate } from '../attributes.ts';
import { slotHva } from '../memslots/hva.ts';
import { kvmSlotCanBePrivate, kvmSlotDirtyTrackEnabled, type Memslot } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import type { PageFault } from './fault.ts';
import { lpageDisallowed } from './lpage-info.ts';
import { isErrorNoslotPfn } from './pfn.ts';
import { isLargePte, isShadowPresent, sptePfn } from './spte.ts';
import { pagesPerLevel } from './tdp-iter.ts';

/** The largest level that slot, attributes and host mapping allow at `gfn` (@kvm mmu.c __kvm_mmu_max_mapping_level). HOT */
function maxMappingLevelOf(vm: VmState, slot: Memslot, gfn: number, limit: number, isPrivate: boolean): number {
  let level = Math.min(limit, vm.vendor.maxHugePageLevel);
  while (level > PG_LEVEL_4K && lpageDisallowed(slot, gfn, level)) level--;
  if (isPrivate || level === PG_LEVEL_4K) return level;
  const hva = slotHva(slot, gfn);
  return Math.min(hostMappingLevel(vm.mm, loOf(hva), hiOf(hva)), level);
}

/** @kvm mmu.c kvm_mmu_max_mapping_level */
export function maxMappingLevel(vm: VmState, slot: Memslot, gfn: number, limit: number): number {
  return maxMappingLevelOf(vm, slot, gfn, limit, kvmSlotCanBePrivate(slot) && memIsPrivate(vm, gfn));
}

/** Sets the fault's requested and goal levels, and aligns its pfn to the goal. Under mmu_lock. @kvm mmu.c kvm_mmu_hugepage_adjust. HOT */
export function hugepageAdjust(vcpu: VcpuState, fault: PageFault): void {
  fault.hugePageDisallowed = fault.exec && fault.nxHugePageWorkaroundEnabled;
  if (fault.maxLevel === PG_LEVEL_4K || isErrorNoslotPfn(fault.pfn)) return;
  const slot = fault.slot!;
  if (kvmSlotDirtyTrackEnabled(slot)) return;
  fault.reqLevel = maxMappingLevelOf(vcpu.vm, slot, fault.gfn, fault.maxLevel, fault.isPrivate);
  if (fault.reqLevel === PG_LEVEL_4K || fault.hugePageDisallowed) return;
  fault.goalLevel = fault.reqLevel;
  const n = pagesPerLevel(fault.goalLevel);
  if (fault.gfn % n !== fault.pfn % n) {
    throw new Error(
      `gfn 0x${fault.gfn.toString(16)} and pfn 0x${fault.pfn.toString(16)} differ inside a level ${fault.goalLevel} page`,
    );
  }
  fault.pfn -= fault.pfn % n;
}

/** A page table that the NX workaround made is kept: the fault goes one level further down (@kvm mmu.c disallowed_hugepage_adjust). */
export function disallowedHugepageAdjust(vm: VmState, fault: PageFault, lo: number, hi: number, level: number): void {
  if (level <= PG_LEVEL_4K || level !== fault.goalLevel || !isShadowPresent(lo) || isLargePte(lo)) return;
  if (!vm.mmu.shadowPage(sptePfn(lo, hi)).nxHugePageDisallowed) return;
  const n = pagesPerLevel(level);
  const below = pagesPerLevel(level - 1);
  fault.pfn += Math.floor((fault.gfn % n) / below) * below;
  fault.goalLevel--;
}
