/** Times of any length in bounded memory: buckets within 2 % of the value, from a nanosecond to hours. */

const SUB_BITS = 5;
const SUB = 1 << SUB_BITS;
const OCTAVES = 44;

export class Histogram {
  private readonly buckets = new Float64Array(OCTAVES * SUB);
  count = 0;
  most = 0;

  /** @param ns nanoseconds. HOT */
  add(ns: number): void {
    this.count++;
    if (ns > this.most) this.most = ns;
    this.buckets[bucketOf(ns)]!++;
  }

  /** Nanoseconds below which `share` (0 to 1) of the times lie; 0 without any. */
  percentile(share: number): number {
    let left = Math.ceil(share * this.count);
    for (let i = 0; i < this.buckets.length; i++) {
      left -= this.buckets[i]!;
      if (left <= 0 && this.count > 0) return Math.min(middleOf(i), this.most);
    }
    return this.most;
  }
}

/** Below SUB each value has its own bucket; above, each octave has SUB. */
function bucketOf(ns: number): number {
  if (ns < SUB) return Math.max(0, Math.floor(ns));
  const octave = Math.floor(Math.log2(ns)) - SUB_BITS;
  const bucket = (octave + 1) * SUB + Math.floor(ns / 2 ** octave) - SUB;
  return Math.min(bucket, OCTAVES * SUB - 1);
}

function middleOf(bucket: number): number {
  if (bucket < SUB) return bucket;
  const octave = Math.floor(bucket / SUB) - 1;
  return ((bucket % SUB) + SUB + 0.5) * 2 ** octave;
}
