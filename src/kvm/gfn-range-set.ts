/** A set of guest frames kept as ordered, disjoint, non-adjacent ranges. */

export class GfnRangeSet {
  /** Ranges: start at 2n, end (exclusive) at 2n + 1. */
  private bounds: number[] = [];
  /** The stretch of frames, all in or all out, where the last lookup fell. */
  private cacheStart = 0;
  private cacheEnd = 0;
  private cacheIn = false;

  /** HOT: neighbours of the last frame asked for cost two comparisons. */
  has(gfn: number): boolean {
    if (gfn >= this.cacheStart && gfn < this.cacheEnd) return this.cacheIn;
    return this.lookup(gfn);
  }

  private lookup(gfn: number): boolean {
    const bounds = this.bounds;
    let low = 0;
    let high = bounds.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (bounds[mid]! <= gfn) low = mid + 1;
      else high = mid;
    }
    this.cacheStart = low === 0 ? 0 : bounds[low - 1]!;
    this.cacheEnd = low === bounds.length ? Number.POSITIVE_INFINITY : bounds[low]!;
    this.cacheIn = (low & 1) === 1;
    return this.cacheIn;
  }

  /** Every frame of [start, end) is in (`present`) or is out. */
  uniform(start: number, end: number, present: boolean): boolean {
    return this.has(start) === present && this.cacheEnd >= end;
  }

  /** Puts [start, end) in, or takes it out. */
  set(start: number, end: number, present: boolean): void {
    if (start >= end) return;
    const bounds = this.bounds;
    let left = 0;
    while (left < bounds.length && bounds[left]! < start) left++;
    let right = left;
    while (right < bounds.length && bounds[right]! <= end) right++;
    // An odd count of bounds before a position means that the position is inside a range, or touches its end.
    const next = bounds.slice(0, left);
    if (((left & 1) === 0) === present) next.push(start);
    if (((right & 1) === 0) === present) next.push(end);
    for (let i = right; i < bounds.length; i++) next.push(bounds[i]!);
    this.bounds = next;
    this.cacheStart = 0;
    this.cacheEnd = 0;
  }

  /** The ranges, in order. */
  *ranges(): Generator<{ start: number; end: number }> {
    for (let i = 0; i < this.bounds.length; i += 2) yield { start: this.bounds[i]!, end: this.bounds[i + 1]! };
  }
}
