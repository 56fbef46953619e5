/**
 * Translations of the process-context identifiers that are not selected (@sdm 4.10.1; @apm 5.5.1). The TLB that generated code looks into
 * holds those of the selected one and the global ones; the others wait here until MOV to CR3 selects theirs again, or something forgets
 * them. When the store is full the oldest give way. It lies in the processor's state, so that captures carry it.
 *
 * An entry is ten words: identifier plus 1 (0: none), slot of the TLB, and the eight words of the TLB's entry.
 */
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import {
  PCID_STORE,
  PCID_STORE_ENTRIES,
  PCID_STORE_ENTRY_SIZE,
  PCID_STORE_HEADER,
  TLB_CODE_TAG,
  TLB_FLAGS,
  TLB_NO_TAG,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
} from '../state.ts';

const W_PCID = PCID_STORE >> 2;
const W_NEXT = W_PCID + 1;
const W_FILLED = W_PCID + 2;
const BASE = (PCID_STORE + PCID_STORE_HEADER) >> 2;
const WORDS = PCID_STORE_ENTRY_SIZE >> 2;
const SLOT = 1;
const COPY = 2;
const TLB_WORDS = 8;
const TAGS = [TLB_READ_TAG >> 2, TLB_WRITE_TAG >> 2, TLB_CODE_TAG >> 2];
const FLAGS = TLB_FLAGS >> 2;

/** Stretch of addresses that a large page lies in whatever its size is, and one of 1 GiB, as shifts. */
const LARGE_SHIFT = 22;
const HUGE_SHIFT = 30;

export class PcidStore {
  private readonly i32: Int32Array;

  constructor(memory: PhysicalMemory) {
    this.i32 = memory.i32;
  }

  /** The selected identifier, 0 while there are none. */
  get pcid(): number {
    return this.i32[W_PCID]!;
  }
  set pcid(value: number) {
    this.i32[W_PCID] = value;
  }

  /** Nothing is kept. */
  get isEmpty(): boolean {
    return this.i32[W_FILLED] === 0;
  }

  /** Keeps the TLB's entry at `word` for `pcid`. */
  put(pcid: number, word: number): void {
    const i32 = this.i32;
    const next = i32[W_NEXT]!;
    const at = BASE + next * WORDS;
    i32[at] = pcid + 1;
    i32[at + SLOT] = word;
    for (let i = 0; i < TLB_WORDS; i++) i32[at + COPY + i] = i32[word + i]!;
    i32[W_NEXT] = (next + 1) % PCID_STORE_ENTRIES;
    i32[W_FILLED] = 1;
  }

  /** Hands the entries of `pcid` to `take`, with their slot and where their copy is, and keeps them no longer. */
  takeAll(pcid: number, take: (word: number, copy: number) => void): void {
    const i32 = this.i32;
    if (i32[W_FILLED] === 0) return;
    for (let i = 0; i < PCID_STORE_ENTRIES; i++) {
      const at = BASE + i * WORDS;
      if (i32[at] !== pcid + 1) continue;
      i32[at] = 0;
      take(i32[at + SLOT]!, at + COPY);
    }
  }

  /** Forgets the entries of `pcid`. */
  drop(pcid: number): void {
    this.takeAll(pcid, () => {});
  }

  /** Forgets the page of `va`, and pieces of large pages that may be part of its page, of `pcid`; -1: of all. */
  dropAddress(pcid: number, vaLo: number, vaHi: number): void {
    const i32 = this.i32;
    if (i32[W_FILLED] === 0) return;
    for (let i = 0; i < PCID_STORE_ENTRIES; i++) {
      const at = BASE + i * WORDS;
      if (i32[at] === 0 || (pcid !== -1 && i32[at] !== pcid + 1)) continue;
      if (this.covers(at + COPY, vaLo, vaHi)) i32[at] = 0;
    }
  }

  private covers(copy: number, vaLo: number, vaHi: number): boolean {
    const i32 = this.i32;
    const flags = i32[copy + FLAGS]!;
    for (const tag of TAGS) {
      const lo = i32[copy + tag]!;
      if (lo === TLB_NO_TAG) continue;
      if (lo === (vaLo & ~0xfff) && i32[copy + tag + 1] === vaHi) return true;
      if ((flags & 6) !== 0 && (lo ^ vaLo) >>> ((flags & 4) !== 0 ? HUGE_SHIFT : LARGE_SHIFT) === 0) return true;
    }
    return false;
  }

  /** Forgets everything but which identifier is selected. */
  flush(): void {
    const i32 = this.i32;
    if (i32[W_FILLED] === 0) return;
    i32[W_FILLED] = 0;
    i32[W_NEXT] = 0;
    for (let i = 0; i < PCID_STORE_ENTRIES; i++) i32[BASE + i * WORDS] = 0;
  }
}
