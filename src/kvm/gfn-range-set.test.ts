import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GfnRangeSet } from './gfn-range-set.ts';

describe('GfnRangeSet', () => {
  it('agrees with a plain set of frames', () => {
    const step = fc.tuple(fc.nat(40), fc.nat(12), fc.boolean());
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        const set = new GfnRangeSet();
        const plain = new Set<number>();
        for (const [start, length, present] of steps) {
          set.set(start, start + length, present);
          for (let g = start; g < start + length; g++) present ? plain.add(g) : plain.delete(g);
        }
        for (let g = 0; g < 60; g++) expect(set.has(g)).toBe(plain.has(g));
        for (let start = 0; start < 50; start += 3) {
          const frames = Array.from({ length: 7 }, (_, i) => plain.has(start + i));
          expect(set.uniform(start, start + 7, true)).toBe(frames.every(Boolean));
          expect(set.uniform(start, start + 7, false)).toBe(!frames.some(Boolean));
        }
        let last = -1;
        for (const { start, end } of set.ranges()) {
          expect(start).toBeGreaterThan(last);
          expect(end).toBeGreaterThan(start);
          last = end;
        }
      }),
      { seed: 12 },
    );
  });
});
