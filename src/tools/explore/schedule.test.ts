import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { counterexample, runSchedule } from './counterexample.ts';
import { search } from './explorer.ts';
import { randomSchedules } from './random-schedules.ts';
import { counterexampleLines, differenceLines } from './report.ts';
import { parseReplay, replayString } from './schedule.ts';
import { lostUpdate, peterson, philosophers, retryForever, type Toy, ToyModel } from './toy-models.testing.ts';

const FULL = { reduce: false, livelock: true };

async function found(toy: Toy) {
  const model = new ToyModel(toy);
  const result = await search(model, FULL);
  model.reset();
  return { model, result, example: counterexample(model, result, true)! };
}

describe('replay strings', () => {
  it('are read back as they were written', () => {
    const move = fc.record({ actor: fc.nat(30), choice: fc.oneof(fc.constant(0), fc.nat(20)) });
    fc.assert(
      fc.property(fc.array(move), (moves) => {
        expect(parseReplay(replayString(moves), 31)).toEqual(moves);
      }),
    );
  });

  it('are short', () => {
    const moves = parseReplay('3ab2a.1', 2);
    expect(moves).toHaveLength(6);
    expect(moves[4]).toEqual({ actor: 0, choice: 1 });
    expect(replayString(moves)).toBe('3ab2a.1');
  });

  it.each([
    ['3a?', /character 3 of '3a\?': expected a move/],
    ['12', /character 1 of '12'/],
    ['c', /the scene has actors a to b/],
    ['9999999a', /more than 1000000 moves/],
  ])('%s is refused', (text, message) => {
    expect(() => parseReplay(text, 2)).toThrow(message);
  });

  it.each([
    ['2a9b', /move 9: b \(right\) has to wait|move \d+: b \(right\)/],
    ['9a', /move 7: a \(left\) has finished/],
    ['a.3', /move 1: a \(left\): choice 3 of 'set v0', which has 1/],
  ])('%s is refused by the scene', (text, message) => {
    expect(() => runSchedule(new ToyModel(peterson(true)), parseReplay(text, 2))).toThrow(message);
  });
});

describe('a counterexample', () => {
  it('says who did what, and what the last step changed', async () => {
    const { model, example } = await found(peterson(false));
    expect(example).toMatchObject({ kind: 'violation', invariant: 1, text: 'at most one is inside', shortest: true });
    expect(example.steps).toHaveLength(6);
    expect(counterexampleLines(example, 'softkvm explore peterson')).toEqual([
      ' step | CPU0 (left) | CPU1 (right)',
      '------+-------------+--------------',
      ...example.steps.map((s, i) =>
        `${i === 5 ? '>' : ' '}   ${i + 1} | ${s.cpu === 'CPU0' ? s.stage : `${' '.repeat(11)} | ${s.stage}`}`.replace(
          /^(.{6}\| \S+ v\d)$/,
          (line) => `${line.padEnd(19)} |`,
        ),
      ),
      '',
      'state before step 6 (-) and after it (+):',
      ...differenceLines(example.before, example.after),
      '',
      'at most one is inside (a shortest schedule)',
      `replay: softkvm explore peterson --replay ${example.replay}`,
    ]);
    model.reset();
    expect(runSchedule(model, parseReplay(example.replay, 2))).toMatchObject({ violation: 1, violatedAfter: 6 });
  });

  it('is put so that nobody is interrupted without need', async () => {
    const { result, example } = await found(lostUpdate(3));
    expect(result.moves).toHaveLength(9);
    // one loads, another does all its steps, the first goes on: two switches and one to the third
    expect(example.steps.filter((s, i) => i > 0 && s.actor !== example.steps[i - 1]!.actor)).toHaveLength(3);
  });

  it('names those who wait for each other', async () => {
    const { example } = await found(philosophers(2, false));
    expect(example.text).toBe('nobody can move, and actor0, actor1 have not finished');
  });

  it('shows the steps that go round', async () => {
    const { example } = await found(retryForever(true));
    expect(example).toMatchObject({
      kind: 'livelock',
      text: 'from here on not all of actor0, actor1 can finish, whoever moves',
    });
    expect(example.repeats.map((s) => s.stage)).toEqual(['load v1', 'branch v0']);
    expect(counterexampleLines(example, 'x').join('\n')).toContain('and then for ever:');
  });
});

describe('the difference of two states', () => {
  it('keeps what is equal and pairs what is not', () => {
    expect(differenceLines(['a', 'b'], ['a', 'c', 'd'])).toEqual(['   a', ' - b', ' + c', ' + d']);
  });
});

describe('random schedules', () => {
  const options = { runs: 500, seed: 7, depth: 1000 };

  it('find what is common, the same for the same seed', async () => {
    const once = await randomSchedules(new ToyModel(lostUpdate(3)), options);
    const twice = await randomSchedules(new ToyModel(lostUpdate(3)), options);
    expect(once).toMatchObject({ verdict: 'violation', violation: 1 });
    expect({ ...twice, seconds: 0 }).toEqual({ ...once, seconds: 0 });
    expect(runSchedule(new ToyModel(lostUpdate(3)), once.moves).violation).toBe(1);
    expect(await randomSchedules(new ToyModel(philosophers(3, false)), options)).toMatchObject({ verdict: 'deadlock' });
  });

  it('end at the bound, and prove nothing', async () => {
    const r = await randomSchedules(new ToyModel(retryForever(true)), { ...options, depth: 50 });
    expect(r.verdict).toBe('holds');
    expect(r.unfinished).toBeGreaterThan(0);
    expect(r.longest).toBe(50);
  });
});
