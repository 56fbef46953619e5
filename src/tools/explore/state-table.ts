/**
 * The states that were reached, each once, numbered in the order in which they came.
 *
 * A state is kept as a tree: its words in blocks of four, the blocks' numbers in blocks of four, and so on up to one root block a state.
 * Every block is kept once (block-table.ts), so two states that differ in a few words share all but a few blocks, and the comparison is
 * exact: states are equal when their root blocks are. A step changes few words; only the blocks above those are looked up again.
 */
import { BlockTable, enlarged, mixWord } from './block-table.ts';

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
  parents = new Int32Array(64);
  steps = new Int32Array(64);
  parentHashes = new Int32Array(64);
  private readonly inner = new BlockTable();
  private roots = new Int32Array(4 * 64);
  hashes = new Int32Array(64);
  private slots = new Int32Array(128);
  private shift = 25;
  /** Where each level begins in a cursor; the last is the root block. */
  private readonly offsets: Int32Array;
  private readonly cursorWords: number;

  constructor(stateWords: number) {
    this.stateWords = stateWords;
    const offsets = [0];
    let length = Math.max(4, padded(stateWords));
    let end = length;
    while (length > 4) {
      offsets.push(end);
      length = padded(length / 4);
      end += length;
    }
    this.offsets = Int32Array.from(offsets);
    this.cursorWords = end;
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
    const end = top === 0 ? data.length : offsets[1]!;
    let q = end;
    for (let p = 0; p < end; p += 4, q++) {
      const a = data[p]!;
      const b = data[p + 1]!;
      const c = data[p + 2]!;
      const d = data[p + 3]!;
      if (a === old[p] && b === old[p + 1] && c === old[p + 2] && d === old[p + 3]) {
        if (top !== 0) data[q] = old[q]!;
        continue;
      }
      if (a !== old[p]) hash ^= mixWord(a, p) ^ mixWord(old[p]!, p);
      if (b !== old[p + 1]) hash ^= mixWord(b, p + 1) ^ mixWord(old[p + 1]!, p + 1);
      if (c !== old[p + 2]) hash ^= mixWord(c, p + 2) ^ mixWord(old[p + 2]!, p + 2);
      if (d !== old[p + 3]) hash ^= mixWord(d, p + 3) ^ mixWord(old[p + 3]!, p + 3);
      if (top !== 0) data[q] = inner.intern(a, b, c, d);
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
    const root = this.offsets[this.offsets.length - 1]!;
    const a = data[root]!;
    const b = data[root + 1]!;
    const c = data[root + 2]!;
    const d = data[root + 3]!;
    const { slots, hashes, roots } = this;
    const mask = slots.length - 1;
    let at = Math.imul(hash, 0x9e3779b1) >>> this.shift;
    for (;;) {
      const id = slots[at]! - 1;
      if (id < 0) break;
      if (hashes[id] === hash) {
        const p = id * 4;
        if (roots[p] === a && roots[p + 1] === b && roots[p + 2] === c && roots[p + 3] === d) {
          this.fresh = false;
          return id;
        }
      }
      at = (at + 1) & mask;
    }
    const id = this.count++;
    if (id === hashes.length) this.grow();
    const p = id * 4;
    this.roots[p] = a;
    this.roots[p + 1] = b;
    this.roots[p + 2] = c;
    this.roots[p + 3] = d;
    this.hashes[id] = hash;
    this.slots[at] = id + 1;
    if (this.count * 3 > this.slots.length * 2) this.rehash();
    this.fresh = true;
    return id;
  }

  /** Takes a state apart again: the words are at 0 in the cursor's data. HOT */
  decode(id: number, into: Cursor): void {
    const { data } = into;
    const { offsets } = this;
    const cells = this.inner.cells;
    let to = offsets[offsets.length - 1]!;
    data[to] = this.roots[id * 4]!;
    data[to + 1] = this.roots[id * 4 + 1]!;
    data[to + 2] = this.roots[id * 4 + 2]!;
    data[to + 3] = this.roots[id * 4 + 3]!;
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
    this.roots = enlarged(this.roots);
    const length = this.roots.length / 4;
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
      let at = Math.imul(this.hashes[id]!, 0x9e3779b1) >>> this.shift;
      while (slots[at] !== 0) at = (at + 1) & mask;
      slots[at] = id + 1;
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

function resized(array: Int32Array<ArrayBuffer>, length: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(length);
  larger.set(array);
  return larger;
}
