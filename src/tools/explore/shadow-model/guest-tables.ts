/**
 * The guest's own tables: words of guest memory that actors read and write, and what they mean to a processor. The tables' frames stay where
 * they are, so an entry has one place in memory throughout.
 */
import {
  PT_PAGE_SIZE_MASK,
  PT_PRESENT_MASK,
  PT_USER_MASK,
  PT_WRITABLE_MASK,
  PT64_NX_HI,
  ptePfn,
} from '../../../arch/paging.ts';
import { PTE_FRAME_MASK, PTE_PRESENT } from '../../../host/page-table.ts';
import { slotHva } from '../../../kvm/memslots/hva.ts';
import type { GuestWalker } from '../../../kvm/mmu/guest-walker.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import type { Scene } from '../scene.ts';

/** Entry of a linear page in its table of `level`. */
export function entryOfPage(page: number, level: number): number {
  return Math.floor(page / 512 ** (level - 1)) % 512;
}

interface Table {
  readonly gfn: number;
  /** Frame of the host. */
  readonly pfn: number;
}

/** What a walk of the guest's tables comes to. */
export class GuestTranslation {
  /** -1: none. */
  gfn = -1;
  writable = false;
  executable = false;
  /** The walk ended at an entry that is there but does not give the right. */
  present = false;
}

export class GuestTables {
  readonly tables: readonly Table[];
  /** Positions of entries, the same in each table, that are ever anything but 0, and those that linear pages of the scene lead to. */
  readonly indices: readonly number[];
  /** Two words an entry, and a bit each for the entries that userspace has written. */
  readonly words: number;
  /** Entries that userspace wrote, which no guest flushes: bit of table * indices + index. */
  private written = new Uint8Array(0);
  private readonly translation = new GuestTranslation();
  private readonly vm: VmState;

  constructor(vm: VmState, scene: Scene, indices: readonly number[]) {
    this.vm = vm;
    this.indices = indices;
    this.tables = (scene.tables ?? []).map(({ gfn }) => ({ gfn, pfn: this.frameOf(gfn) }));
    const n = this.tables.length * indices.length;
    this.written = new Uint8Array(n);
    this.words = 2 * n + Math.ceil(n / 32);
    for (const [t, { entries }] of (scene.tables ?? []).entries()) {
      for (const [index, value] of Object.entries(entries)) this.put(this.tables[t]!.pfn, Number(index), value);
    }
  }

  private frameOf(gfn: number): number {
    const slot = this.vm.slots.sets[0]!.find(gfn);
    const word = slot === null ? 0 : this.vm.mm.table.lookup(slotHva(slot, gfn));
    if ((word & PTE_PRESENT) === 0)
      throw new Error(`a table of the guest in gfn 0x${gfn.toString(16)}, which has no memory`);
    return word & PTE_FRAME_MASK;
  }

  /** Writes an entry, whoever does it. */
  put(pfn: number, index: number, value: number): void {
    const { i32 } = this.vm.memory;
    const at = (pfn << 10) | (index << 1);
    i32[at] = value | 0;
    i32[at + 1] = Math.floor(value / 0x1_0000_0000);
  }

  /** Number of the table in frame `gfn`, or -1. */
  tableOf(gfn: number): number {
    return this.tables.findIndex((t) => t.gfn === gfn);
  }

  /** Number of the table in the host's frame, or -1. */
  tableInFrame(pfn: number): number {
    return this.tables.findIndex((t) => t.pfn === pfn);
  }

  /** Userspace has written the entry. */
  noteUserspaceWrite(gfn: number, index: number): void {
    const at = this.position(gfn, index);
    if (at >= 0) this.written[at] = 1;
  }

  private position(gfn: number, index: number): number {
    const t = this.tableOf(gfn);
    const i = this.indices.indexOf(index);
    return t < 0 || i < 0 ? -1 : t * this.indices.length + i;
  }

  wroteUserspace(gfn: number, index: number): boolean {
    const at = this.position(gfn, index);
    return at >= 0 && this.written[at] === 1;
  }

