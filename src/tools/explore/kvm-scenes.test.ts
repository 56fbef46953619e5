import { describe, expect, it } from 'vitest';
import { search } from './explorer.ts';
import { KvmModel } from './kvm-model.ts';
import { kvmScenes } from './scenes/index.ts';

/** What the search says of a scene: `safe`, or the invariant. */
async function outcome(model: KvmModel, reduce: boolean): Promise<string> {
  const result = await search(model, { reduce, livelock: true });
  if (result.verdict === 'holds') return result.complete ? 'safe' : 'not complete';
  return result.verdict === 'violation' ? (model.invariants[result.violation - 1] ?? '?') : result.verdict;
}

describe('scenes', () => {
  for (const scene of kvmScenes) {
    it(`${scene.name}: ${scene.title}`, async () => {
      const said = await outcome(new KvmModel(scene), true);
      const { expect: wanted } = scene;
      if (typeof wanted === 'string') expect(said).toBe(wanted);
      else expect(said.slice(0, wanted.violates.length)).toBe(wanted.violates);
    });
  }

  it('has a guard behind every twin', () => {
    for (const scene of kvmScenes) {
      if (scene.expect === 'safe' || scene.guardOf === undefined) continue;
      expect(kvmScenes.find((s) => s.name === scene.guardOf)?.expect).toBe('safe');
    }
  });
});

describe('a captured state', () => {
  /** Every state that a few hundred random schedules come to. */
  function* visited(model: KvmModel): Generator<Int32Array> {
    const first = new Int32Array(model.stateWords);
    model.capture(first, 0);
    let seed = 1;
    for (let run = 0; run < 12; run++) {
      model.restore(first, 0);
      for (let steps = 0; steps < 120; steps++) {
        const enabled = model.enabled();
        if (enabled === 0) break;
        const able = model.actors.map((_, i) => i).filter((i) => (enabled & (1 << i)) !== 0);
        seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
        const actor = able[(seed >>> 8) % able.length]!;
        model.step(actor, (seed >>> 16) % model.choices(actor));
        const words = new Int32Array(model.stateWords);
        const again = new Int32Array(model.stateWords);
        model.capture(words, 0);
        model.lookAgain();
        model.capture(again, 0);
        if (again.some((word, i) => word !== words[i])) throw new Error(`a step changed more than it said`);
        yield words;
      }
    }
  }

  for (const scene of kvmScenes.filter((s) => s.expect === 'safe')) {
    it(`comes back as it was: ${scene.name}`, () => {
      const model = new KvmModel(scene);
      const other = new KvmModel(scene);
      const again = new Int32Array(model.stateWords);
      for (const words of visited(model)) {
        other.restore(words, 0);
        other.lookAgain();
        other.capture(again, 0);
        expect(again).toEqual(words);
        expect(other.enabled()).toBe(model.enabled());
        expect(other.violation()).toBe(model.violation());
        expect(other.describe()).toEqual(model.describe());
      }
    });

    it(`is changed by a step only where the step says so: ${scene.name}`, () => {
      const model = new KvmModel(scene);
      const before = new Int32Array(model.stateWords);
      const after = new Int32Array(model.stateWords);
      const out = { reads: 0, writes: 0 };
      const rest = { reads: 0, writes: 0 };
      const first = new Int32Array(model.stateWords);
      model.capture(first, 0);
      for (const words of [...visited(model)]) {
        for (let actor = 0; actor < model.actors.length; actor++) {
          model.restore(words, 0);
          if ((model.enabled() & (1 << actor)) === 0) continue;
          model.capture(before, 0);
          model.footprint(actor, out);
          model.restFootprint(actor, rest);
          const stage = model.stageName(actor);
          expect(out.reads & ~rest.reads, `${stage} reads what the rest does not`).toBe(0);
          expect(out.writes & ~rest.writes, `${stage} writes what the rest does not`).toBe(0);
          model.step(actor, 0);
          model.capture(after, 0);
          expect(model.changed(before, after, actor) & ~out.writes, `${model.actors[actor]!.name} ${stage}`).toBe(0);
        }
      }
    });
  }
});
