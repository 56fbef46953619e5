import { describe, expect, it } from 'vitest';
import { search } from './explorer.ts';
import { KvmModel } from './kvm-model/kvm-model.ts';
import { pairScenes, twoVcpuScenes } from './pairs.ts';

describe('every pair of actors', () => {
  it('has names of its own, and more than a thousand of them', () => {
    const names = [...pairScenes(), ...twoVcpuScenes()].map((s) => s.name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.length).toBeGreaterThan(1000);
  });

  it('is safe on Linux 6.12 where nothing has a slot, but for what is known', async () => {
    const wrong: string[] = [];
    for (const scene of pairScenes('empty')) {
      const { verdict } = await search(new KvmModel(scene), { reduce: true, livelock: true });
      if (verdict !== (scene.expect === 'safe' ? 'holds' : 'livelock')) wrong.push(`${scene.name}: ${verdict}`);
    }
    expect(wrong).toEqual([]);
  }, 60_000);

  it('is safe with two vCPUs, which walk the same tables at the same time', async () => {
    const scene = [...twoVcpuScenes('empty')].find((s) => s.name === 'empty-two-writes-create')!;
    expect((await search(new KvmModel(scene), { reduce: true, livelock: true })).verdict).toBe('holds');
  }, 60_000);
});
