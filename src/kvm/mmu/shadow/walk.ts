/** From the root of the shadow tables down to the entry for an address (@kvm mmu.c struct kvm_shadow_walk_iterator). */
import type { VmState } from '../../vm-state.ts';
import type { Mmu } from '../mmu-context.ts';
import { isDummyRoot } from '../obsolete.ts';
import { ROLE_DIRECT, roleLevel } from '../role.ts';
import { isLastSpte, isShadowPresent, sptePfn } from '../spte.ts';

/** Position of the address (halves) in its table of `level`. @kvm mmu.c SPTE_INDEX */
function addressIndex(lo: number, hi: number, level: number): number {
  if (level === 1) return (lo >>> 12) & 511;
  if (level === 2) return (lo >>> 21) & 511;
  if (level === 3) return ((lo >>> 30) | (hi << 2)) & 511;
  return (hi >>> (level === 4 ? 7 : 16)) & 511;
}

/** `level` is 0 once the walk is over; the entry is then still the last one that was there. */
export class ShadowWalk {
  level = 0;
  index = 0;
  sptep = 0;
  oldLo = 0;
  oldHi = 0;
  private addrLo = 0;
  private addrHi = 0;
  private tablePfn = 0;
  private readonly vm: VmState;

  constructor(vm: VmState) {
    this.vm = vm;
  }

  /** Begins at the MMU's root. False when there is nothing to walk. @kvm mmu.c shadow_walk_init */
  start(mmu: Mmu, addrLo: number, addrHi: number): boolean {
    return this.startAtRoot(mmu, mmu.root.pfn, addrLo, addrHi);
  }

  /** @kvm mmu.c shadow_walk_init_using_root */
  startAtRoot(mmu: Mmu, rootPfn: number, addrLo: number, addrHi: number): boolean {
    this.addrLo = addrLo;
    this.addrHi = addrHi;
    this.level = 0;
    if (rootPfn < 0 || isDummyRoot(this.vm, rootPfn)) return false;
    let level = roleLevel(mmu.rootRole);
    // Where a guest of fewer levels is shadowed, the levels above its own tables are of no interest.
    if (level >= 4 && roleLevel(mmu.cpuRole) < 4 && (mmu.rootRole & ROLE_DIRECT) === 0) level = 3;
    let table = rootPfn;
    if (level === 3) {
      const at = (mmu.paeRoot << 10) | (((addrLo >>> 30) & 3) << 1);
      const i32 = this.vm.memory.i32;
      const lo = i32[at]!;
      const hi = i32[at + 1]!;
      if ((lo | hi) === 0) return false;
      table = sptePfn(lo, hi);
      level = 2;
    }
    this.tablePfn = table;
    this.level = level;
    this.enter();
    return true;
  }

  /** Goes one table down; false, and level 0, at a leaf or where nothing hangs below. @kvm mmu.c __shadow_walk_next */
  next(): boolean {
    this.refresh();
    if (!isShadowPresent(this.oldLo) || isLastSpte(this.oldLo, this.level)) {
      this.level = 0;
      return false;
    }
    this.tablePfn = sptePfn(this.oldLo, this.oldHi);
    this.level--;
    this.enter();
    return true;
  }

  /** Reads the entry again. */
  refresh(): void {
    this.oldLo = this.vm.memory.i32[this.sptep]!;
    this.oldHi = this.vm.memory.i32[this.sptep + 1]!;
  }

  private enter(): void {
    this.index = addressIndex(this.addrLo, this.addrHi, this.level);
    this.sptep = (this.tablePfn << 10) | (this.index << 1);
    this.refresh();
  }
}
