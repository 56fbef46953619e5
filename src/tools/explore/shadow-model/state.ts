/** What the actors of a scene under shadow paging share, with what a processor may still believe of the guest's tables. */
import { PTE_FRAME_MASK, PTE_PRESENT } from '../../../host/page-table.ts';
import { slotHva } from '../../../kvm/memslots/hva.ts';
import type { Memslot } from '../../../kvm/memslots/memslot.ts';
import { INVALID_ROOT } from '../../../kvm/mmu/mmu-context.ts';
import { rootToSp } from '../../../kvm/mmu/obsolete.ts';
import type { VcpuState } from '../../../kvm/vcpu-state.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import type { SceneSlots } from '../kvm-model/slots.ts';
import { type ModelActor, RES_GUESTS, SceneWorld } from '../kvm-model/state.ts';
import type { ScenePages } from '../kvm-model/vm.ts';
import type { ShadowGuard } from '../shadow-scene.ts';
import type { GuestTables, GuestTranslation } from './guest-tables.ts';
import type { SceneShadowPages } from './pages.ts';
import type { ShadowVcpu } from './vcpu.ts';
import { PHASE_TRACK } from './vcpu-phase.ts';

/** In `ShadowVcpu.allowed`: gfns by number, to read, to write, and what of both stays whatever the guest does. */
const WRITE_SHIFT = 8;
const EVER_SHIFT = 16;

export class ShadowState extends SceneWorld {
  readonly vcpus: ShadowVcpu[] = [];
  readonly guest: GuestTables;
  readonly shadow: SceneShadowPages;
  /** Linear pages of the scene. */
  readonly linearPages: readonly number[];
  /** A guest used a translation that was void. */
  usedStale = false;
  /** Resource: what the processors hold, all together, as anybody's write to a table changes what all of them may believe. */
  readonly guestBits = RES_GUESTS;
  /** A translation must not be used after its flush even while somebody's emulated write is under way. */
  forbidsStaleDuringEmulation = false;
  private readonly guards: readonly ShadowGuard[];
  private asked: readonly number[] = [];

  constructor(
    vm: VmState,
    pages: ScenePages,
    gfns: readonly number[],
    slots: SceneSlots,
    guest: GuestTables,
    shadow: SceneShadowPages,
    linearPages: readonly number[],
    guards: readonly ShadowGuard[],
  ) {
    super(vm, pages, gfns, slots, null);
    this.guest = guest;
    this.shadow = shadow;
    this.linearPages = linearPages;
    this.guards = guards;
  }

  /** The scene goes without this guard. */
  without(guard: ShadowGuard): boolean {
    return this.guards.includes(guard);
  }

  slotOf(vcpu: VcpuState, gfn: number): Memslot | null {
    return this.vm.slots.sets[vcpu.smm ? 1 : 0]!.find(gfn);
  }

  /** Frame of the process behind `gfn`, -1 for none. */
  hostFrame(asId: number, gfn: number): number {
    const slot = this.vm.slots.sets[asId]!.find(gfn);
    if (slot === null) return -1;
    const word = this.vm.mm.table.lookup(slotHva(slot, gfn));
    return (word & PTE_PRESENT) === 0 ? -1 : word & PTE_FRAME_MASK;
  }

  unsyncRoot(pfn: number): boolean {
    if (pfn === INVALID_ROOT) return false;
    const sp = rootToSp(this.vm, pfn);
    return sp !== null && (sp.unsync || sp.unsyncChildren !== 0);
  }

  /** Before a step: which requests there are already. */
  noteRequests(): void {
    this.asked = this.vcpus.map((v) => v.vcpu.requests);
  }

  /** Whoever was asked for something new leaves the guest, within the present step. */
  deliverRequests(self: ModelActor): void {
    if (this.without('remote-flush')) return;
    this.vcpus.forEach((other, i) => {
      const isNew = (other.vcpu.requests & ~(this.asked[i] ?? 0)) !== 0;
      if (other !== self && other.vcpu.inGuest && isNew) other.interrupt();
    });
  }

  /** Everybody but `self` has finished, or idles in the guest. */
  othersRest(self: ModelActor): boolean {
    for (const actor of this.actors) {
      if (actor === self || actor.finished) continue;
      const vcpu = this.vcpus.find((v) => v === actor);
      if (vcpu === undefined || !vcpu.idle) return false;
    }
    return true;
  }

  // ---- what a processor may believe ----

  /** The gfns of a translation, to read and to write, as bits. */
  private bitsOf(t: GuestTranslation): number {
    const g = t.gfn < 0 ? -1 : this.gfns.indexOf(t.gfn);
    if (g < 0) return 0;
    return (1 << g) | (t.writable ? 1 << (g + WRITE_SHIFT) : 0);
  }

  private present(v: ShadowVcpu, p: number): number {
    return this.bitsOf(this.guest.translate(v.cr3, this.linearPages[p]!));
  }

  /**
   * After a flush of the page: what the tables say now is all that it may still be. A write that KVM is in the middle of emulating counts as
   * one that comes after the flush.
   */
  onlyPresent(v: ShadowVcpu, p: number): void {
    if (!this.forbidsStaleDuringEmulation && this.vcpus.some((other) => other.phase === PHASE_TRACK)) {
      this.alsoPresent(v, p);
      return;
    }
    const ever = v.allowed[p]! >>> EVER_SHIFT;
    v.allowed[p] = this.present(v, p) | ever | (ever << EVER_SHIFT);
  }

  /** What the tables say now may come to be used. */
  alsoPresent(v: ShadowVcpu, p: number): void {
    v.allowed[p]! |= this.present(v, p);
  }

  /** Somebody changes tables: what they said before, and say afterwards, may be used until it is flushed; for ever, if userspace did it. */
  changesGuest(change: () => void, byUserspace = false): void {
    const before = this.vcpus.map((v) => this.linearPages.map((_, p) => this.present(v, p)));
    change();
    this.vcpus.forEach((v, i) => {
      this.linearPages.forEach((_, p) => {
        const old = before[i]![p]!;
        const now = this.present(v, p);
        v.allowed[p]! |= now;
        if (byUserspace && now !== old) v.allowed[p]! |= old | (old << EVER_SHIFT);
      });
    });
  }

  /** A guest writes an entry by its own access to the frame. */
  storeInFrame(pfn: number, index: number, value: number): void {
    if (this.guest.tableInFrame(pfn) < 0) return;
    this.changesGuest(() => this.guest.put(pfn, index, value));
  }

  /** The guest accesses linear page number `p` in frame `pfn`: is it one that the page may still be? */
  used(v: ShadowVcpu, p: number, pfn: number, write: boolean): void {
    const allowed = (v.allowed[p]! >>> (write ? WRITE_SHIFT : 0)) & 0xff;
    const asId = v.vcpu.smm ? 1 : 0;
    let owned = false;
    for (let g = 0; g < this.gfns.length; g++) {
      if (this.hostFrame(asId, this.gfns[g]!) !== pfn) continue;
      if ((allowed & (1 << g)) !== 0) return;
      owned = true;
    }
    // Of a frame that is nobody's other invariants speak.
    if (owned) this.usedStale = true;
  }
}
