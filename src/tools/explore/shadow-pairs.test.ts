import { describe, expect, it } from 'vitest';
import { search } from './explorer.ts';
import { ShadowModel } from './shadow-model/model.ts';
import { shadowPairScenes } from './shadow-pairs.ts';

describe('pairs under shadow paging', () => {
  it('have names of their own, and more than a thousand of them', () => {
    const names = [...shadowPairScenes()].map((s) => s.name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.length).toBeGreaterThan(1000);
  });

  it('are safe on Linux 6.12 where one processor is alone with the host (every sixth)', async () => {
    const wrong: string[] = [];
    let n = 0;
    for (const scene of shadowPairScenes()) {
      if (scene.actors.filter((a) => a.kind === 'vcpu').length > 1) continue;
      if (n++ % 6 !== 0) continue;
      const { verdict, complete } = await search(new ShadowModel(scene), { reduce: true, livelock: true });
      if (verdict !== 'holds' || !complete) wrong.push(`${scene.name}: ${verdict}`);
    }
    expect(n).toBeGreaterThan(100);
    expect(wrong).toEqual([]);
  }, 120_000);
});
