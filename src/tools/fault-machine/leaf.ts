/** The last-level entry of a place: found, filled and cleared as its MMU does it, so that the MMU's own books stay right. */
import { LOCK_MMU_WRITE } from '../../kvm/locks.ts';
import type { Memslot } from '../../kvm/memslots/memslot.ts';
import { ACC_ALL } from '../../kvm/mmu/role.ts';
import { dropSpte, forgetLostEntry, rmapAdd } from '../../kvm/mmu/shadow/rmap.ts';
import { isShadowPresent, SHADOW_NONPRESENT_HI, SHADOW_NONPRESENT_LO, type SpteWord } from '../../kvm/mmu/spte.ts';
import { lastSpteOf } from '../../kvm/mmu/walk-to-last-spte.ts';
import type { VcpuState } from '../../kvm/vcpu-state.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import type { GuestTables } from './guest-tables.ts';

export class Leaf {
  /** Position in the int32 view of memory, -1 when no table reaches so far. */
  sptep = -1;
  /** Role of the table. */
  role = 0;
  private readonly vm: VmState;
  private readonly vcpu: VcpuState;
  /** Null where nothing is shadowed. */
  private readonly guestTables: GuestTables | null;
  private readonly i32: Int32Array;

  constructor(vcpu: VcpuState, guestTables: GuestTables | null) {
    this.vm = vcpu.vm;
    this.vcpu = vcpu;
    this.guestTables = guestTables;
    this.i32 = vcpu.vm.memory.i32;
  }

  /** Goes to the entry for the address; what was at the old one must have been cleared. */
  find(addrLo: number, addrHi: number): void {
    const { vm, vcpu } = this;
    if (this.guestTables !== null) {
      vm.locks.acquire(LOCK_MMU_WRITE);
      this.guestTables.shadow(vcpu, addrLo, addrHi);
      vm.locks.release(LOCK_MMU_WRITE);
    }
    const last = lastSpteOf(vcpu, addrLo, addrHi);
    this.sptep = last.level === 1 ? last.sptep : -1;
    this.role = vm.mmu.shadowPage(last.sptep >>> 10).role;
  }

  /** Fills the entry, which is clear. HOT */
  put(word: SpteWord, slot: Memslot | null, gfn: number): void {
    if (this.sptep < 0) return;
    this.i32[this.sptep] = word.lo;
    this.i32[this.sptep + 1] = word.hi;
    if (this.guestTables !== null && isShadowPresent(word.lo)) rmapAdd(this.vm, slot!, this.sptep, gfn, ACC_ALL);
  }

  /** HOT */
  clear(): void {
    const { sptep, i32 } = this;
    if (sptep < 0) return;
    if (this.guestTables !== null && isShadowPresent(i32[sptep]!)) {
      dropSpte(this.vm, sptep);
      return;
    }
    i32[sptep] = SHADOW_NONPRESENT_LO;
    i32[sptep + 1] = SHADOW_NONPRESENT_HI;
    if (this.guestTables !== null) forgetLostEntry(this.vm, sptep);
  }
}
