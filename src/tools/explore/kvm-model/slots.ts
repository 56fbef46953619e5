/**
 * Slots as numbers: two that are the same in everything are one, whichever step made them. With each goes what is not fixed about it: the
 * dirty bits of the scene's frames, where huge pages are mixed, and whether its guest_memfd is still there.
 */
import { Memslot } from '../../../kvm/memslots/memslot.ts';
import { hugepageMarkMixed, hugepageTestMixed, type SlotArch } from '../../../kvm/mmu/lpage-info.ts';
import type { VmState } from '../../../kvm/vm-state.ts';

/** A slot's number fits 6 bits; parts that slots share (bitmap, MMU's part) fit 4 each. */
const MAX_SLOTS = 62;
const MAX_PARTS = 4;
const MAX_GFNS = 8;

export class SceneSlots {
  readonly slots: Memslot[] = [];
  /** All slots that there can be have their numbers. */
  complete = false;
  private readonly numberOf = new WeakMap<Memslot, number>();
  private readonly numberOfKey = new Map<string, number>();
  private readonly bitmaps: Uint8Array[] = [];
  private readonly arches: SlotArch[] = [];
  /** A slot that has the part: to read it by. */
  private readonly bitmapSlot: (Memslot | null)[] = [];
  private readonly archSlot: (Memslot | null)[] = [];
  private readonly partOf = new WeakMap<object, number>();
  private readonly partKeys = new Map<string, number>();
  private readonly vm: VmState;
  private readonly gfns: readonly number[];

  constructor(vm: VmState, gfns: readonly number[]) {
    if (gfns.length > MAX_GFNS) throw new Error(`a scene watches ${gfns.length} frames, expected ${MAX_GFNS} at most`);
    this.vm = vm;
    this.gfns = gfns;
  }

  /** Number of a slot from 1, 0 for null. HOT */
  number(slot: Memslot | null): number {
    if (slot === null) return 0;
    const known = this.numberOf.get(slot);
    return known ?? this.learn(slot);
  }

  /** The slot with this number. HOT */
  slot(number: number): Memslot | null {
    return number === 0 ? null : this.slots[number - 1]!;
  }

  /** A slot like the one with this number, for somebody who is still to change it. */
  copy(number: number): Memslot | null {
    const slot = this.slot(number);
    return slot === null ? null : copyOf(slot);
  }

  private learn(slot: Memslot): number {
    const range = `${slot.id} ${slot.asId} ${slot.baseGfn} ${slot.npages}`;
    const bitmap = this.part(this.bitmaps, slot.dirtyBitmap, `bitmap ${range}`);
    const arch = this.part(this.arches, slot.arch, `arch ${range} ${slot.userspaceAddr}`);
    const gmem = slot.gmem === null ? '' : `${slot.gmem.pgoff}`;
    const key = `${range} ${slot.flags} ${slot.userspaceAddr} ${bitmap} ${arch} ${gmem}`;
    let number = this.numberOfKey.get(key);
    if (number === undefined) {
      if (this.complete) throw new Error(`a step made a slot that no order of the scene's slot changes makes: ${key}`);
      if (this.slots.length === MAX_SLOTS) throw new Error('a scene makes more slots than a model can tell apart');
      // One that is still being made changes yet: what is kept is how it is now.
      number = this.slots.push(slot.arch === null ? copyOf(slot) : slot);
      this.numberOfKey.set(key, number);
      this.bitmapSlot[bitmap - 1] ??= slot;
      this.archSlot[arch - 1] ??= slot;
    }
    // A slot that is still being made may get its parts yet: it is looked at again then.
    if (slot.arch !== null) this.numberOf.set(slot, number);
    return number;
  }

  /** Number from 1 of a part that several slots may share, 0 for none. */
  private part<T extends object>(list: T[], part: T | null, key: string): number {
    if (part === null) return 0;
    let number = this.partOf.get(part);
    if (number === undefined) {
      number = this.partKeys.get(key);
      if (number === undefined) {
        if (list.length === MAX_PARTS) throw new Error('a scene makes more slots than a model can tell apart');
        number = list.push(part);
        this.partKeys.set(key, number);
      }
      this.partOf.set(part, number);
    }
    return number;
  }

