/** Up to 64 neighbouring pages, bit 0 the lowest, in two halves. */
export class PageMask {
  lo = 0;
  hi = 0;

  /** Adds page `bit`, 0 to 63. */
  set(bit: number): void {
    if (bit < 32) this.lo |= 1 << bit;
    else this.hi |= 1 << (bit - 32);
  }

  /** Only page 0. */
  restart(): void {
    this.lo = 1;
    this.hi = 0;
  }

  /** The highest page; -1 when there is none. */
  last(): number {
    return this.hi !== 0 ? 63 - Math.clz32(this.hi) : 31 - Math.clz32(this.lo);
  }

  /** Moves every page up by `count`, 1 to 63. The caller sees to it that none falls out. */
  shiftUp(count: number): void {
    if (count >= 32) {
      this.hi = this.lo << (count - 32);
      this.lo = 0;
    } else {
      this.hi = (this.hi << count) | (this.lo >>> (32 - count));
      this.lo <<= count;
    }
  }
}
