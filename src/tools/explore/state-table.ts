/**
 * The states that were reached, each once, numbered in the order in which they came.
 *
 * A state is kept as a tree: its words in blocks of four, the blocks' numbers in blocks of four, and so on up to a root of at most eight.
 * Every block is kept once (block-table.ts), so two states that differ in a few words share all but a few blocks, and the comparison is
 * exact: states are equal when their roots are. A step changes few words; only the blocks above those are looked up again.
 *
 * Several threads may look for states and add them at the same time, each with a StateTable of its own over the same memory; only to
 * enlarge it must the others keep away (team.ts).
 */
import { BlockTable, mixWord } from './block-table.ts';
import { BUSY, enlarged, resized, roomFor, type Words, words } from './shared-words.ts';

/** Words of a root, at most: a block less to look up at each step is worth more than what a longer root takes. */
const MAX_ROOT = 8;
/** States that there is room for at first. */
const FIRST = 256;
const FIRST_SHARED = 1 << 16;
/** A place in the hash table: a state's number plus 1 in the lower bits, and in the upper ones bits of its hash. */
const ID_BITS = 27;
const ID_MASK = (1 << ID_BITS) - 1;
const TAG_MASK = ~ID_MASK;
/** States that can be told apart. */
export const MOST_STATES = ID_MASK - (1 << 17);
/** Words of the counter: states, then blocks in a cache line of their own. */
const COUNTER_WORDS = 32;

/** One state, taken apart: its words and the numbers of its blocks, level by level. */
export interface Cursor {
  readonly data: Int32Array;
  hash: number;
  /** What `change` has changed, to be undone: places, what was there, and the hash. */
  readonly changedAt: Int32Array;
  readonly changedFrom: Int32Array;
  changed: number;
  hashBefore: number;
}

/** What a table is kept in: for other threads. */
export interface TableMemory {
  readonly counter: Words;
  readonly roots: Words;
  readonly hashes: Words;
  readonly slots: Words;
  readonly limit: number;
  readonly blocks: BlockTable['memory'];
}

export class StateTable {
  readonly stateWords: number;
  /** Whether the last `insert` found the state new. */
  fresh = false;
  /** By state. */
  hashes: Words;
  private roots: Words;
  /** Open addressing; 0 for nothing. */
  private slots: Words;
  private shift: number;
  private limit: number;
  private readonly counter: Words;
  private readonly inner: BlockTable;
  private readonly shared: boolean;
  private readonly rootWords: number;
  /** Where each level begins in a cursor; the last is the root block. */
  private readonly offsets: Int32Array;
  private readonly cursorWords: number;
  /** Nodes of a level that have changed, from its beginning. */
  private readonly touched: Int32Array;

  /** `shared`: with other threads; or over the memory of another thread's table. */
  constructor(stateWords: number, shared = false, memory: TableMemory | null = null) {
    this.stateWords = stateWords;
    this.shared = shared;
    const offsets = [0];
    let length = stateWords;
    let end = 0;
    while (length > MAX_ROOT) {
      end += padded(length);
      offsets.push(end);
      length = padded(length) / 4;
    }
    this.offsets = Int32Array.from(offsets);
    this.rootWords = length;
    this.cursorWords = end + length;
    this.touched = new Int32Array(stateWords);
    const first = shared ? FIRST_SHARED : FIRST;
    this.counter = memory?.counter ?? words(COUNTER_WORDS, shared);
    this.inner = new BlockTable(memory === null ? first : 1, this.counter.subarray(COUNTER_WORDS / 2), shared);
    this.limit = first;
    this.hashes = memory?.hashes ?? words(roomFor(first, shared), shared);
    this.roots = memory?.roots ?? words(roomFor(first, shared) * length, shared);
    this.slots = memory?.slots ?? words(2 * first, shared);
    this.shift = Math.clz32(this.slots.length) + 1;
    if (memory !== null) this.adopt(memory);
  }

  get count(): number {
    return this.counter[0]!;
  }

  /** It is to be enlarged soon. HOT */
  get crowded(): boolean {
    return this.counter[0]! >= this.limit || this.inner.count >= this.inner.limit;
  }

