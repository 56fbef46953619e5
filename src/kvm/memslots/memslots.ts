/**
 * A VM's memory slots (@kvm kvm_host.h struct kvm_memslots): one set an address space, ordered by guest frame, with the generation that
 * MMIO caches depend on. The kernel keeps two copies of each set and swaps them; what a reader can tell apart is kept here: which slots
 * are active, the generation, and whether an update is in flight.
 */
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { isVisibleMemslot, type Memslot } from './memslot.ts';

export class MemslotSet {
  readonly asId: number;
  /** Ordered by baseGfn; never overlapping. */
  readonly slots: Memslot[] = [];
  private readonly byId = new Map<number, Memslot>();
  /** Unique over the VM's address spaces: set n counts n, n + sets, n + 2 * sets, ... */
  generation: number;
  /** @kvm kvm_host.h KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS */
  updateInProgress = false;
  /** Last slot found. */
  private last: Memslot | null = null;

  constructor(asId: number) {
    this.asId = asId;
    this.generation = asId;
  }

  /** @kvm kvm_host.h id_to_memslot */
  idToMemslot(id: number): Memslot | null {
    return this.byId.get(id) ?? null;
  }

  /** The slot that holds `gfn`, an INVALID one included. @kvm kvm_host.h __gfn_to_memslot. HOT */
  find(gfn: number): Memslot | null {
    const last = this.last;
    if (last !== null && gfn >= last.baseGfn && gfn - last.baseGfn < last.npages) return last;
    return this.search(gfn);
  }

  /** @kvm kvm_host.h search_memslots */
  private search(gfn: number): Memslot | null {
    const i = this.indexAtOrBelow(gfn);
    if (i < 0) return null;
    const slot = this.slots[i]!;
    if (gfn - slot.baseGfn >= slot.npages) return null;
    this.last = slot;
    return slot;
  }

  /** Index of the last slot that starts at or below `gfn`, or -1. */
  private indexAtOrBelow(gfn: number): number {
    let low = 0;
    let high = this.slots.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (this.slots[mid]!.baseGfn <= gfn) low = mid + 1;
      else high = mid;
    }
    return low - 1;
  }

  /** First index whose slot reaches past `start`: where a walk of [start, ...) begins. */
  firstIndexFrom(start: number): number {
    const i = this.indexAtOrBelow(start);
    if (i < 0) return 0;
    const slot = this.slots[i]!;
    return start - slot.baseGfn < slot.npages ? i : i + 1;
  }

  /** Puts `next` in the place of `old`; null adds or removes. @kvm kvm_main.c kvm_replace_memslot */
  replace(old: Memslot | null, next: Memslot | null): void {
    if (old !== null) {
      const i = this.slots.indexOf(old);
      if (i < 0) throw new Error(`slot ${old.id} is not in address space ${this.asId}`);
      this.slots.splice(i, 1);
      this.byId.delete(old.id);
      if (this.last === old) this.last = null;
    }
    if (next !== null) {
      this.slots.splice(this.indexAtOrBelow(next.baseGfn) + 1, 0, next);
      this.byId.set(next.id, next);
    }
  }
}

export class MemslotSets {
  readonly sets: readonly MemslotSet[];
  /** Pages of all slots. @kvm kvm_host.h kvm->nr_memslot_pages */
  nrMemslotPages = 0;
  /** Slots with KVM_MEM_LOG_DIRTY_PAGES. @kvm kvm_host.h kvm->nr_memslots_dirty_logging */
  nrDirtyLogging = 0;

  /** @param count address spaces: 2 (normal and SMM), or 1 for a VM type without SMM. */
  constructor(count: number) {
    this.sets = Array.from({ length: count }, (_, asId) => new MemslotSet(asId));
  }

  /** Number of address spaces. @kvm kvm_host.h kvm_arch_nr_memslot_as_ids */
  get count(): number {
    return this.sets.length;
  }

  /** The generation, without the in-flight flag. */
  generation(asId: number): number {
    return this.sets[asId]!.generation;
  }

  /** An update of the set is in flight: nothing about its gaps may be cached. */
  updateInProgress(asId: number): boolean {
    return this.sets[asId]!.updateInProgress;
  }

  /** All slots of an address space, ordered by gfn. */
  all(asId: number): readonly Memslot[] {
    return this.sets[asId]!.slots;
  }

  /** Calls `fn` for each slot that has frames in [start, end), in order. @kvm kvm_host.h kvm_for_each_memslot_in_gfn_range */
  forEachInGfnRange(asId: number, start: number, end: number, fn: (slot: Memslot) => void): void {
    const set = this.sets[asId]!;
    for (let i = set.firstIndexFrom(start); i < set.slots.length; i++) {
      const slot = set.slots[i]!;
      if (slot.baseGfn >= end) return;
      fn(slot);
    }
  }
}

/** Address space of a vCPU: 1 in SMM, where the VM has two. @kvm kvm_host.h kvm_arch_vcpu_memslots_id. HOT */
export function vcpuMemslotsId(vcpu: VcpuState): number {
  return vcpu.smm && vcpu.vm.slots.sets.length > 1 ? 1 : 0;
}

/** The slot of address space `asId` that holds `gfn`, or null. @kvm kvm_main.c gfn_to_memslot. HOT */
export function gfnToMemslot(vm: VmState, gfn: number, asId = 0): Memslot | null {
  return vm.slots.sets[asId]!.find(gfn);
}

/** As the vCPU sees it now. @kvm kvm_main.c kvm_vcpu_gfn_to_memslot. HOT */
export function vcpuGfnToMemslot(vcpu: VcpuState, gfn: number): Memslot | null {
  return slotInSpace(vcpu.vm, vcpu.smm ? 1 : 0, gfn);
}

/** The second address space's, which never changes. */
const STRAY_GENERATION = 1;

/**
 * The slot that a vCPU finds in address space `asId`. System management mode in a VM with one space: Linux looks in a second one all the same,
 * which is empty. But each vCPU remembers the slot that it found last by the generation of the slots alone, and with the generation that the
 * empty space has, it takes that one. HOT
 */
export function slotInSpace(vm: VmState, asId: number, gfn: number): Memslot | null {
  const { sets } = vm.slots;
  if (asId < sets.length) return sets[asId]!.find(gfn);
  return sets[0]!.generation === STRAY_GENERATION ? sets[0]!.find(gfn) : null;
}

/** @kvm kvm_main.c kvm_is_visible_gfn */
export function isVisibleGfn(vm: VmState, gfn: number): boolean {
  return isVisibleMemslot(gfnToMemslot(vm, gfn));
}

export * from './memslot.ts';
