/** Where in a slot a huge page may not be used, counted (@kvm kvm_host.h struct kvm_lpage_info, kvm_arch_memory_slot). */
import { PG_LEVEL_1G, PG_LEVEL_2M } from '../../arch/paging.ts';
import type { Memslot } from '../memslots/memslots.ts';
import type { RmapHeads } from './shadow/rmap.ts';
import { hugeFrame, pagesPerLevel } from './tdp-iter.ts';

/** Largest page size that KVM maps (@kvm kvm_host.h KVM_MAX_HUGEPAGE_LEVEL). */
export const KVM_MAX_HUGEPAGE_LEVEL = PG_LEVEL_1G;

/** In a count: the attributes inside the huge page differ (@kvm mmu.c KVM_LPAGE_MIXED_FLAG). */
const KVM_LPAGE_MIXED_FLAG = 1 << 31;

/** The MMU's part of a slot. */
export class SlotArch {
  /** Counts of reasons for each 2 MiB and each 1 GiB that the slot touches; only zero allows a huge page. */
  readonly disallow2m: Int32Array;
  readonly disallow1g: Int32Array;
  /** First huge frame number of either array. */
  readonly first2m: number;
  readonly first1g: number;
  /** Leaves of the shadow MMU by level - 1 and frame; made when first used. */
  readonly rmap: (RmapHeads | undefined)[] = [];
  /** Writes to these pages (index in the slot) must be seen: how many shadowed tables each holds. @kvm kvm_host.h gfn_write_track */
  readonly gfnWriteTrack = new Map<number, number>();

  constructor(baseGfn: number, npages: number) {
    const n2m = pagesPerLevel(PG_LEVEL_2M);
    const n1g = pagesPerLevel(PG_LEVEL_1G);
    this.first2m = Math.floor(baseGfn / n2m);
    this.first1g = Math.floor(baseGfn / n1g);
    this.disallow2m = new Int32Array(Math.floor((baseGfn + npages - 1) / n2m) - this.first2m + 1);
    this.disallow1g = new Int32Array(Math.floor((baseGfn + npages - 1) / n1g) - this.first1g + 1);
  }
}

function counts(arch: SlotArch, level: number): Int32Array {
  return level === PG_LEVEL_2M ? arch.disallow2m : arch.disallow1g;
}

function indexOf(arch: SlotArch, gfn: number, level: number): number {
  return hugeFrame(gfn, level) - (level === PG_LEVEL_2M ? arch.first2m : arch.first1g);
}

/** Whether the huge page of `level` (2 or 3) around `gfn` is forbidden (@kvm mmu.c lpage_info_slot). HOT */
export function lpageDisallowed(slot: Memslot, gfn: number, level: number): boolean {
  const arch = slot.arch!;
  return counts(arch, level)[indexOf(arch, gfn, level)] !== 0;
}

/** One reason more (`count` 1) or less (-1) against a huge page around `gfn`. @kvm mmu.c update_gfn_disallow_lpage_count */
export function updateDisallowLpageCount(slot: Memslot, gfn: number, count: number): void {
  const arch = slot.arch!;
  for (let level = PG_LEVEL_2M; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
    counts(arch, level)[indexOf(arch, gfn, level)]! += count;
  }
}

/** Counts for a new slot: ends that are not aligned, and a host address that is not congruent (@kvm x86.c kvm_alloc_memslot_metadata). */
export function createSlotArch(slot: Memslot): SlotArch {
  const arch = new SlotArch(slot.baseGfn, slot.npages);
  const hostGfn = Math.floor(slot.userspaceAddr / 4096);
  for (let level = PG_LEVEL_2M; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
    const n = pagesPerLevel(level);
    const info = counts(arch, level);
    if (slot.baseGfn % n !== 0) info[0] = 1;
    if ((slot.baseGfn + slot.npages) % n !== 0) info[info.length - 1] = 1;
    if (slot.baseGfn % n !== hostGfn % n) info.fill(1);
  }
  return arch;
}

/** @kvm mmu.c hugepage_test_mixed */
export function hugepageTestMixed(slot: Memslot, gfn: number, level: number): boolean {
  const arch = slot.arch!;
  return (counts(arch, level)[indexOf(arch, gfn, level)]! & KVM_LPAGE_MIXED_FLAG) !== 0;
}

/** @kvm mmu.c hugepage_set_mixed, hugepage_clear_mixed */
export function hugepageMarkMixed(slot: Memslot, gfn: number, level: number, mixed: boolean): void {
  const arch = slot.arch!;
  const info = counts(arch, level);
  const i = indexOf(arch, gfn, level);
  if (mixed) info[i]! |= KVM_LPAGE_MIXED_FLAG;
  else info[i]! &= ~KVM_LPAGE_MIXED_FLAG;
}