  /** The active slots of an address space, eight bits each. HOT */
  active(asId: number): number {
    const { slots } = this.vm.slots.sets[asId]!;
    if (slots.length > 4) throw new Error('a scene has more than four slots in an address space');
    let word = 0;
    for (let i = 0; i < slots.length; i++) word |= this.number(slots[i]!) << (8 * i);
    return word;
  }

  /** HOT */
  restoreActive(asId: number, word: number): void {
    const set = this.vm.slots.sets[asId]!;
    if (this.active(asId) === word && this.areCanonical(set.slots)) return;
    while (set.slots.length > 0) set.replace(set.slots[0]!, null);
    for (let left = word; left !== 0; left >>>= 8) set.replace(null, this.slots[(left & 255) - 1]!);
  }

  private areCanonical(slots: readonly Memslot[]): boolean {
    for (let i = 0; i < slots.length; i++) if (this.slots[this.number(slots[i]!) - 1] !== slots[i]) return false;
    return true;
  }

  /** Dirty bits by bitmap and gfn, eight a bitmap. HOT */
  dirtyBits(): number {
    let word = 0;
    const live = this.vm.slots.sets;
    for (let s = 0; s < live.length; s++) {
      const { slots } = live[s]!;
      for (let i = 0; i < slots.length; i++) {
        const slot = slots[i]!;
        const bitmap = slot.dirtyBitmap;
        if (bitmap === null) continue;
        const shift = 8 * (this.partOf.get(bitmap)! - 1);
        for (let g = 0; g < this.gfns.length; g++) {
          const page = this.gfns[g]! - slot.baseGfn;
          if (page >= 0 && page < slot.npages && ((bitmap[page >>> 3]! >>> (page & 7)) & 1) !== 0)
            word |= 1 << (shift + g);
        }
      }
    }
    return word;
  }

  /** HOT */
  restoreDirtyBits(word: number): void {
    for (let b = 0; b < this.bitmaps.length; b++) {
      const slot = this.bitmapSlot[b]!;
      const bitmap = this.bitmaps[b]!;
      for (let g = 0; g < this.gfns.length; g++) {
        const page = this.gfns[g]! - slot!.baseGfn;
        if (page < 0 || page >= slot!.npages) continue;
        const bit = 1 << (page & 7);
        if ((word & (1 << (8 * b + g))) !== 0) bitmap[page >>> 3]! |= bit;
        else bitmap[page >>> 3]! &= ~bit;
      }
    }
  }

  /** Whether huge pages are mixed, by part and the first gfns of the scene, 2 MiB and 1 GiB: for VMs with private memory. HOT */
  mixedBits(): number {
    if (!this.vm.hasPrivateMem) return 0;
    let word = 0;
    const { slots } = this.vm.slots.sets[0]!;
    for (let i = 0; i < slots.length; i++) {
      const slot = slots[i]!;
      const shift = 8 * (this.partOf.get(slot.arch!)! - 1);
      for (let g = 0; g < this.gfns.length && g < 4; g++) {
        if (!inSlot(slot, this.gfns[g]!)) continue;
        if (hugepageTestMixed(slot, this.gfns[g]!, 2)) word |= 1 << (shift + 2 * g);
        if (hugepageTestMixed(slot, this.gfns[g]!, 3)) word |= 2 << (shift + 2 * g);
      }
    }
    return word;
  }

  /** HOT */
  restoreMixedBits(word: number): void {
    if (!this.vm.hasPrivateMem) return;
    for (let a = 0; a < this.arches.length; a++) {
      const slot = this.archSlot[a]!;
      for (let g = 0; g < this.gfns.length && g < 4; g++) {
        if (!inSlot(slot!, this.gfns[g]!)) continue;
        hugepageMarkMixed(slot!, this.gfns[g]!, 2, (word & (1 << (8 * a + 2 * g))) !== 0);
        hugepageMarkMixed(slot!, this.gfns[g]!, 3, (word & (2 << (8 * a + 2 * g))) !== 0);
      }
    }
  }
}

function copyOf(slot: Memslot): Memslot {
  const copy = new Memslot(slot.id, slot.asId, slot.baseGfn, slot.npages, slot.flags, slot.userspaceAddr);
  copy.arch = slot.arch;
  copy.dirtyBitmap = slot.dirtyBitmap;
  copy.gmem = slot.gmem;
  return copy;
}

function inSlot(slot: Memslot, gfn: number): boolean {
  return gfn >= slot.baseGfn && gfn < slot.baseGfn + slot.npages;
}
