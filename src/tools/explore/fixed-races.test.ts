import { describe, expect, it } from 'vitest';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import { search } from './explorer.ts';
import { KvmModel } from './kvm-model/kvm-model.ts';
import { type Scene, scene } from './scene.ts';
import { kvmScenes } from './scenes/index.ts';

/**
 * Each race of docs/revisions.md that the TDP MMU can show: the scene, the revision before the fix, the one with it, and what the search says of
 * the one before. A fix that Linux 6.12 does not have is a revision of a scene's own: that scene's name.
 */
const races: readonly (readonly [string, string, string, string])[] = [
  ['lost-attribute-change', 'series-v2', 'linux-6.10', 'a private gfn is not mapped'],
  ['lost-attribute-change', 'series-v1', 'linux-6.10', 'a private gfn is not mapped'],
  ['lost-attribute-change', 'series-v2@14', 'series-v2@13', 'a private gfn is not mapped'],
  ['private-to-shared', 'series-v2', 'linux-6.10', 'a shared gfn is not mapped'],
  ['pre-fault-against-conversion', 'series-v2', 'linux-6.10', 'a '],
  ['page-ready-against-conversion', 'series-v2', 'linux-6.10', 'a private gfn is not mapped'],
  ['slot-made-in-conversion', 'series-v2', 'linux-6.10', 'a private gfn is not mapped'],
  ['wrongly-private', 'linux-6.10', 'linux-6.12@1', 'livelock'],
  ['attributes-cut-a-huge-page', 'linux-6.12@14', 'linux-6.12@15', 'every huge entry covers one attribute'],
  ['read-against-write', 'linux-6.12', 'read-against-write', 'with nobody at work'],
  ['pre-fault-answers-again', 'linux-6.12', 'pre-fault-answers-again', 'livelock'],
];

function named(name: string): Scene {
  return kvmScenes.find((s) => s.name === name)!;
}

/** What a complete search says of the scene on a revision. */
async function said(what: Scene, on: string): Promise<string> {
  const own = kvmScenes.find((s) => s.name === on)?.revision;
  const model = new KvmModel(scene({ ...what, revision: own ?? revisionByName(on) }));
  const { verdict, violation, complete } = await search(model, { reduce: true, livelock: true });
  if (verdict === 'violation') return model.invariants[violation - 1]!;
  return verdict === 'holds' && complete ? 'safe' : verdict;
}

describe('a race that was fixed', () => {
  it.each(races)('%s: found on %s, gone on %s', async (name, before, after, wrong) => {
    expect((await said(named(name), before)).slice(0, wrong.length)).toBe(wrong);
    expect(await said(named(name), after)).toBe('safe');
  });
});
