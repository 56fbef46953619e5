/**
 * What occurs most, in bounded memory: counts of keys, where keys that are seldom make room for others when there are too many (lossy
 * counting). While there were fewer keys than that, counts are exact.
 */

/** Something with a count. Made once for a key. */
export interface Counted {
  count: number;
}

export class TopCounter<C extends Counted> {
  private readonly counters = new Map<number, C>();
  private readonly make: (key: number) => C;
  private readonly most: number;
  /** Counts are too low by at most this. */
  missed = 0;

  constructor(make: (key: number) => C, most = 1 << 16) {
    this.make = make;
    this.most = most;
  }

  /** The counter of a key, one higher. HOT while the key is known */
  add(key: number): C {
    let counter = this.counters.get(key);
    if (counter === undefined) {
      if (this.counters.size >= this.most) this.makeRoom();
      counter = this.make(key);
      this.counters.set(key, counter);
    }
    counter.count++;
    return counter;
  }

  /** The counter of a key, if it has one. */
  get(key: number): C | undefined {
    return this.counters.get(key);
  }

  get size(): number {
    return this.counters.size;
  }

  private makeRoom(): void {
    while (this.counters.size >= this.most) {
      this.missed++;
      for (const [key, counter] of this.counters) if (counter.count <= this.missed) this.counters.delete(key);
    }
  }

  /** The `n` highest, the highest first; of equals the lower key. */
  top(n: number, by: (counter: C) => number = (c) => c.count): C[] {
    return [...this.counters.entries()]
      .sort(([ka, a], [kb, b]) => by(b) - by(a) || ka - kb)
      .slice(0, n)
      .map(([, counter]) => counter);
  }

  values(): IterableIterator<C> {
    return this.counters.values();
  }
}