  /** A cursor at the state whose words are all 0. */
  cursor(): Cursor {
    const { cursorWords } = this;
    const data = new Int32Array(cursorWords);
    const cursor: Cursor = {
      data,
      hash: 0,
      changedAt: new Int32Array(cursorWords),
      changedFrom: new Int32Array(cursorWords),
      changed: 0,
      hashBefore: 0,
    };
    for (let i = 0; i < this.stateWords; i++) cursor.hash ^= mixWord(0, i);
    for (let level = 0; level + 1 < this.offsets.length; level++) {
      const from = this.offsets[level]!;
      const to = this.offsets[level + 1]!;
      for (let p = from, q = to; p < to; p += 4, q++)
        data[q] = this.inner.intern(data[p]!, data[p + 1]!, data[p + 2]!, data[p + 3]!);
    }
    return cursor;
  }

  /** Changes `n` words of the state at the cursor: those whose numbers are in `list`, ascending, to `values`. HOT */
  change(cursor: Cursor, list: Int32Array, values: Int32Array, n: number): void {
    const { data, changedAt, changedFrom } = cursor;
    const { offsets, inner, touched } = this;
    let { hash } = cursor;
    cursor.hashBefore = hash;
    let changes = 0;
    let nodes = 0;
    let last = -1;
    for (let k = 0; k < n; k++) {
      const p = list[k]!;
      const from = data[p]!;
      const to = values[k]!;
      hash ^= mixWord(from, p) ^ mixWord(to, p);
      changedAt[changes] = p;
      changedFrom[changes++] = from;
      data[p] = to;
      if (p >>> 2 !== last) {
        last = p >>> 2;
        touched[nodes++] = last;
      }
    }
    cursor.hash = hash;
    const top = offsets.length - 1;
    for (let level = 0; level < top; level++) {
      const below = offsets[level]!;
      const above = offsets[level + 1]!;
      const blocks = nodes;
      nodes = 0;
      last = -1;
      for (let k = 0; k < blocks; k++) {
        const block = touched[k]!;
        const p = below + (block << 2);
        const node = inner.intern(data[p]!, data[p + 1]!, data[p + 2]!, data[p + 3]!);
        const q = above + block;
        changedAt[changes] = q;
        changedFrom[changes++] = data[q]!;
        data[q] = node;
        if (block >>> 2 !== last) {
          last = block >>> 2;
          touched[nodes++] = last;
        }
      }
    }
    cursor.changed = changes;
  }

  /** Back to the state before the last `change`. HOT */
  undo(cursor: Cursor): void {
    const { data, changedAt, changedFrom, changed } = cursor;
    for (let k = 0; k < changed; k++) data[changedAt[k]!] = changedFrom[k]!;
    cursor.hash = cursor.hashBefore;
    cursor.changed = 0;
  }

  /** The number of the state at `cursor`: the one that it has, or a new one. HOT */
  insert(cursor: Cursor): number {
    const { data, hash } = cursor;
    const { slots } = this;
    const root = this.offsets[this.offsets.length - 1]!;
    const mask = slots.length - 1;
    for (let at = Math.imul(hash, 0x9e3779b1) >>> this.shift; ; at = (at + 1) & mask) {
      let held = slots[at]!;
      if (held === 0 || held === BUSY) {
        held = this.claim(at);
        if (held === 0) return this.add(at, data, root, hash);
      }
      const id = (held & ID_MASK) - 1;
      if (((held ^ hash) & TAG_MASK) === 0 && this.isRoot(id, data, root)) {
        this.fresh = false;
        return id;
      }
    }
  }

  /** 0: the place is ours to fill. Else what another thread has just put there. */
  private claim(at: number): number {
    if (!this.shared) return 0;
    let held = Atomics.compareExchange(this.slots, at, 0, BUSY);
    while (held === BUSY) held = Atomics.load(this.slots, at);
    return held;
  }

