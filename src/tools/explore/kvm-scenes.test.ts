import { describe, expect, it } from 'vitest';
import { outcome, same, visited } from './checked-schedules.testing.ts';
import { KvmModel } from './kvm-model/kvm-model.ts';
import { kvmScenes } from './scenes/index.ts';

describe('scenes', () => {
  for (const scene of kvmScenes) {
    it(`${scene.name}: ${scene.title}`, async () => {
      const said = await outcome(new KvmModel(scene));
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
  /** A look at everything finds nothing that the step did not say. */
  function saysAll(model: KvmModel, words: Int32Array, stage: string): void {
    const all = new Int32Array(model.stateWords);
    model.lookAgain();
    model.capture(all, 0);
    if (!same(words, all)) throw new Error(`${stage} changed more than it said`);
  }

  for (const scene of kvmScenes.filter((s) => s.expect === 'safe')) {
    it(`comes back as it was, in another model too: ${scene.name}`, () => {
      const model = new KvmModel(scene);
      const other = new KvmModel(scene);
      const again = new Int32Array(model.stateWords);
      for (const words of visited(model, 120, saysAll)) {
        other.restore(words, 0);
        other.lookAgain();
        other.capture(again, 0);
        const differs = !same(again, words) || other.enabled() !== model.enabled();
        if (differs || other.describe().join() !== model.describe().join()) expect(again).toEqual(words);
      }
    });

    it(`goes back after each step, and says what it changed: ${scene.name}`, () => {
      const model = new KvmModel(scene);
      const stepper = new KvmModel(scene);
      const other = new KvmModel(scene);
      const list = new Int32Array(model.stateWords);
      const values = new Int32Array(model.stateWords);
      const again = new Int32Array(model.stateWords);
      for (const words of visited(model, 120, saysAll)) {
        stepper.restore(words, 0);
        for (let actor = 0; actor < model.actors.length; actor++) {
          if ((stepper.enabled() & (1 << actor)) === 0) continue;
          for (let choice = 0; choice < stepper.choices(actor); choice++) {
            stepper.step(actor, choice);
            const after = words.slice();
            const n = stepper.changes(list, values);
            for (let k = 0; k < n; k++) after[list[k]!] = values[k]!;
            stepper.rewind();
            other.restore(words, 0);
            other.step(actor, choice);
            other.lookAgain();
            other.capture(again, 0);
            if (!same(again, after)) expect(after).toEqual(again);
          }
        }
        stepper.lookAgain();
        stepper.capture(again, 0);
        if (!same(again, words)) expect(again).toEqual(words);
      }
    });
  }
});
