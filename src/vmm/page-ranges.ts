/** Which guest pages are private, as the VMM keeps it: ordered, disjoint ranges of guest-physical addresses. */
export class PageRanges {
  private ranges: { start: number; end: number }[] = [];

  /** True when `gpa` is in a range. */
  has(gpa: number): boolean {
    return this.ranges.some((r) => gpa >= r.start && gpa < r.end);
  }

  /** Puts [start, end) in, or takes it out. */
  set(start: number, end: number, present: boolean): void {
    if (start >= end) return;
    const rest: { start: number; end: number }[] = [];
    let from = start;
    let to = end;
    for (const r of this.ranges) {
      if (r.end < start || r.start > end) {
        rest.push(r);
      } else if (present) {
        from = Math.min(from, r.start);
        to = Math.max(to, r.end);
      } else {
        if (r.start < start) rest.push({ start: r.start, end: start });
        if (r.end > end) rest.push({ start: end, end: r.end });
      }
    }
    if (present) rest.push({ start: from, end: to });
    this.ranges = rest.sort((a, b) => a.start - b.start);
  }

  /** The ranges in order. */
  all(): readonly { readonly start: number; readonly end: number }[] {
    return this.ranges;
  }
}
