/**
 * Operations on the TLB in linear memory that generated code looks into (layout: state.ts). It holds translations of the current
 * address space identifier and paging context only, and of the selected process-context identifier (those of others are in
 * pcid-store.ts); like silicon's it knows nothing of page-table changes until it is told.
 *
 * A frame is never both writable and executable here: inserting a write tag drops the frame's code tags and the other way round, so
 * that a store to translated code always comes to `SystemPort.translate`.
 */
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import {
  FRAME_CODE,
  FRAME_WRITE,
  TLB_BASE,
  TLB_CODE_TAG,
  TLB_CONTEXTS,
  TLB_END,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_FLAGS,
  TLB_HAS_HUGE_AT,
  TLB_HAS_LARGE_AT,
  TLB_LARGE_AT,
  TLB_LISTED,
  TLB_NO_TAG,
  TLB_PAGE,
  TLB_READ_TAG,
  TLB_USED,
  TLB_USED_COUNT_AT,
  TLB_WRITE_TAG,
} from '../state.ts';
import { PcidStore } from './pcid-store.ts';
import { WalkCaches } from './walk-cache.ts';

const BASE_WORD = TLB_BASE >> 2;
const ENTRY_WORDS = TLB_ENTRY_SIZE >> 2;
const CONTEXT_WORDS = TLB_ENTRIES * ENTRY_WORDS;
const READ = TLB_READ_TAG >> 2;
const WRITE = TLB_WRITE_TAG >> 2;
const CODE = TLB_CODE_TAG >> 2;
const PAGE = TLB_PAGE >> 2;
const FLAGS = TLB_FLAGS >> 2;
const SLOTS = TLB_CONTEXTS * TLB_ENTRIES;

/** TLB_FLAGS: the guest's entry was global; the translation is a piece of a large page. */
export const TLB_GLOBAL = 1;
export const TLB_LARGE = 2;
/** The same of a page of 1 GiB. */
export const TLB_HUGE = 4;

export const LARGE_SHIFT = 22;
export const LARGE_STRETCHES = 1024;

/** Which tags an insertion sets. */
export const TAG_READ = 1;
export const TAG_WRITE = 2;
export const TAG_CODE = 4;

export class Tlb {
  private readonly memory: PhysicalMemory;
  private readonly i32: Int32Array;
  /** First words of the slots filled since the last flush; a slot is listed at most once. */
  private readonly used: Int32Array;
  private readonly listed: Uint8Array;
  /** Frames that may have a code tag, or a write tag. */
  private readonly codeFrames: Uint8Array;
  private readonly writeFrames: Uint8Array;
  /**
   * Where pieces of large pages may be: a byte for each 4 MiB, folded, and whether there are pieces of 1 GiB. A large page is in one of
   * these stretches whatever its size is.
   */
  private readonly largeAt: Uint8Array;
  /** What walks remember, flushed together with the rest. */
  readonly walks: WalkCaches;
  private readonly others: PcidStore;

  constructor(memory: PhysicalMemory, walkCaches: boolean) {
    this.memory = memory;
    this.i32 = memory.i32;
    this.walks = new WalkCaches(memory, walkCaches);
    this.others = new PcidStore(memory);
    const { buffer } = memory.memory;
    this.used = new Int32Array(buffer, TLB_USED, SLOTS);
    this.listed = new Uint8Array(buffer, TLB_LISTED, SLOTS);
    this.largeAt = new Uint8Array(buffer, TLB_LARGE_AT, LARGE_STRETCHES);
    this.codeFrames = new Uint8Array(buffer, FRAME_CODE, memory.frames);
    this.writeFrames = new Uint8Array(buffer, FRAME_WRITE, memory.frames);
    this.wipe();
  }

  private get usedCount(): number {
    return this.i32[TLB_USED_COUNT_AT >> 2]!;
  }
  private set usedCount(count: number) {
    this.i32[TLB_USED_COUNT_AT >> 2] = count;
  }
  private get hasLarge(): boolean {
    return this.i32[TLB_HAS_LARGE_AT >> 2] !== 0;
  }
  private set hasLarge(on: boolean) {
    this.i32[TLB_HAS_LARGE_AT >> 2] = on ? 1 : 0;
  }

