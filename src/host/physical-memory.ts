/**
 * The machine's physical memory: one WebAssembly.Memory, in which a host physical address is the byte offset. Generated code, the
 * page walkers and the host software all see the same bytes. The lowest frames belong to the processor model (register state,
 * TLB, decoded instructions) and are never handed out, as firmware keeps memory for itself on a real machine.
 */

export const PAGE_SIZE = 4096;

/** Frames at the bottom that the processor model owns: 48 MiB. The page allocator starts above them. */
export const PROCESSOR_FRAMES = 0x3000;

/** Where `PhysicalMemory.watch` lies in memory, a byte for each of at most 2^20 frames, so that generated code can look: the last of the processor's. */
export const FRAME_WATCH = PROCESSOR_FRAMES * PAGE_SIZE - 0x100000;

/** Called before a write to a frame that holds translated code becomes visible. */
export type WatchedWrite = (pfn: number) => void;

/** Who owns pages beside the host: a reverse map. */
export interface PageOwners {
  /** The host cannot write frame `pfn`, and does not see what is in it. */
  isForeign(pfn: number): boolean;
  /** What the host sees of a foreign frame. */
  seenFromOutside(pfn: number): Uint8Array;
}

export class PhysicalMemory {
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array;
  /** The view of hot code: entry n of the 8-byte words in frame f is at `(f << 10) | (n << 1)`, low half first. */
  readonly i32: Int32Array;
  /** The same bytes as whole words, for tests that set up tables. */
  readonly u64: BigUint64Array;
  /** Number of 4 KiB frames, the processor's own included. */
  readonly frames: number;
  /** One byte a frame; non-zero while the processor holds translations of code in it. Writers call `noteWrite` first. */
  readonly watch: Uint8Array;
  /** Set while pages can have other owners. */
  owners: PageOwners | null = null;
  private onWatchedWrite: WatchedWrite = () => {};

  /** @param bytes size in bytes, a multiple of 64 KiB, at most 4 GiB - 64 KiB; what is never touched costs no real memory. */
  constructor(bytes: number) {
    const pages = bytes / 65536;
    if (!Number.isInteger(pages) || pages <= (PROCESSOR_FRAMES * PAGE_SIZE) / 65536 || pages > 65535) {
      throw new RangeError(
        `physical memory of ${bytes} bytes: expected a multiple of 64 KiB above 48 MiB and below 4 GiB`,
      );
    }
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.u8 = new Uint8Array(this.memory.buffer);
    this.i32 = new Int32Array(this.memory.buffer);
    this.u64 = new BigUint64Array(this.memory.buffer);
    this.frames = bytes / PAGE_SIZE;
    this.watch = new Uint8Array(this.memory.buffer, FRAME_WATCH, this.frames);
  }

  /**
   * Touches every frame once, contents unchanged, so that the operating system underneath has given it real memory. What is measured
   * afterwards is this machine, not the first touch of the memory that it is made of.
   */
  commit(): void {
    for (let word = 0; word < this.i32.length; word += PAGE_SIZE / 4) Atomics.or(this.i32, word, 0);
  }

  /** Installs the processor's handler for writes to frames with translated code. */
  setWatchedWrite(handler: WatchedWrite): void {
    this.onWatchedWrite = handler;
  }

  /** Every writer that is not the processor itself calls this before it changes frame `pfn`. HOT */
  noteWrite(pfn: number): void {
    if (this.watch[pfn] !== 0) this.onWatchedWrite(pfn);
  }
}
