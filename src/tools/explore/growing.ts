/** Lists of int32 that grow without being copied. */

const CHUNK_BITS = 16;
const CHUNK = 1 << CHUNK_BITS;
const CHUNK_MASK = CHUNK - 1;

/** What can be read of such a list, also when it came from another thread in pieces. */
export interface IntList {
  readonly length: number;
  at(index: number): number;
}

export class GrowingInts implements IntList {
  private readonly chunks: Int32Array<ArrayBuffer>[];
  private last = new Int32Array(0);
  length: number;

  /** From the pieces of another one. */
  constructor(pieces: readonly Int32Array<ArrayBuffer>[] = [], length = 0) {
    this.chunks = [...pieces];
    this.last = this.chunks.at(-1) ?? this.last;
    this.length = length;
  }

  /* HOT */
  push(value: number): void {
    const at = this.length & CHUNK_MASK;
    if (at === 0) {
      this.last = new Int32Array(CHUNK);
      this.chunks.push(this.last);
    }
    this.last[at] = value;
    this.length++;
  }

  /* HOT */
  at(index: number): number {
    return this.chunks[index >>> CHUNK_BITS]![index & CHUNK_MASK]!;
  }

  clear(): void {
    this.chunks.length = 0;
    this.length = 0;
  }

  /** What it is kept in; with `length` it can be made again elsewhere. */
  get pieces(): readonly Int32Array<ArrayBuffer>[] {
    return this.chunks;
  }

  /** Bytes of what is in it; nearly what is allocated. */
  get bytes(): number {
    return this.length * 4;
  }
}