  private get hasHuge(): boolean {
    return this.i32[TLB_HAS_HUGE_AT >> 2] !== 0;
  }
  private set hasHuge(on: boolean) {
    this.i32[TLB_HAS_HUGE_AT >> 2] = on ? 1 : 0;
  }

  /** Empties every slot, whatever memory held before: at reset and after a restore. */
  wipe(): void {
    for (let word = BASE_WORD; word < TLB_END >> 2; word += ENTRY_WORDS) this.clear(word);
    this.listed.fill(0);
    this.usedCount = 0;
    this.forgetLarge();
    this.walks.flush();
    this.others.flush();
    this.others.pcid = 0;
  }

  /** Takes over what a restore wrote. */
  adopt(): void {
    const i32 = this.i32;
    this.usedCount = 0;
    this.hasLarge = true;
    this.hasHuge = true;
    for (let i = 0; i < SLOTS; i++) {
      const word = BASE_WORD + i * ENTRY_WORDS;
      const filled = this.isFilled(word);
      this.listed[i] = filled ? 1 : 0;
      if (!filled) continue;
      this.used[this.usedCount++] = word;
      const pfn = i32[word + PAGE]! >>> 12;
      this.codeFrames[pfn] = 1;
      this.writeFrames[pfn] = 1;
    }
    this.walks.adopt();
  }

  /** Word of the entry that `va` falls on in `context`. */
  private slot(context: number, vaLo: number): number {
    return BASE_WORD + context * CONTEXT_WORDS + ((vaLo >>> 12) & (TLB_ENTRIES - 1)) * ENTRY_WORDS;
  }

  private clear(word: number): void {
    const i32 = this.i32;
    i32[word + READ] = TLB_NO_TAG;
    i32[word + WRITE] = TLB_NO_TAG;
    i32[word + CODE] = TLB_NO_TAG;
  }

  /** Host physical address of the byte at `va` when `context` holds it for `tag` (TAG_*), else -1. HOT */
  lookup(context: number, vaLo: number, vaHi: number, tag: number): number {
    const word = this.slot(context, vaLo);
    const at = word + (tag === TAG_READ ? READ : tag === TAG_WRITE ? WRITE : CODE);
    if (this.i32[at] !== (vaLo & ~0xfff) || this.i32[at + 1] !== vaHi) return -1;
    return (this.i32[word + PAGE]! >>> 0) + (vaLo & 0xfff);
  }

  /** Enters the page of `va` in `context`, mapped to host frame `pfn`, with `tags` (TAG_*) and `flags` (TLB_*). HOT */
  insert(context: number, vaLo: number, vaHi: number, pfn: number, tags: number, flags: number): void {
    const i32 = this.i32;
    const word = this.slot(context, vaLo);
    const page = vaLo & ~0xfff;
    if (tags & TAG_CODE) {
      if (this.writeFrames[pfn] !== 0) this.dropWrites(pfn);
      this.codeFrames[pfn] = 1;
    }
    if (tags & TAG_WRITE) {
      if (this.codeFrames[pfn] !== 0) this.dropCode(pfn);
      this.writeFrames[pfn] = 1;
    }
    const base = i32[word + PAGE] === pfn << 12;
    // What the slot already says of the same page stays: a fetch after a load keeps the read tag.
    if (tags & TAG_READ) {
      i32[word + READ] = page;
      i32[word + READ + 1] = vaHi;
    } else if (!base || i32[word + READ] !== page || i32[word + READ + 1] !== vaHi) i32[word + READ] = TLB_NO_TAG;
    if (tags & TAG_WRITE) {
      i32[word + WRITE] = page;
      i32[word + WRITE + 1] = vaHi;
    } else if (!base || i32[word + WRITE] !== page || i32[word + WRITE + 1] !== vaHi) i32[word + WRITE] = TLB_NO_TAG;
    if (tags & TAG_CODE) {
      i32[word + CODE] = page;
      i32[word + CODE + 1] = vaHi;
    } else if (!base || i32[word + CODE] !== page || i32[word + CODE + 1] !== vaHi) i32[word + CODE] = TLB_NO_TAG;
    i32[word + PAGE] = pfn << 12;
    i32[word + FLAGS] = flags;
    if (flags & (TLB_LARGE | TLB_HUGE)) this.noteLarge(vaLo, flags);
    const index = (word - BASE_WORD) >> 3;
    if (this.listed[index] === 0) {
      this.listed[index] = 1;
      this.used[this.usedCount++] = word;
    }
  }

