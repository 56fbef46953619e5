/**
 * The states that were reached, each once, numbered in the order in which they came.
 *
 * A state is kept as a tree: its words in blocks of four, the blocks' numbers in blocks of four, and so on up to a root of at most eight.
 * Every block is kept once (block-table.ts), so two states that differ in a few words share all but a few blocks, and the comparison is
 * exact: states are equal when their roots are. A step changes few words; only the blocks above those are looked up again.
 */
import { BlockTable, enlarged, mixWord, resized } from './block-table.ts';

/** Words of a root, at most: a block less to look up at each step is worth more than what a longer root takes. */
const MAX_ROOT = 8;
/** States that there is room for at first. */
const FIRST = 64;

/** One state, taken apart: its words and the numbers of its blocks, level by level. */
export interface Cursor {
  readonly data: Int32Array;
  hash: number;
}

export class StateTable {
  readonly stateWords: number;
  count = 0;
  /** Whether the last `insert` found the state new. */
  fresh = false;
  /** By state: its hash; which state it was reached from, that one's hash, and by which step (see `stepWord`). */
  parents = new Int32Array(FIRST);
  steps = new Int32Array(FIRST);
  parentHashes = new Int32Array(FIRST);
  private readonly inner = new BlockTable();
  private roots: Int32Array<ArrayBuffer>;
  private readonly rootWords: number;
  hashes = new Int32Array(FIRST);
  /** Open addressing; pairs of a state's number plus 1, 0 for nothing, and its hash. */
  private slots = new Int32Array(4 * FIRST);
  private shift = 25;
  /** Where each level begins in a cursor; the last is the root block. */
  private readonly offsets: Int32Array;
  private readonly cursorWords: number;

  constructor(stateWords: number) {
    this.stateWords = stateWords;
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
    this.roots = new Int32Array(FIRST * length);
  }

  /** A cursor at the state whose words are all 0. */
  cursor(): Cursor {
    const cursor = { data: new Int32Array(this.cursorWords), hash: 0 };
    for (let i = 0; i < this.stateWords; i++) cursor.hash ^= mixWord(0, i);
    const { data } = cursor;
    for (let level = 0; level + 1 < this.offsets.length; level++) {
      const from = this.offsets[level]!;
      const to = this.offsets[level + 1]!;
      for (let p = from, q = to; p < to; p += 4, q++)
        data[q] = this.inner.intern(data[p]!, data[p + 1]!, data[p + 2]!, data[p + 3]!);
    }
    return cursor;
  }

  /** Completes `cursor`, whose words were just written, from one that is complete and, best, differs in little. HOT */
  fold(cursor: Cursor, base: Cursor): void {
    const { data } = cursor;
    const old = base.data;
    const { offsets, inner } = this;
    const top = offsets.length - 1;
    let hash = base.hash;
    if (top === 0) {
      for (let p = 0; p < data.length; p++) if (data[p] !== old[p]) hash ^= mixWord(data[p]!, p) ^ mixWord(old[p]!, p);
      cursor.hash = hash;
      return;
    }
    const end = offsets[1]!;
    let q = end;
    for (let p = 0; p < end; p += 4, q++) {
      const a = data[p]!;
      const b = data[p + 1]!;
      const c = data[p + 2]!;
      const d = data[p + 3]!;
      if (a === old[p] && b === old[p + 1] && c === old[p + 2] && d === old[p + 3]) {
        data[q] = old[q]!;
        continue;
      }
      if (a !== old[p]) hash ^= mixWord(a, p) ^ mixWord(old[p]!, p);
      if (b !== old[p + 1]) hash ^= mixWord(b, p + 1) ^ mixWord(old[p + 1]!, p + 1);
      if (c !== old[p + 2]) hash ^= mixWord(c, p + 2) ^ mixWord(old[p + 2]!, p + 2);
      if (d !== old[p + 3]) hash ^= mixWord(d, p + 3) ^ mixWord(old[p + 3]!, p + 3);
      data[q] = inner.intern(a, b, c, d);
    }
    cursor.hash = hash;
    for (let level = 1; level < top; level++) {
      const to = offsets[level + 1]!;
      q = to;
      for (let p = offsets[level]!; p < to; p += 4, q++) {
        const a = data[p]!;
        const b = data[p + 1]!;
        const c = data[p + 2]!;
        const d = data[p + 3]!;
        data[q] =
          a === old[p] && b === old[p + 1] && c === old[p + 2] && d === old[p + 3] ? old[q]! : inner.intern(a, b, c, d);
      }
    }
  }

  /** The number of the state at `cursor`, which is complete: the one that it has, or a new one. HOT */
  insert(cursor: Cursor): number {
    const { data, hash } = cursor;
    const { slots, rootWords } = this;
    const root = this.offsets[this.offsets.length - 1]!;
    const mask = slots.length - 1;
    let at = (Math.imul(hash, 0x9e3779b1) >>> this.shift) << 1;
    for (;;) {
      const id = slots[at]! - 1;
      if (id < 0) break;
      if (slots[at + 1] === hash && this.isRoot(id, data, root)) {
        this.fresh = false;
        return id;
      }
      at = (at + 2) & mask;
    }
    const id = this.count++;
    if (id === this.hashes.length) this.grow();
    const { roots } = this;
    for (let i = 0, p = id * rootWords; i < rootWords; i++) roots[p + i] = data[root + i]!;
    this.hashes[id] = hash;
    this.slots[at] = id + 1;
    this.slots[at + 1] = hash;
    if (this.count * 3 > this.slots.length) this.rehash();
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

  /** Takes a state apart again: the words are at 0 in the cursor's data. HOT */
  decode(id: number, into: Cursor): void {
    const { data } = into;
    const { offsets } = this;
    const cells = this.inner.cells;
    const { roots, rootWords } = this;
    let to = offsets[offsets.length - 1]!;
    for (let i = 0, p = id * rootWords; i < rootWords; i++) data[to + i] = roots[p + i]!;
    for (let level = offsets.length - 2; level >= 0; level--) {
      const from = offsets[level]!;
      for (let q = to, p = from; p < to; q++, p += 4) {
        const cell = data[q]! << 2;
        data[p] = cells[cell]!;
        data[p + 1] = cells[cell + 1]!;
        data[p + 2] = cells[cell + 2]!;
        data[p + 3] = cells[cell + 3]!;
      }
      to = from;
    }
    into.hash = this.hashes[id]!;
  }

  private grow(): void {
    const length = enlarged(this.hashes.length);
    this.roots = resized(this.roots, length * this.rootWords);
    this.hashes = resized(this.hashes, length);
    this.parents = resized(this.parents, length);
    this.steps = resized(this.steps, length);
    this.parentHashes = resized(this.parentHashes, length);
  }

  private rehash(): void {
    const slots = new Int32Array(this.slots.length * 2);
    const mask = slots.length - 1;
    this.shift--;
    for (let id = 0; id < this.count; id++) {
      const hash = this.hashes[id]!;
      let at = (Math.imul(hash, 0x9e3779b1) >>> this.shift) << 1;
      while (slots[at] !== 0) at = (at + 2) & mask;
      slots[at] = id + 1;
      slots[at + 1] = hash;
    }
    this.slots = slots;
  }

  /** Bytes of everything that is kept for the states. */
  get bytes(): number {
    const byState = [this.roots, this.hashes, this.parents, this.steps, this.parentHashes, this.slots];
    return byState.reduce((sum, array) => sum + array.byteLength, this.inner.bytes);
  }
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
