/**
 * Which of the enabled actors need to take their steps now. When some actors touch nothing that the others may still touch, it is enough to
 * let those move first: every order of the rest only repeats what is found afterwards (docs/explore.md says why, and what is kept).
 */
import type { Footprint, Model } from './model.ts';

const ALL = -1;

export class Reduction {
  private readonly model: Model;
  private readonly observed: number;
  private readonly out: Footprint = { reads: 0, writes: 0 };
  private readonly reads: Int32Array;
  private readonly writes: Int32Array;
  private readonly restReads: Int32Array;
  private readonly restWrites: Int32Array;

  constructor(model: Model) {
    const n = model.actors.length;
    this.model = model;
    this.observed = model.observed ?? ALL;
    this.reads = new Int32Array(n);
    this.writes = new Int32Array(n);
    this.restReads = new Int32Array(n).fill(ALL);
    this.restWrites = new Int32Array(n).fill(ALL);
  }

  /** The smallest set of enabled actors found whose steps suffice; `enabled` when it takes all. The model is at the state. HOT */
  sufficient(enabled: number): number {
    if ((enabled & (enabled - 1)) === 0) return enabled;
    this.look();
    let best = enabled;
    for (let left = enabled; left !== 0; left &= left - 1) {
      const set = this.closure(left & -left, enabled);
      if (set === 0) continue;
      if ((set & (set - 1)) === 0) return set;
      if (bits(set) < bits(best)) best = set;
    }
    return best;
  }

  private look(): void {
    const { model, out } = this;
    const n = this.reads.length;
    for (let i = 0; i < n; i++) {
      model.footprint(i, out);
      this.reads[i] = out.reads;
      this.writes[i] = out.writes;
      if (model.restFootprint !== undefined) {
        model.restFootprint(i, out);
        this.restReads[i] = out.reads;
        this.restWrites[i] = out.writes;
      }
    }
  }

  /**
   * The actors that must come along with `members`: whoever may still do something that a member's next step depends on. The enabled ones of
   * them, or 0 when one of those would change what an invariant looks at.
   */
  private closure(start: number, enabled: number): number {
    const { reads, writes, restReads, restWrites, observed } = this;
    const n = reads.length;
    let members = start;
    let unseen = start;
    while (unseen !== 0) {
      const i = 31 - Math.clz32(unseen & -unseen);
      unseen &= unseen - 1;
      const r = reads[i]!;
      const w = writes[i]!;
      if ((w & observed) !== 0 && (enabled & (1 << i)) !== 0) return 0;
      for (let j = 0; j < n; j++) {
        const bit = 1 << j;
        if ((members & bit) !== 0) continue;
        if ((restWrites[j]! & (r | w)) !== 0 || (restReads[j]! & w) !== 0) {
          members |= bit;
          unseen |= bit;
        }
      }
      if ((members & enabled) === enabled) return 0;
    }
    return members & enabled;
  }
}

function bits(mask: number): number {
  let n = 0;
  for (let left = mask; left !== 0; left &= left - 1) n++;
  return n;
}