  private noteLarge(vaLo: number, flags: number): void {
    this.hasLarge = true;
    if (flags & TLB_HUGE) this.hasHuge = true;
    this.largeAt[(vaLo >>> LARGE_SHIFT) & (LARGE_STRETCHES - 1)] = 1;
  }
  private forgetLarge(): void {
    if (this.hasLarge) this.largeAt.fill(0);
    this.hasLarge = false;
    this.hasHuge = false;
  }

  /** True when a code tag may exist for frame `pfn`: a load then leaves its write tag out. */
  mayHaveCode(pfn: number): boolean {
    return this.codeFrames[pfn] !== 0 || this.memory.watch[pfn] !== 0;
  }

  /** Takes the write tags of frame `pfn` away: the next store to it asks the port. */
  dropWrites(pfn: number): void {
    const base = pfn << 12;
    const count = this.usedCount;
    for (let i = 0; i < count; i++) {
      const word = this.used[i]!;
      if (this.i32[word + PAGE] === base) this.i32[word + WRITE] = TLB_NO_TAG;
    }
    this.writeFrames[pfn] = 0;
  }

  /** Takes the code tags of frame `pfn` away: the next fetch from it asks the port. */
  dropCode(pfn: number): void {
    const base = pfn << 12;
    const count = this.usedCount;
    for (let i = 0; i < count; i++) {
      const word = this.used[i]!;
      if (this.i32[word + PAGE] === base) this.i32[word + CODE] = TLB_NO_TAG;
    }
    this.codeFrames[pfn] = 0;
  }

  /** Drops everything. Costs what was inserted since the last flush. HOT */
  flushAll(): void {
    const count = this.usedCount;
    for (let i = 0; i < count; i++) {
      const word = this.used[i]!;
      this.clear(word);
      this.listed[(word - BASE_WORD) >> 3] = 0;
    }
    this.usedCount = 0;
    this.forgetLarge();
    this.walks.flush();
    this.others.flush();
  }

  /** The selected process-context identifier, 0 while there are none. */
  get pcid(): number {
    return this.others.pcid;
  }

  /** Selects `pcid`: its translations come back, those of the identifier so far are put by. Global ones are everybody's. */
  switchPcid(pcid: number): void {
    const i32 = this.i32;
    const { others } = this;
    const old = others.pcid;
    for (let i = 0; i < this.usedCount; i++) {
      const word = this.used[i]!;
      if ((i32[word + FLAGS]! & TLB_GLOBAL) === 0 && this.isFilled(word)) others.put(old, word);
    }
    this.flushNonGlobal();
    others.pcid = pcid;
    others.takeAll(pcid, (word, copy) => this.bringBack(word, copy));
  }

  private isFilled(word: number): boolean {
    const i32 = this.i32;
    return i32[word + READ] !== TLB_NO_TAG || i32[word + WRITE] !== TLB_NO_TAG || i32[word + CODE] !== TLB_NO_TAG;
  }

