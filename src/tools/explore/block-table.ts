/**
 * Blocks of four words, each kept once and known by a number: the inner nodes of the trees in which states are kept (state-table.ts).
 */

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

export class BlockTable {
  /** Four words a block. */
  cells = new Int32Array(4 * 64);
  /** Open addressing; a block's number plus 1, 0 for nothing. */
  private slots = new Int32Array(128);
  private mask = 127;
  count = 0;

  /** The number of the block with these words: the one that it has, or a new one. HOT */
  intern(a: number, b: number, c: number, d: number): number {
    const { cells, slots, mask } = this;
    let at = hashBlock(a, b, c, d) & mask;
    for (;;) {
      const id = slots[at]! - 1;
      if (id < 0) break;
      const p = id << 2;
      if (cells[p] === a && cells[p + 1] === b && cells[p + 2] === c && cells[p + 3] === d) return id;
      at = (at + 1) & mask;
    }
    return this.add(at, a, b, c, d);
  }

  private add(at: number, a: number, b: number, c: number, d: number): number {
    const id = this.count++;
    if (id << 2 === this.cells.length) this.cells = resized(this.cells, enlarged(this.cells.length));
    const p = id << 2;
    this.cells[p] = a;
    this.cells[p + 1] = b;
    this.cells[p + 2] = c;
    this.cells[p + 3] = d;
    this.slots[at] = id + 1;
    if (this.count * 4 > this.slots.length * 3) this.rehash();
    return id;
  }

  private rehash(): void {
    const slots = new Int32Array(this.slots.length * 2);
    const mask = slots.length - 1;
    const { cells } = this;
    for (let id = 0; id < this.count; id++) {
      const p = id << 2;
      let at = hashBlock(cells[p]!, cells[p + 1]!, cells[p + 2]!, cells[p + 3]!) & mask;
      while (slots[at] !== 0) at = (at + 1) & mask;
      slots[at] = id + 1;
    }
    this.slots = slots;
    this.mask = mask;
  }

  get bytes(): number {
    return this.cells.byteLength + this.slots.byteLength;
  }
}

/** The next length of an array that has become too small. */
export function enlarged(length: number): number {
  return (length + (length >>> 1) + 4) & ~3;
}

/** A copy with room for more. */
export function resized(array: Int32Array<ArrayBuffer>, length: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(length);
  larger.set(array);
  return larger;
}
