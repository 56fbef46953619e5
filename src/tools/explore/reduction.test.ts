import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { search } from './explorer.ts';
import { Reduction } from './reduction.ts';
import { counters, lostUpdate, type Op, peterson, philosophers, type Toy, ToyModel } from './toy-models.testing.ts';

const VARIABLES = 4;
const v = fc.nat(VARIABLES - 1);
const value = fc.nat(2);
const to = fc.option(fc.nat(5), { nil: undefined });

/** Any instruction whose variables stay below 3. */
const op: fc.Arbitrary<Op> = fc
  .oneof(
    fc.record({ op: fc.constant('set'), v, value, to }),
    fc.record({ op: fc.constant('add'), v, value: fc.integer({ min: 1, max: 2 }), mod: fc.constant(3), to }),
    fc.record({ op: fc.constant('load'), v, to }),
    fc.record({ op: fc.constant('await'), v, value, becomes: fc.option(value, { nil: undefined }), to }),
    fc.record({ op: fc.constant('either'), v, value, w: v, other: value, to }),
    fc.record({ op: fc.constant('branch'), v, value, to: fc.nat(5) }),
    fc.record({ op: fc.constant('any'), v, value: fc.integer({ min: 1, max: 2 }), to }),
    fc.record({ op: fc.constant('skip'), to }),
  )
  // an absent field stays absent
  .map((o) => Object.fromEntries(Object.entries(o).filter(([, x]) => x !== undefined)) as unknown as Op);

const toy: fc.Arbitrary<Toy> = fc
  .record({
    programs: fc.array(fc.array(op, { minLength: 1, maxLength: 5 }), { minLength: 2, maxLength: 3 }),
    checks: fc.array(fc.record({ a: v, x: value, b: v, y: value }), { maxLength: 2 }),
  })
  .map(({ programs, checks }) => ({
    programs,
    variables: [0, 0, 0, 0],
    violation: (s) => checks.findIndex((c) => s[c.a] === c.x && s[c.b] === c.y && s[c.a]! + s[c.b]! > 0) + 1,
    observed: checks.reduce((bits, c) => bits | (1 << c.a) | (1 << c.b), 0),
    invariants: ['first', 'second'],
  }));

interface Truth {
  readonly problems: ReadonlySet<string>;
  readonly states: number;
}

/** What is wrong in all the states there are, by the plainest means. */
function truth(toyOf: Toy): Truth {
  const model = new ToyModel(toyOf);
  const problems = new Set<string>();
  const known = new Map<string, { words: Int32Array; successors: string[]; done: boolean }>();
  const words = new Int32Array(model.stateWords);
  const here = (): string => {
    model.capture(words, 0);
    const key = words.join();
    if (!known.has(key)) {
      known.set(key, { words: words.slice(), successors: [], done: model.unfinished() === 0 });
      todo.push(key);
    }
    return key;
  };
  const todo: string[] = [];
  here();
  for (let key = todo.pop(); key !== undefined; key = todo.pop()) {
    const node = known.get(key)!;
    model.restore(node.words, 0);
    if (model.violation() !== 0) {
      problems.add('violation');
      continue;
    }
    const enabled = model.enabled();
    if (enabled === 0 && model.unfinished() !== 0) problems.add('deadlock');
    for (let actor = 0; actor < model.actors.length; actor++)
      for (let c = 0; (enabled & (1 << actor)) !== 0; c++) {
        model.restore(node.words, 0);
        if (c === model.choices(actor)) break;
        model.step(actor, c);
        node.successors.push(here());
      }
  }
  if (problems.size === 0) {
    const hopeful = new Set([...known].filter(([, n]) => n.done).map(([key]) => key));
    for (let before = -1; before !== hopeful.size; ) {
      before = hopeful.size;
      for (const [key, n] of known) if (n.successors.some((s) => hopeful.has(s))) hopeful.add(key);
    }
    if (hopeful.size < known.size) problems.add('livelock');
  }
  return { problems, states: known.size };
}

describe('the reduction', () => {
  it('finds what the plain search finds, on random programs', async () => {
    let reduced = 0;
    const verdicts = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(toy, async (t) => {
        const { problems, states } = truth(t);
        const full = await search(new ToyModel(t), { reduce: false, livelock: true });
        const less = await search(new ToyModel(t), { reduce: true, livelock: true });
        for (const r of [full, less])
          if (problems.size === 0) expect(r.verdict).toBe('holds');
          else expect([...problems]).toContain(r.verdict);
        if (problems.size === 0) expect(full.states).toBe(states);
        if (problems.size === 0) expect(less.states).toBeLessThanOrEqual(states);
        if (less.states < full.states) reduced++;
        verdicts.set(full.verdict, (verdicts.get(full.verdict) ?? 0) + 1);
      }),
      { numRuns: 3000 },
    );
    // the comparison says something only where there was something to reduce, and of every verdict
    expect(reduced).toBeGreaterThan(300);
    for (const verdict of ['holds', 'violation', 'deadlock', 'livelock'])
      expect(verdicts.get(verdict) ?? 0, verdict).toBeGreaterThan(50);
  });

  it.each<[string, Toy]>([
    ['Peterson', peterson(true, 2)],
    ['Peterson without guard', peterson(false, 2)],
    ['philosophers', philosophers(5, false)],
    ['polite philosophers', philosophers(4, true, 2)],
    ['lost update', lostUpdate(2, 2)],
  ])('keeps the verdict of %s', async (_name, t) => {
    const full = await search(new ToyModel(t), { reduce: false, livelock: true });
    const less = await search(new ToyModel(t), { reduce: true, livelock: true });
    expect(less.verdict).toBe(full.verdict);
  });

  it('takes one of several actors that have nothing in common, and all that have', () => {
    expect(new Reduction(new ToyModel(counters(3, 3))).sufficient(7)).toBe(1);
    expect(new Reduction(new ToyModel(counters(3, 3))).sufficient(6)).toBe(2);
    expect(new Reduction(new ToyModel(lostUpdate(3))).sufficient(7)).toBe(7);
  });

  it('reduces nothing when an invariant looks at everything, or when nobody says what comes later', () => {
    const watched = new ToyModel({ ...counters(3, 3), observed: -1 });
    expect(new Reduction(watched).sufficient(7)).toBe(7);
    const silent = new ToyModel(counters(3, 3));
    Object.defineProperty(silent, 'restFootprint', { value: undefined });
    expect(new Reduction(silent).sufficient(7)).toBe(7);
  });

  it('takes a group that keeps to itself', () => {
    const two = lostUpdate(2).programs[0]!;
    const far = two.map((o) => ({ ...o, v: 'v' in o ? o.v + 2 : 0 })) as Op[];
    const model = new ToyModel({ ...counters(4, 1), programs: [two, far, two, far], variables: [0, 0, 0, 0] });
    expect(new Reduction(model).sufficient(15)).toBe(0b0101);
  });
});