  /** Fills the slot at `word` from the words at `copy`, unless it is taken, with what frames of code and of data still allow. */
  private bringBack(word: number, copy: number): void {
    const i32 = this.i32;
    if (this.isFilled(word)) return;
    const pfn = i32[copy + PAGE]! >>> 12;
    const tags =
      (i32[copy + READ] !== TLB_NO_TAG ? TAG_READ : 0) |
      (i32[copy + WRITE] !== TLB_NO_TAG && !this.mayHaveCode(pfn) ? TAG_WRITE : 0) |
      (i32[copy + CODE] !== TLB_NO_TAG && this.writeFrames[pfn] === 0 ? TAG_CODE : 0);
    if (tags === 0) return;
    const first = tags & TAG_READ ? READ : tags & TAG_WRITE ? WRITE : CODE;
    const context = Math.floor((word - BASE_WORD) / CONTEXT_WORDS);
    this.insert(context, i32[copy + first]!, i32[copy + first + 1]!, pfn, tags, i32[copy + FLAGS]!);
  }

  /** INVPCID of one address of `pcid` (type 0). */
  invalidatePcidAddress(pcid: number, vaLo: number, vaHi: number): void {
    if (pcid === this.pcid) this.invlpg(vaLo, vaHi);
    else this.others.dropAddress(pcid, vaLo, vaHi);
  }

  /** All but global translations of `pcid` (INVPCID type 1). */
  invalidatePcid(pcid: number): void {
    if (pcid === this.pcid) this.flushNonGlobal();
    else this.others.drop(pcid);
  }

  /** All but global translations, of every identifier (INVPCID type 3). */
  flushAllNonGlobal(): void {
    this.flushNonGlobal();
    this.others.flush();
  }

  /** The page of `va` under every identifier: INVLPGA, INVVPID. */
  invalidateAddress(vaLo: number, vaHi: number): void {
    this.invlpg(vaLo, vaHi);
    this.others.dropAddress(-1, vaLo, vaHi);
  }

  /** Drops all but global translations of the selected identifier: a load of CR3 (@apm 5.5.2). */
  flushNonGlobal(): void {
    this.walks.guest.flush();
    let kept = 0;
    const count = this.usedCount;
    for (let i = 0; i < count; i++) {
      const word = this.used[i]!;
      if (this.i32[word + FLAGS]! & TLB_GLOBAL) {
        this.used[kept++] = word;
      } else {
        this.clear(word);
        this.listed[(word - BASE_WORD) >> 3] = 0;
      }
    }
    this.usedCount = kept;
  }

  /** Drops the pieces of large pages in the 4 MiB, or the 1 GiB, around `va`; the high half of the address is not compared. */
  private dropPieces(vaLo: number): void {
    const i32 = this.i32;
    const count = this.usedCount;
    for (let i = 0; i < count; i++) {
      const word = this.used[i]!;
      const flags = i32[word + FLAGS]!;
      if ((flags & (TLB_LARGE | TLB_HUGE)) === 0) continue;
      const shift = (flags & TLB_HUGE) !== 0 ? 30 : LARGE_SHIFT;
      if ((this.addressOf(word) ^ vaLo) >>> shift === 0) this.clear(word);
    }
  }
  /** Low half of the linear address that a slot is for; that of an empty one means nothing. */
  private addressOf(word: number): number {
    const i32 = this.i32;
    if (i32[word + READ] !== TLB_NO_TAG) return i32[word + READ]!;
    return i32[word + WRITE] !== TLB_NO_TAG ? i32[word + WRITE]! : i32[word + CODE]!;
  }

  /** Drops the page of `va` in all contexts, global or not, and the pieces of large pages that may be part of its page. */
  invlpg(vaLo: number, vaHi: number): void {
    this.walks.guest.flush();
    const page = vaLo & ~0xfff;
    for (let context = 0; context < TLB_CONTEXTS; context++) {
      const word = this.slot(context, vaLo);
      const i32 = this.i32;
      const hit =
        (i32[word + READ] === page && i32[word + READ + 1] === vaHi) ||
        (i32[word + WRITE] === page && i32[word + WRITE + 1] === vaHi) ||
        (i32[word + CODE] === page && i32[word + CODE + 1] === vaHi);
      if (hit) this.clear(word);
    }
    if (this.hasHuge || this.largeAt[(vaLo >>> LARGE_SHIFT) & (LARGE_STRETCHES - 1)] !== 0) this.dropPieces(vaLo);
  }
}
