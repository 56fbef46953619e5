/** Where pages go that memory has no room for: slots of 4 KiB outside of physical memory. */
import { PAGE_SIZE } from './physical-memory.ts';
import type { SwapReads } from './swap-reads.ts';

export class SwapDevice {
  /**
   * A synchronous device (compressed memory) answers while the faulting task waits; any other makes a fault sleep, so that a fault
   * that must not sleep reports that it would.
   */
  synchronous = true;
  /** How reads take time; null: they take none. */
  io: SwapReads | null = null;
  /** Pages read so far. */
  reads = 0;
  private readonly slots: (Uint8Array | null)[] = [];
  private readonly free: number[] = [];

  /** Stores a page; returns its slot. */
  store(page: Uint8Array): number {
    const copy = page.slice(0, contentLength(page));
    const slot = this.free.pop() ?? this.slots.length;
    this.slots[slot] = copy;
    return slot;
  }

  /** Reads a slot into `page` and frees it. */
  load(slot: number, page: Uint8Array): void {
    const copy = this.slots[slot]!;
    page.set(copy);
    page.fill(0, copy.length, PAGE_SIZE);
    this.reads++;
    this.release(slot);
  }

  /** Forgets a slot. */
  release(slot: number): void {
    this.slots[slot] = null;
    this.io?.forget(slot);
    this.free.push(slot);
  }

  /** Slots in use. */
  get used(): number {
    return this.slots.length - this.free.length;
  }

  capture(): readonly (Uint8Array | null)[] {
    return this.slots.slice();
  }

  restore(slots: readonly (Uint8Array | null)[]): void {
    this.slots.length = 0;
    this.free.length = 0;
    for (let i = 0; i < slots.length; i++) {
      this.slots.push(slots[i]!);
      if (slots[i] === null) this.free.push(i);
    }
  }
}

/** Bytes up to the last one that is not zero: pages are stored without their tail of zeros. */
function contentLength(page: Uint8Array): number {
  const words = new Int32Array(page.buffer, page.byteOffset, PAGE_SIZE / 4);
  let n = words.length;
  while (n > 0 && words[n - 1] === 0) n--;
  return 4 * n;
}
