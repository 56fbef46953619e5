/**
 * Where the frames of the guest's page tables lie: the part of a nested TLB that walks need most. A walk of four levels under nested
 * paging takes 24 reads without it. It is flushed with the TLB, and like the TLB it does not notice that a nested entry changed. It
 * lies in the processor's state, so that captures carry it.
 */
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import { TABLE_CACHE, TABLE_CACHE_ENTRIES, TABLE_CACHE_USED_AT } from '../state.ts';

const BASE = TABLE_CACHE >> 2;
const MASK = TABLE_CACHE_ENTRIES - 1;
const NONE = -1;
const USED = TABLE_CACHE_USED_AT >> 2;

export class TableCache {
  private readonly i32: Int32Array;

  constructor(memory: PhysicalMemory) {
    this.i32 = memory.i32;
    this.i32[USED] = 1;
    this.flush();
  }

  /** Host frame of guest frame `gfn`, whose table may be written, or -1. HOT */
  lookup(gfn: number): number {
    const at = BASE + ((gfn & MASK) << 2);
    return this.i32[at] === gfn ? this.i32[at + 1]! : -1;
  }

  /** Remembers a translation made for writing. HOT */
  insert(gfn: number, pfn: number): void {
    const at = BASE + ((gfn & MASK) << 2);
    // A frame beyond 31 bits does not fit, and is walked every time.
    this.i32[at] = gfn < 0x80000000 ? gfn : NONE;
    this.i32[at + 1] = pfn;
    this.i32[USED] = 1;
  }

  /** HOT */
  flush(): void {
    if (this.i32[USED] === 0) return;
    this.i32[USED] = 0;
    for (let i = 0; i <= MASK; i++) this.i32[BASE + (i << 2)] = NONE;
  }

  /** Takes over what a restore wrote. */
  adopt(): void {
    this.i32[USED] = 1;
  }
}
