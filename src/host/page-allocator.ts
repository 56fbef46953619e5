/**
 * The page allocator: hands out frames of physical memory as folios of 4 KiB, 2 MiB (512-aligned) and 1 GiB (0x40000-aligned).
 *
 * Memory is kept in blocks of 512 frames. A block is free as a whole, or broken into small pages, or (part of) a huge folio. Small
 * pages come from the lowest free block and huge folios from the highest, in a gigabyte that is already broken when there is one, so
 * that whole aligned gigabytes last. Free small pages sit on one stack, which makes the hot paths O(1); blocks whose small pages
 * have all come back are joined again when a huge folio is wanted and none is left.
 *
 * Pages come zeroed. Memory that was never handed out is zero already, so the first use of a folio, however large, writes nothing.
 */
import { PAGE_SIZE, type PhysicalMemory, PROCESSOR_FRAMES } from './physical-memory.ts';

export const FRAMES_2M = 512;
export const FRAMES_1G = 0x40000;

/** Bits of `flags`, one byte a frame. */
/** The frame was handed out before: its contents are unknown. */
export const FRAME_TOUCHED = 1;
/** A memory error was reported here: never handed out again. */
export const FRAME_POISONED = 2;
/** Marked idle through the page_idle bitmap, and not accessed since, as far as anybody looked. */
export const FRAME_IDLE = 4;
/** The folio has data that its swap or file copy has not. */
export const FRAME_DIRTY = 8;

/** A block of the processor's own frames is 0, and so never free. */
const BLOCK_FREE = 1;
const BLOCK_SMALL = 2;
const BLOCK_HUGE = 3;
const BLOCK_GIGANTIC = 4;

/** What `PageAllocator.capture` returns. */
export interface PageAllocatorState {
  readonly refs: Int32Array;
  readonly flags: Uint8Array;
  readonly block: Uint8Array;
  readonly freeInBlock: Uint16Array;
  readonly stack: Int32Array;
  readonly freeFrames: number;
}

