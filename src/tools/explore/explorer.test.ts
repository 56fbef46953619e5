import { describe, expect, it } from 'vitest';
import { search, shortened } from './explorer.ts';
import type { SearchOptions } from './search.ts';
import {
  counters,
  lostUpdate,
  peterson,
  philosophers,
  retryForever,
  type Toy,
  ToyModel,
} from './toy-models.testing.ts';

const FULL: SearchOptions = { reduce: false, livelock: true };
const REDUCED: SearchOptions = { reduce: true, livelock: true };

async function run(toy: Toy, options: SearchOptions = FULL) {
  return await search(new ToyModel(toy), options);
}

describe('search', () => {
  it('counts the states of independent counters: (m + 1)^n, each step between two of them', async () => {
    const r = await run(counters(3, 9));
    expect(r).toMatchObject({ verdict: 'holds', complete: true, states: 1000, transitions: 3 * 9 * 100, depth: 27 });
    const reduced = await run(counters(3, 9), REDUCED);
    expect(reduced).toMatchObject({ verdict: 'holds', complete: true, states: 28, transitions: 27 });
  });

  it("proves Peterson's algorithm, and breaks it without its guard", async () => {
    expect(await run(peterson(true, 3))).toMatchObject({ verdict: 'holds', complete: true });
    const broken = await run(peterson(false));
    expect(broken).toMatchObject({ verdict: 'violation', violation: 1, complete: false });
    // two steps to the door and one through it, each
    expect(broken.moves).toHaveLength(6);
  });

  it('finds the deadlock of the philosophers, who only have to take a fork each', async () => {
    const r = await run(philosophers(4, false));
    expect(r).toMatchObject({ verdict: 'deadlock', complete: false });
    expect(r.moves).toHaveLength(4);
    expect(new Set(r.moves.map((m) => m.actor)).size).toBe(4);
    expect(await run(philosophers(4, true, 2))).toMatchObject({ verdict: 'holds', complete: true });
  });

  it('finds a lost update', async () => {
    expect(await run(lostUpdate(1, 5))).toMatchObject({ verdict: 'holds' });
    expect((await run(lostUpdate(3))).moves).toHaveLength(9);
  });

  it('tells a retry that somebody ends from one that nobody can end', async () => {
    expect(await run(retryForever(false))).toMatchObject({ verdict: 'holds', complete: true });
    const r = await run(retryForever(true));
    expect(r).toMatchObject({ verdict: 'livelock', complete: true });
    expect(r.moves).toEqual([{ actor: 1, choice: 1 }]);
    expect(await run(retryForever(true), REDUCED)).toMatchObject({ verdict: 'livelock', complete: true });
    expect(await run(retryForever(true), { ...FULL, livelock: false })).toMatchObject({ verdict: 'holds' });
  });

  it('says that a bounded search is not complete', async () => {
    const toy = counters(3, 9);
    expect(await run(toy, { ...FULL, depth: 5 })).toMatchObject({
      complete: false,
      stopped: 'depth',
      depth: 5,
      states: 56,
    });
    expect(await run(toy, { ...FULL, depth: 27 })).toMatchObject({ complete: true, stopped: null, states: 1000 });
    expect(await run(toy, { ...FULL, maxStates: 100 })).toMatchObject({ complete: false, stopped: 'max-states' });
    const r = await run(counters(3, 99), { ...FULL, interrupted: () => true });
    expect(r).toMatchObject({ complete: false, stopped: 'interrupted' });
  });

  it('makes the schedule that the reduction found a shortest one', async () => {
    const toy = lostUpdate(3);
    const model = new ToyModel(toy);
    const found = await search(model, REDUCED);
    const { result, shortest } = await shortened(model, REDUCED, found, () => model.reset());
    expect(shortest).toBe(true);
    expect(result.moves).toHaveLength(9);
  });

  it('finds a violation in the first state', async () => {
    const toy: Toy = { ...counters(2, 2), violation: () => 1, observed: 1, invariants: ['never'] };
    expect(await run(toy)).toMatchObject({ verdict: 'violation', moves: [], states: 1, depth: 0 });
  });
});
