/** Lists of int32 that grow without being copied. */

const CHUNK_BITS = 16;
const CHUNK = 1 << CHUNK_BITS;
const CHUNK_MASK = CHUNK - 1;

export class GrowingInts {
  private readonly chunks: Int32Array[] = [];
  private last = new Int32Array(0);
  length = 0;

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

  set(index: number, value: number): void {
    this.chunks[index >>> CHUNK_BITS]![index & CHUNK_MASK] = value;
  }

  clear(): void {
    this.chunks.length = 0;
    this.length = 0;
  }

  /** One array with everything in it. */
  flat(): Int32Array<ArrayBuffer> {
    const all = new Int32Array(this.length);
    for (const [i, chunk] of this.chunks.entries())
      all.set(i === this.chunks.length - 1 ? chunk.subarray(0, this.length - i * CHUNK) : chunk, i * CHUNK);
    return all;
  }

  get bytes(): number {
    return this.chunks.length * CHUNK * 4;
  }
}
