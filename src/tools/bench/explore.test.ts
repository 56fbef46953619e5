import { describe, expect, it } from 'vitest';
import { search } from '../explore/explorer.ts';
import { FaultProtocol, type FaultProtocolSize } from '../explore/textbook/fault-protocol.ts';
import { benchExplore } from './explore.ts';
import { runSpin } from './spin.ts';

const spinHere = runSpin({ vcpus: 1, invalidators: 1, pages: 1, rounds: 1, guard: true }, false) !== null;
if (!spinHere)
  process.stderr.write('bench: no spin or no C compiler here (apt-get install spin gcc): skipped what needs them\n');

describe('bench explore', () => {
  it('measures one thread and several', async () => {
    const phases: string[] = [];
    const b = await benchExplore('fault-protocol', 1, { file: '', name: '' }, (phase) => phases.push(phase));
    expect(b).toMatchObject({ verdict: 'holds', spin: null, one: { states: 19_645 }, reduced: { states: 15_769 } });
    expect(phases.length).toBeGreaterThan(3);
  });

  it
    .skipIf(!spinHere)
    .each<[FaultProtocolSize]>([
      [{ vcpus: 1, invalidators: 1, pages: 1, rounds: 2, guard: true }],
      [{ vcpus: 2, invalidators: 1, pages: 2, rounds: 2, guard: true }],
      [{ vcpus: 2, invalidators: 2, pages: 3, rounds: 1, guard: true }],
    ])('has as many states and transitions of %o as spin', async (size) => {
    const ours = await search(new FaultProtocol(size), { reduce: false, livelock: true });
    const theirs = runSpin(size, false)!;
    expect(ours.verdict).toBe('holds');
    expect(theirs).toMatchObject({ errors: 0, states: ours.states, transitions: ours.transitions });
  });

  it.skipIf(!spinHere)('breaks without the guard under both', async () => {
    const size = { vcpus: 2, invalidators: 1, pages: 2, rounds: 2, guard: false };
    expect(runSpin(size, true)?.errors).toBe(1);
    expect((await search(new FaultProtocol(size), { reduce: true, livelock: true })).verdict).toBe('violation');
  });
});