export class PageAllocator {
  /** References to the folio, at its first frame: page tables, page cache, owners in the kernel. 0 is free. */
  readonly refs: Int32Array;
  readonly flags: Uint8Array;
  /** Frames that could be handed out now. */
  freeFrames = 0;
  private readonly memory: PhysicalMemory;
  private readonly u8: Uint8Array;
  private readonly watch: Uint8Array;
  private readonly stack: Int32Array;
  private top = 0;
  private readonly block: Uint8Array;
  private readonly freeInBlock: Uint16Array;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
    this.u8 = memory.u8;
    this.watch = memory.watch;
    this.refs = new Int32Array(memory.frames);
    this.flags = new Uint8Array(memory.frames);
    this.stack = new Int32Array(memory.frames);
    const blocks = Math.ceil(memory.frames / FRAMES_2M);
    this.block = new Uint8Array(blocks);
    this.freeInBlock = new Uint16Array(blocks);
    const whole = Math.floor(memory.frames / FRAMES_2M);
    for (let b = PROCESSOR_FRAMES / FRAMES_2M; b < whole; b++) this.block[b] = BLOCK_FREE;
    this.freeFrames = (whole - PROCESSOR_FRAMES / FRAMES_2M) * FRAMES_2M;
  }

  /** A zeroed 4 KiB page with one reference, or -1 when memory is full. HOT */
  allocPage(): number {
    if (this.top === 0 && !this.breakBlock()) return -1;
    const pfn = this.stack[--this.top]!;
    this.freeInBlock[pfn >> 9]!--;
    this.freeFrames--;
    this.refs[pfn] = 1;
    if (this.flags[pfn] !== 0) this.clear(pfn);
    this.flags[pfn] = FRAME_TOUCHED;
    return pfn;
  }

  /** A 4 KiB page whose contents do not matter, with one reference, or -1. For whoever overwrites all of it. HOT */
  allocPageForCopy(): number {
    if (this.top === 0 && !this.breakBlock()) return -1;
    const pfn = this.stack[--this.top]!;
    this.freeInBlock[pfn >> 9]!--;
    this.freeFrames--;
    this.refs[pfn] = 1;
    this.flags[pfn] = FRAME_TOUCHED;
    if (this.watch[pfn] !== 0) this.memory.noteWrite(pfn);
    return pfn;
  }

  /** Gives back a 4 KiB page, whatever its reference count says. HOT */
  freePage(pfn: number): void {
    if (this.refs[pfn] === 0) throw new Error(`frame ${pfn.toString(16)} freed twice`);
    this.refs[pfn] = 0;
    const flags = this.flags[pfn]!;
    if ((flags & FRAME_POISONED) !== 0) return;
    this.flags[pfn] = FRAME_TOUCHED;
    this.stack[this.top++] = pfn;
    this.freeInBlock[pfn >> 9]!++;
    this.freeFrames++;
  }

  /** One more reference to a folio, named by its first frame. */
  get(pfn: number): void {
    this.refs[pfn]!++;
  }

  /** Drops a reference to the folio of `level` (1: 4K, 2: 2M, 3: 1G) that starts at `pfn`; the last one frees it. HOT */
  put(pfn: number, level: number): void {
    const left = this.refs[pfn]! - 1;
    if (left > 0) {
      this.refs[pfn] = left;
    } else if (level === 1) {
      this.freePage(pfn);
    } else if (level === 2) {
      this.freeHuge(pfn);
    } else {
      this.freeGigantic(pfn);
    }
  }

  /** A zeroed 2 MiB folio with one reference: its first frame, or -1. */
  allocHuge(): number {
    let b = this.findHuge();
    if (b < 0 && this.joinBlocks()) b = this.findHuge();
    if (b < 0) return -1;
    this.block[b] = BLOCK_HUGE;
    this.freeFrames -= FRAMES_2M;
    const pfn = b * FRAMES_2M;
    this.clearRange(pfn, FRAMES_2M);
    this.refs[pfn] = 1;
    return pfn;
  }

  /** A zeroed 1 GiB folio with one reference: its first frame, or -1. */
  allocGigantic(): number {
    let g = this.findGigantic();
    if (g < 0 && this.joinBlocks()) g = this.findGigantic();
    if (g < 0) return -1;
    this.block.fill(BLOCK_GIGANTIC, g * 512, g * 512 + 512);
    this.freeFrames -= FRAMES_1G;
    const pfn = g * FRAMES_1G;
    this.clearRange(pfn, FRAMES_1G);
    this.refs[pfn] = 1;
    return pfn;
  }

  /** A folio of the page size that a page-table level maps, or -1. */
  allocLevel(level: number): number {
    return level === 1 ? this.allocPage() : level === 2 ? this.allocHuge() : this.allocGigantic();
  }

  /** Turns a 2 MiB folio into 512 pages with as many references each as the folio had. */
  splitHuge(pfn: number): void {
    if (this.block[pfn >> 9] !== BLOCK_HUGE) throw new Error(`frame ${pfn.toString(16)} is no 2 MiB folio`);
    this.block[pfn >> 9] = BLOCK_SMALL;
    this.freeInBlock[pfn >> 9] = 0;
    const refs = this.refs[pfn]!;
    const dirty = this.flags[pfn]! & (FRAME_DIRTY | FRAME_IDLE);
    for (let i = 0; i < FRAMES_2M; i++) {
      this.refs[pfn + i] = refs;
      this.flags[pfn + i]! |= dirty;
    }
  }

  /** Marks a frame as broken: it leaves circulation when it is freed. @kvm memory-failure.c SetPageHWPoison */
  poison(pfn: number): void {
    this.flags[pfn]! |= FRAME_POISONED;
  }

  isPoisoned(pfn: number): boolean {
    return (this.flags[pfn]! & FRAME_POISONED) !== 0;
  }

  /** Records that the folio was written through a mapping that page tables do not show. @kvm kvm_main.c kvm_set_pfn_dirty */
  setDirty(pfn: number): void {
    this.flags[pfn]! |= FRAME_DIRTY;
  }

  /** Whether a folio of this level could be allocated now. */
  canAlloc(level: number): boolean {
    if (level === 1) return this.freeFrames > 0;
    if ((level === 2 ? this.findHuge() : this.findGigantic()) >= 0) return true;
    return this.joinBlocks() && (level === 2 ? this.findHuge() : this.findGigantic()) >= 0;
  }

  /** Frames of the folio that starts at `pfn`, which is in use: 1, 512 or 0x40000. */
  folioFrames(pfn: number): number {
    const state = this.block[pfn >> 9];
    return state === BLOCK_GIGANTIC ? FRAMES_1G : state === BLOCK_HUGE ? FRAMES_2M : 1;
  }

  /** A copy of the books; the contents of frames are the machine's business. */
  capture(): PageAllocatorState {
    return {
      refs: this.refs.slice(),
      flags: this.flags.slice(),
      block: this.block.slice(),
      freeInBlock: this.freeInBlock.slice(),
      stack: this.stack.slice(0, this.top),
      freeFrames: this.freeFrames,
    };
  }

  /** Frames touched since `state` stay marked so: they hold data now, whatever the state said. */
  restore(state: PageAllocatorState): void {
    for (let pfn = 0; pfn < this.flags.length; pfn++) {
      this.flags[pfn] = state.flags[pfn]! | (this.flags[pfn]! & FRAME_TOUCHED);
    }
    this.refs.set(state.refs);
    this.block.set(state.block);
    this.freeInBlock.set(state.freeInBlock);
    this.stack.set(state.stack);
    this.top = state.stack.length;
    this.freeFrames = state.freeFrames;
  }

  private freeHuge(pfn: number): void {
    if (this.refs[pfn] === 0) throw new Error(`2 MiB folio ${pfn.toString(16)} freed twice`);
    this.refs[pfn] = 0;
    for (let i = 0; i < FRAMES_2M; i++) {
      if (this.isPoisoned(pfn + i)) {
        this.refs[pfn] = 1;
        this.splitHuge(pfn);
        for (let j = 0; j < FRAMES_2M; j++) this.freePage(pfn + j);
        return;
      }
    }
    this.flags.fill(FRAME_TOUCHED, pfn, pfn + FRAMES_2M);
    this.block[pfn >> 9] = BLOCK_FREE;
    this.freeFrames += FRAMES_2M;
  }

  private freeGigantic(pfn: number): void {
    this.refs[pfn] = 0;
    for (let b = 0; b < FRAMES_2M; b++) {
      this.block[(pfn >> 9) + b] = BLOCK_HUGE;
      this.refs[pfn + b * FRAMES_2M] = 1;
      this.freeHuge(pfn + b * FRAMES_2M);
    }
  }

  private clear(pfn: number): void {
    if (this.watch[pfn] !== 0) this.memory.noteWrite(pfn);
    this.u8.fill(0, pfn * PAGE_SIZE, (pfn + 1) * PAGE_SIZE);
  }

  private clearRange(pfn: number, count: number): void {
    for (let i = pfn; i < pfn + count; i++) if (this.flags[i] !== 0 && !this.isZero(i)) this.clear(i);
    this.flags.fill(FRAME_TOUCHED, pfn, pfn + count);
  }

  /** Most of a huge folio is often unwritten still; looking keeps it so, where writing zeros would make it real. */
  private isZero(pfn: number): boolean {
    const i32 = this.memory.i32;
    const end = (pfn + 1) << 10;
    for (let i = pfn << 10; i < end; i += 4) {
      if ((i32[i]! | i32[i + 1]! | i32[i + 2]! | i32[i + 3]!) !== 0) return false;
    }
    return true;
  }

  private breakBlock(): boolean {
    const b = this.block.indexOf(BLOCK_FREE);
    if (b < 0) return false;
    this.block[b] = BLOCK_SMALL;
    this.freeInBlock[b] = FRAMES_2M;
    for (let i = FRAMES_2M - 1; i >= 0; i--) this.stack[this.top++] = b * FRAMES_2M + i;
    return true;
  }

  private isWholeGigabyte(g: number): boolean {
    const first = g * 512;
    if (first + 512 > this.block.length) return false;
    for (let b = first; b < first + 512; b++) if (this.block[b] !== BLOCK_FREE) return false;
    return true;
  }

  private findHuge(): number {
    let best = -1;
    for (let g = Math.ceil(this.block.length / 512) - 1; g >= 0; g--) {
      const b = this.block.subarray(g * 512, g * 512 + 512).lastIndexOf(BLOCK_FREE);
      if (b < 0) continue;
      if (!this.isWholeGigabyte(g)) return g * 512 + b;
      if (best < 0) best = g * 512 + b;
    }
    return best;
  }

  private findGigantic(): number {
    for (let g = Math.floor(this.block.length / 512) - 1; g >= 0; g--) if (this.isWholeGigabyte(g)) return g;
    return -1;
  }

  /** Takes blocks whose 512 small pages are all free off the stack; false when there are none. */
  private joinBlocks(): boolean {
    let joined = false;
    for (let b = 0; b < this.block.length; b++) {
      if (this.block[b] === BLOCK_SMALL && this.freeInBlock[b] === FRAMES_2M) {
        this.block[b] = BLOCK_FREE;
        joined = true;
      }
    }
    if (!joined) return false;
    let kept = 0;
    for (let i = 0; i < this.top; i++) {
      const pfn = this.stack[i]!;
      if (this.block[pfn >> 9] === BLOCK_SMALL) this.stack[kept++] = pfn;
    }
    this.top = kept;
    return true;
  }
}
