/** Pre-order walk of a page table that the TDP MMU built (@kvm tdp_iter.h struct tdp_iter). */
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import { roleAsId, roleLevel } from './role.ts';
import type { ShadowPage } from './shadow-page.ts';
import { isLargePte, isShadowPresent, sptePfn } from './spte.ts';

const LARGEST_LEVEL = 5;

/** 4 KiB pages that an entry of each level maps; index 0 is unused. */
export const PAGES_PER_LEVEL = [0, 1, 512, 262144, 134217728, 68719476736] as const;

/** Below 8 TiB a gfn fits an int32: integer shifts are several times faster than divisions of doubles. */
const SHIFTABLE_GFN = 0x80000000;

/** Number of 4 KiB pages that one entry of `level` maps (@kvm kvm_host.h KVM_PAGES_PER_HPAGE). */
export function pagesPerLevel(level: number): number {
  return PAGES_PER_LEVEL[level as 1];
}

/** First gfn of the entry of `level` that maps `gfn` (@kvm mmu_internal.h gfn_round_for_level). HOT */
export function gfnRoundForLevel(gfn: number, level: number): number {
  if (level === 1) return gfn;
  if (gfn < SHIFTABLE_GFN) return level > 4 ? 0 : (gfn >> (9 * level - 9)) << (9 * level - 9);
  const n = pagesPerLevel(level);
  return Math.floor(gfn / n) * n;
}

/** Number of the page of `level` that `gfn` is in. HOT */
export function hugeFrame(gfn: number, level: number): number {
  if (gfn < SHIFTABLE_GFN && level <= 4) return gfn >> (9 * level - 9);
  return Math.floor(gfn / pagesPerLevel(level));
}

/** Index of `gfn` in its page table of `level`. @kvm spte.h spte_index. HOT */
function spteIndex(gfn: number, level: number): number {
  if (gfn < SHIFTABLE_GFN) return level > 4 ? 0 : (gfn >> (9 * level - 9)) & 511;
  return Math.floor(gfn / pagesPerLevel(level)) % 512;
}

/**
 * `sptep` is a position in the int32 view of physical memory, `(lo, hi)` the entry as last read. One iterator object serves many
 * walks; `start` begins one.
 */
export class TdpIter {
  sptep = 0;
  gfn = 0;
  level = 0;
  rootLevel = 0;
  minLevel = 1;
  asId = 0;
  oldLo = 0;
  oldHi = 0;
  valid = false;
  private nextLastLevelGfn = 0;
  /** First words of the page tables on the way, by level - 1; of the root, of its entry for gfn 0. */
  private readonly path = new Int32Array(LARGEST_LEVEL);
  private readonly i32: Int32Array;

  constructor(memory: PhysicalMemory) {
    this.i32 = memory.i32;
  }

  /** @kvm tdp_iter.c tdp_iter_start. HOT */
  start(root: ShadowPage, minLevel: number, gfn: number): void {
    this.nextLastLevelGfn = gfn;
    this.rootLevel = roleLevel(root.role);
    this.minLevel = minLevel;
    this.path[this.rootLevel - 1] = (root.pfn << 10) + root.rootBias;
    this.asId = roleAsId(root.role);
    this.level = this.rootLevel;
    this.gfn = gfnRoundForLevel(gfn, this.level);
    this.refreshSptep();
    this.valid = true;
  }

  /** @kvm tdp_iter.c tdp_iter_next. HOT */
  next(): void {
    if (this.stepDown()) return;
    do {
      if (this.tryStepSide()) return;
    } while (this.tryStepUp());
    this.valid = false;
  }

  /** Reads the current entry again. */
  refresh(): void {
    this.oldLo = this.i32[this.sptep]!;
    this.oldHi = this.i32[this.sptep + 1]!;
  }

  private refreshSptep(): void {
    this.sptep = this.path[this.level - 1]! + (spteIndex(this.gfn, this.level) << 1);
    this.refresh();
  }

  /** Goes to the table below the current entry, where there is one. HOT */
  stepDown(): boolean {
    if (this.level === this.minLevel) return false;
    this.refresh();
    if (!isShadowPresent(this.oldLo) || isLargePte(this.oldLo)) return false;
    this.level--;
    this.path[this.level - 1] = sptePfn(this.oldLo, this.oldHi) << 10;
    this.gfn = gfnRoundForLevel(this.nextLastLevelGfn, this.level);
    this.refreshSptep();
    return true;
  }

  private tryStepSide(): boolean {
    if ((this.sptep & 1023) === 1022) return false;
    this.gfn += pagesPerLevel(this.level);
    this.nextLastLevelGfn = this.gfn;
    this.sptep += 2;
    this.refresh();
    return true;
  }

  private tryStepUp(): boolean {
    if (this.level === this.rootLevel) return false;
    this.level++;
    this.gfn = gfnRoundForLevel(this.gfn, this.level);
    this.refreshSptep();
    return true;
  }
}
