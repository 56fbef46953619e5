/**
 * Upper levels of finished walks, by the stretch of 2 MiB that one last-level table maps: what processors call a paging-structure cache
 * (@sdm 4.10.3; @apm 5.5.2). A hit leaves one entry to be read, with the rights that the levels above allow. Like the TLB it notices no
 * change of a table; a load of CR3, INVLPG of any address and every flush of the TLB empty it. It lies in the processor's state, so that
 * captures carry it. An entry is four words, and walkers read them in place: tag (0: none), second tag, table, rights.
 */
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import {
  NESTED_WALK_CACHE,
  NESTED_WALK_CACHE_USED_AT,
  WALK_CACHE,
  WALK_CACHE_ENTRIES,
  WALK_CACHE_USED_AT,
} from '../state.ts';
import { TableCache } from './table-cache.ts';

/** First words' distance. */
export const WALK_CACHE_WORDS = 4;
/** Word of an entry. */
export const WALK_TAG_HI = 1;
export const WALK_TABLE = 2;
/** PT_USER_MASK and PT_WRITABLE_MASK that all levels so far allow, and bit 31: not to be executed. */
export const WALK_RIGHTS = 3;
const MASK = WALK_CACHE_ENTRIES - 1;

export class WalkCache {
  readonly enabled: boolean;
  private readonly i32: Int32Array;
  private readonly base: number;
  private readonly used: number;

  /** @param at where its entries are in the state; `used`: the word that says whether there are any */
  constructor(memory: PhysicalMemory, at: number, used: number, enabled: boolean) {
    this.i32 = memory.i32;
    this.base = at >> 2;
    this.enabled = enabled;
    this.used = used >> 2;
    this.i32[this.used] = 1;
    this.flush();
  }

  /** First word of the only entry that may hold `number`, the number of a stretch. HOT */
  entry(number: number): number {
    return this.base + (number & MASK) * WALK_CACHE_WORDS;
  }

  /** Fills the entry at `word`. `tag` is not 0. HOT */
  insert(word: number, tag: number, tagHi: number, table: number, rights: number): void {
    const i32 = this.i32;
    i32[word] = tag;
    i32[word + WALK_TAG_HI] = tagHi;
    i32[word + WALK_TABLE] = table;
    i32[word + WALK_RIGHTS] = rights;
    i32[this.used] = 1;
  }

  /** HOT */
  flush(): void {
    if (this.i32[this.used] === 0) return;
    this.i32[this.used] = 0;
    for (let i = 0; i <= MASK; i++) this.i32[this.base + i * WALK_CACHE_WORDS] = 0;
  }

  /** Takes over what a restore wrote. */
  adopt(): void {
    this.i32[this.used] = 1;
  }
}

/** All that walks remember. */
export class WalkCaches {
  /** Where the frames of the guest's tables lie, under nested paging. */
  readonly tables: TableCache;
  /** Upper levels of the guest's walks, by bits 63:21 of the address; of nested walks, by the guest frame without its low 9 bits. */
  readonly guest: WalkCache;
  readonly nested: WalkCache;

  /** @param upperLevels whether the processor remembers upper levels */
  constructor(memory: PhysicalMemory, upperLevels: boolean) {
    this.tables = new TableCache(memory);
    this.guest = new WalkCache(memory, WALK_CACHE, WALK_CACHE_USED_AT, upperLevels);
    this.nested = new WalkCache(memory, NESTED_WALK_CACHE, NESTED_WALK_CACHE_USED_AT, upperLevels);
  }
  flush(): void {
    this.tables.flush();
    this.guest.flush();
    this.nested.flush();
  }
  adopt(): void {
    this.tables.adopt();
    this.guest.adopt();
    this.nested.adopt();
  }
}