  private add(at: number, data: Int32Array, root: number, hash: number): number {
    const { counter, roots, rootWords, hashes } = this;
    const id = this.shared ? Atomics.add(counter, 0, 1) : counter[0]!++;
    if (id >= hashes.length) throw new Error('the table of states was not enlarged in time');
    for (let i = 0, p = id * rootWords; i < rootWords; i++) roots[p + i] = data[root + i]!;
    hashes[id] = hash;
    const held = (hash & TAG_MASK) | (id + 1);
    if (this.shared) Atomics.store(this.slots, at, held);
    else this.slots[at] = held;
    this.fresh = true;
    return id;
  }

  /* HOT */
  private isRoot(id: number, data: Int32Array, root: number): boolean {
    const { roots, rootWords } = this;
    const p = id * rootWords;
    for (let i = 0; i < rootWords; i++) if (roots[p + i] !== data[root + i]) return false;
    return true;
  }

  /** Takes a state apart again: the words are at 0 in the cursor's data. What it has in common with the cursor's state is left alone. HOT */
  decode(id: number, into: Cursor): void {
    const { data } = into;
    const { offsets, roots, rootWords } = this;
    const { cells } = this.inner;
    const top = offsets.length - 1;
    const root = offsets[top]!;
    const first = id * rootWords;
    into.hash = this.hashes[id]!;
    into.changed = 0;
    if (top === 0) {
      for (let i = 0; i < rootWords; i++) data[i] = roots[first + i]!;
      return;
    }
    for (let i = 0; i < rootWords; i++) {
      const node = roots[first + i]!;
      if (data[root + i] === node) continue;
      data[root + i] = node;
      this.open(data, cells, top, i);
    }
  }

  /** Writes what is below node `i` of `level`, as far as it is something else. */
  private open(data: Int32Array, cells: Words, level: number, i: number): void {
    const { offsets } = this;
    let p = data[offsets[level]! + i]! << 2;
    const below = offsets[level - 1]! + (i << 2);
    if (level === 1) {
      data[below] = cells[p]!;
      data[below + 1] = cells[p + 1]!;
      data[below + 2] = cells[p + 2]!;
      data[below + 3] = cells[p + 3]!;
      return;
    }
    const end = offsets[level]!;
    for (let k = 0; k < 4 && below + k < end; k++, p++) {
      const node = cells[p]!;
      if (data[below + k] === node) continue;
      data[below + k] = node;
      this.open(data, cells, level - 1, (i << 2) + k);
    }
  }

  /** Makes room for more; nobody else may be at the table. */
  grow(): void {
    const { inner, shared } = this;
    if (inner.count >= inner.limit) inner.grow();
    if (this.count < this.limit) return;
    this.limit = enlarged(this.limit);
    const room = roomFor(this.limit, shared);
    this.roots = resized(this.roots, room * this.rootWords, shared);
    this.hashes = resized(this.hashes, room, shared);
    if (this.limit * 4 > this.slots.length * 3) this.rehash();
  }

  private rehash(): void {
    const slots = words(this.slots.length * 2, this.shared);
    const mask = slots.length - 1;
    const { hashes, count } = this;
    this.shift--;
    for (let id = 0; id < count; id++) {
      const hash = hashes[id]!;
      let at = Math.imul(hash, 0x9e3779b1) >>> this.shift;
      while (slots[at] !== 0) at = (at + 1) & mask;
      slots[at] = (hash & TAG_MASK) | (id + 1);
    }
    this.slots = slots;
  }

  /** What another thread has to know of the table. */
  get memory(): TableMemory {
    const { counter, roots, hashes, slots, limit, inner } = this;
    return { counter, roots, hashes, slots, limit, blocks: inner.memory };
  }

  /** Goes over to what another thread has enlarged. */
  adopt({ roots, hashes, slots, limit, blocks }: TableMemory): void {
    this.roots = roots;
    this.hashes = hashes;
    this.slots = slots;
    this.shift = Math.clz32(slots.length) + 1;
    this.limit = limit;
    this.inner.adopt(blocks);
  }

  /** Of everything that is kept for the states, as far as it is in use. */
  get bytes(): number {
    return 4 * this.count * (this.rootWords + 1) + this.slots.byteLength + this.inner.bytes;
  }
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
