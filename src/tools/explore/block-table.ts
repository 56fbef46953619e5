/**
 * Blocks of four words, each kept once and known by a number: the inner nodes of the trees in which states are kept (state-table.ts).
 * Several threads may put blocks into one table at the same time (shared-words.ts says how).
 */
import { BUSY, enlarged, resized, roomFor, type Words, words } from './shared-words.ts';

/** Bits of a 32-bit word, mixed so that every one of them depends on all. HOT */
export function mixWord(word: number, salt: number): number {
  let x = Math.imul(word ^ Math.imul(salt, 0x9e3779b1), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 15), 0xc2b2ae35);
  return x ^ (x >>> 13);
}

/* HOT */
function hashBlock(a: number, b: number, c: number, d: number): number {
  let h = Math.imul(a, 0x85ebca6b);
  h = Math.imul((h ^ (h >>> 15)) + b, 0xc2b2ae35);
  h = Math.imul((h ^ (h >>> 13)) + c, 0x27d4eb2f);
  h = Math.imul((h ^ (h >>> 15)) + d, 0x165667b1);
  return h ^ (h >>> 16);
}

/** What a block table is kept in. */
export interface BlockWords {
  readonly cells: Words;
  readonly slots: Words;
}

export class BlockTable {
  /** Four words a block. */
  cells: Words;
  /** Open addressing; a block's number plus 1, 0 for nothing. */
  private slots: Words;
  private mask: number;
  private readonly shared: boolean;
  /** The count is its first word. */
  private readonly counter: Words;
  /** Blocks after which the table is to be enlarged; there is room for a few more. */
  limit: number;

  constructor(first: number, counter: Words, shared: boolean) {
    this.shared = shared;
    this.counter = counter;
    this.limit = first;
    this.cells = words(4 * roomFor(first, shared), shared);
    this.slots = words(2 * first, shared);
    this.mask = 2 * first - 1;
  }

  get count(): number {
    return this.counter[0]!;
  }

  /** The number of the block with these words: the one that it has, or a new one. HOT */
  intern(a: number, b: number, c: number, d: number): number {
    const { cells, slots, mask } = this;
    for (let at = hashBlock(a, b, c, d) & mask; ; at = (at + 1) & mask) {
      let held = slots[at]!;
      if (held <= 0) {
        held = this.claim(at);
        if (held === 0) return this.add(at, a, b, c, d);
      }
      const p = (held - 1) << 2;
      if (cells[p] === a && cells[p + 1] === b && cells[p + 2] === c && cells[p + 3] === d) return held - 1;
    }
  }

  /** 0: the place is ours to fill. Else what another thread has just put there. */
  private claim(at: number): number {
    if (!this.shared) return 0;
    let held = Atomics.compareExchange(this.slots, at, 0, BUSY);
    while (held === BUSY) held = Atomics.load(this.slots, at);
    return held;
  }

  private add(at: number, a: number, b: number, c: number, d: number): number {
    const { cells, counter } = this;
    const id = this.shared ? Atomics.add(counter, 0, 1) : counter[0]!++;
    const p = id << 2;
    if (p >= cells.length) throw new Error('the table of blocks was not enlarged in time');
    cells[p] = a;
    cells[p + 1] = b;
    cells[p + 2] = c;
    cells[p + 3] = d;
    if (this.shared) Atomics.store(this.slots, at, id + 1);
    else this.slots[at] = id + 1;
    return id;
  }

  /** Makes room for more; nobody else may be at it. */
  grow(): void {
    this.limit = enlarged(this.limit);
    this.cells = resized(this.cells, 4 * roomFor(this.limit, this.shared), this.shared);
    if (this.limit * 4 > this.slots.length * 3) this.rehash();
  }

  private rehash(): void {
    const slots = words(this.slots.length * 2, this.shared);
    const mask = slots.length - 1;
    const { cells, count } = this;
    for (let id = 0; id < count; id++) {
      const p = id << 2;
      let at = hashBlock(cells[p]!, cells[p + 1]!, cells[p + 2]!, cells[p + 3]!) & mask;
      while (slots[at] !== 0) at = (at + 1) & mask;
      slots[at] = id + 1;
    }
    this.slots = slots;
    this.mask = mask;
  }

  /** What another thread has to know of the table. */
  get memory(): BlockWords & { readonly limit: number } {
    return { cells: this.cells, slots: this.slots, limit: this.limit };
  }

  /** Goes over to what another thread has enlarged. */
  adopt({ cells, slots, limit }: BlockTable['memory']): void {
    this.cells = cells;
    this.slots = slots;
    this.mask = slots.length - 1;
    this.limit = limit;
  }

  /** Of what is in use. */
  get bytes(): number {
    return 16 * this.count + this.slots.byteLength;
  }
}
