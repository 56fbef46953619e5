import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Conditions, type Part } from './condition.ts';
import { EQUAL, INVALID_INPUT } from './space-result.ts';

interface Small {
  readonly sizes: readonly number[];
  readonly classOf: Uint16Array;
}

const smallSpace: fc.Arbitrary<Small> = fc
  .array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 })
  .chain((sizes) => {
    const length = sizes.reduce((a, b) => a * b, 1);
    return fc
      .array(fc.constantFrom(EQUAL, EQUAL, 1, 1, 2, INVALID_INPUT), { minLength: length, maxLength: length })
      .map((labels) => ({ sizes, classOf: Uint16Array.from(labels) }));
  });

const space = (s: Small) => ({
  dims: s.sizes.map((size, d) => ({
    name: `d${d}`,
    values: Array.from({ length: size }, (_, v) => `v${v}`),
  })),
  classOf: s.classOf,
});

function valuesAt(sizes: readonly number[], index: number): number[] {
  const values: number[] = [];
  for (let d = sizes.length - 1, rest = index; d >= 0; d--) {
    values.unshift(rest % sizes[d]!);
    rest = Math.floor(rest / sizes[d]!);
  }
  return values;
}

const inside = (cube: readonly Uint8Array[], values: readonly number[]): boolean =>
  values.every((v, d) => cube[d]![v] === 1);

/** Whether the cube, with one more value allowed, lets in an input that does not belong. */
function cannotGrow(s: Small, part: Part, belongs: (c: number) => boolean): boolean {
  return s.sizes.every((size, d) =>
    Array.from({ length: size }, (_, v) => v).every((v) => {
      if (part.most[d]![v] === 1) return true;
      const grown = part.most.map((values) => values.slice());
      grown[d]![v] = 1;
      return s.classOf.some((c, i) => c !== INVALID_INPUT && !belongs(c) && inside(grown, valuesAt(s.sizes, i)));
    }),
  );
}

describe('a condition', () => {
  it('holds every input of its classes, no other, and cannot be said with less (brute force)', () => {
    fc.assert(
      fc.property(smallSpace, fc.constantFrom([1], [2], [1, 2]), (s, group) => {
        const classes: ReadonlySet<number> = new Set(group);
        const conditions = new Conditions(space(s));
        const parts = conditions.of(classes);
        const covered = parts.map(() => 0);
        for (const [i, c] of s.classOf.entries()) {
          if (c === INVALID_INPUT) continue;
          const values = valuesAt(s.sizes, i);
          const most = parts.filter((p) => inside(p.most, values));
          expect(most.length > 0).toBe(classes.has(c));
          expect(parts.filter((p) => inside(p.least, values))).toEqual(most);
          for (const p of most) covered[parts.indexOf(p)]!++;
        }
        expect(parts.map((p) => p.inputs)).toEqual(covered);
        for (const p of parts) expect(cannotGrow(s, p, (c) => classes.has(c))).toBe(true);
        for (const p of parts) {
          const others = parts.filter((q) => q !== p);
          const needed = [...s.classOf.entries()].some(
            ([i, c]) =>
              classes.has(c) &&
              inside(p.most, valuesAt(s.sizes, i)) &&
              !others.some((q) => inside(q.most, valuesAt(s.sizes, i))),
          );
          expect(needed).toBe(true);
        }
        expect(conditions.inputsOf(classes)).toBe(s.classOf.filter((c) => classes.has(c)).length);
      }),
    );
  });

  it('against some classes only may let all others in, and says when a dimension does not matter (brute force)', () => {
    fc.assert(
      fc.property(smallSpace, fc.nat(4), (s, d) => {
        const dim = d % s.sizes.length;
        const inputs = [...s.classOf.entries()].filter(([, c]) => c !== INVALID_INPUT);
        const { both, first, others } = new Conditions(space(s)).split(new Set([1]), new Set([2]), dim, true);
        for (const [i, c] of inputs) {
          if (c === EQUAL) continue;
          const values = valuesAt(s.sizes, i);
          const parts = both ?? (values[dim] === 0 ? first : others!);
          expect(parts.some((p) => inside(p.most, values))).toBe(c === 1);
        }
        if (both !== null) for (const p of both) expect(p.most[dim]!.every((v) => v === 1)).toBe(true);
      }),
    );
  });

  it('is the same one each time', () => {
    fc.assert(
      fc.property(smallSpace, (s) => {
        expect(new Conditions(space(s)).of(new Set([1]))).toEqual(new Conditions(space(s)).of(new Set([1])));
      }),
    );
  });

  it('is short over millions of inputs', () => {
    const sizes = [3, 4, 2, 2, 40, 9, 2, 6, 6, 7];
    const classOf = new Uint16Array(sizes.reduce((a, b) => a * b, 1));
    for (let i = 0; i < classOf.length; i++) {
      const backing = Math.floor(i / 7) % 6;
      const spte = Math.floor(i / 42) % 6;
      const attribute = Math.floor(i / 252) % 2;
      const slot = Math.floor(i / 504) % 9;
      const code = Math.floor(i / 4536) % 40;
      const nested = Math.floor(i / 181_440) % 2;
      const vmType = Math.floor(i / 725_760) % 4;
      const hardware = Math.floor(i / 2_903_040);
      if (hardware === 2 && vmType > 1) classOf[i] = INVALID_INPUT;
      else if (slot === 0 && attribute === 1 && spte !== 4) classOf[i] = 1 + (code % 3);
      else if (nested === 1 && slot === 7 && backing === 0) classOf[i] = 9;
      else if (code > 30 && vmType === 2) classOf[i] = 10 + backing;
    }
    expect(classOf.length).toBeGreaterThan(8_000_000);
    const conditions = new Conditions(space({ sizes, classOf }));
    const counts = [1, 2, 3, 9, 10, 11, 12, 13, 14, 15].map((c) => conditions.of(new Set([c])).length);
    expect(counts).toEqual([1, 1, 1, 1, 4, 3, 3, 3, 3, 3]);
  });
});
