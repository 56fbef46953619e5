import { describe, expect, it } from 'vitest';
import { exploreScene, replayScene } from './explore-scene.ts';
import { search } from './explorer.ts';
import { findScene, makeModel, scenes } from './scene-library.ts';

/** What takes longer than a second or two is left to the benchmark. */
const LARGE = new Set(['fault-protocol-large', 'standard', 'smm']);

describe('the reduction, on every scene', () => {
  it.each(scenes().filter((s) => s.large !== true && !LARGE.has(s.name)))(
    'finds of $name what the full search finds',
    async ({ name }) => {
      const full = await search(await makeModel({ scene: name }), { reduce: false, livelock: true });
      const reduced = await search(await makeModel({ scene: name }), { reduce: true, livelock: true });
      expect(reduced).toMatchObject({ verdict: full.verdict, violation: full.violation, complete: full.complete });
      expect(reduced.states).toBeLessThanOrEqual(
        Math.max(full.states, 2 * full.states * Number(full.verdict !== 'holds')),
      );
    },
  );
});

describe('a scene', () => {
  it('has a name of its own, and invariants', async () => {
    const names = scenes().map((s) => s.name);
    expect(new Set(names).size).toBe(names.length);
    for (const { name } of scenes().slice(0, 5)) expect((await makeModel({ scene: name })).invariants).not.toEqual([]);
  });

  it('is found by its name only, and runs under its revisions', async () => {
    await expect(findScene('none')).rejects.toThrow('none: no such scene');
    await expect(makeModel({ scene: 'fault-protocol', revision: 'linux-6.9' })).rejects.toThrow('--revision linux-6.9');
  });
});

describe('a schedule of the real KVM', () => {
  it('can be taken again, and its last fault explained', async () => {
    const spec = { scene: 'second-snapshot' };
    const { counterexample } = await exploreScene(spec, { reduce: true, workers: 1 });
    const { report, explain } = await replayScene(spec, counterexample!.replay);
    expect(report.violationText).toBe(counterexample!.text);
    expect(report.violatedAfter).toBe(counterexample!.steps.length);
    const words = explain().join('\n');
    expect(words).toContain('stale-check              RET_PF_CONTINUE');
    expect(words).toContain('map                      RET_PF_FIXED');
  });
});