  /** What the tables below `cr3` say of a linear page now. The answer is overwritten by the next one. */
  translate(cr3: number, page: number): GuestTranslation {
    const out = this.translation;
    const { i32 } = this.vm.memory;
    out.gfn = -1;
    out.present = false;
    out.writable = true;
    out.executable = true;
    let gfn = cr3;
    for (let level = 4; ; level--) {
      const t = this.tableOf(gfn);
      if (t < 0) return out;
      const at = (this.tables[t]!.pfn << 10) | (entryOfPage(page, level) << 1);
      const lo = i32[at]!;
      const hi = i32[at + 1]!;
      if ((lo & PT_PRESENT_MASK) === 0) return out;
      if ((lo & PT_WRITABLE_MASK) === 0) out.writable = false;
      if ((hi & PT64_NX_HI) !== 0) out.executable = false;
      if ((lo & PT_USER_MASK) === 0) out.present = true;
      gfn = ptePfn(lo, hi);
      if (level > 1 && (lo & PT_PAGE_SIZE_MASK) === 0) continue;
      // There, but not for users.
      if (out.present) return out;
      const n = 512 ** (level - 1);
      out.present = true;
      out.gfn = gfn - (gfn % n) + (page % n);
      return out;
    }
  }

  /** The frame that a walk's leaf entry maps the page to. */
  leafGfn(walker: GuestWalker, page: number): number {
    const i = walker.level - 1;
    const n = 512 ** i;
    const frame = ptePfn(walker.ptes[2 * i]!, walker.ptes[2 * i + 1]!);
    return frame - (frame % n) + (page % n);
  }

  /** The walk saw what is there now. */
  reread(walker: GuestWalker): void {
    const { i32 } = this.vm.memory;
    for (let i = walker.level - 1; i < walker.maxLevel; i++) {
      const at = (this.tables[this.tableOf(walker.tableGfn[i]!)]!.pfn << 10) | (walker.offset[i]! >> 2);
      walker.ptes[2 * i] = i32[at]!;
      walker.ptes[2 * i + 1] = i32[at + 1]!;
    }
  }

  capture(into: Int32Array, at: number): void {
    const { i32 } = this.vm.memory;
    let w = at;
    for (const { pfn } of this.tables) {
      for (const index of this.indices) {
        into[w++] = i32[(pfn << 10) | (index << 1)]!;
        into[w++] = i32[(pfn << 10) | (index << 1) | 1]!;
      }
    }
    for (let i = 0; i < this.written.length; i += 32) {
      let bits = 0;
      for (let k = 0; k < 32 && i + k < this.written.length; k++) if (this.written[i + k] === 1) bits |= 1 << k;
      into[w++] = bits;
    }
  }

  restore(from: Int32Array, at: number): void {
    const { i32 } = this.vm.memory;
    let w = at;
    for (const { pfn } of this.tables) {
      for (const index of this.indices) {
        i32[(pfn << 10) | (index << 1)] = from[w++]!;
        i32[(pfn << 10) | (index << 1) | 1] = from[w++]!;
      }
    }
    for (let i = 0; i < this.written.length; i++) this.written[i] = (from[w + (i >> 5)]! >>> (i & 31)) & 1;
  }

  describe(): string[] {
    const { i32 } = this.vm.memory;
    return this.tables.map(({ gfn, pfn }) => {
      const parts: string[] = [];
      for (const index of this.indices) {
        const lo = i32[(pfn << 10) | (index << 1)]!;
        const hi = i32[(pfn << 10) | (index << 1) | 1]!;
        if (lo !== 0)
          parts.push(
            `[${index}] gfn 0x${ptePfn(lo, hi).toString(16)}${(lo & 2) !== 0 ? ' W' : ''}${(lo & 128) !== 0 ? ' 2M' : ''}`,
          );
      }
      return `guest table in gfn 0x${gfn.toString(16)}: ${parts.length === 0 ? 'empty' : parts.join(', ')}`;
    });
  }
}
