import { describe, expect, it } from 'vitest';
import { search } from './explorer.ts';
import { KvmModel } from './kvm-model/kvm-model.ts';
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
  /** States that a dozen random schedules come to, each checked on the way. */
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
        checkedStep(model, actor, (seed >>> 16) % model.choices(actor));
        const words = new Int32Array(model.stateWords);
        model.capture(words, 0);
        yield words;
      }
    }
  }

  /** A step that changes nothing but what it says, and says nothing that the rest of its actor does not. */
  function checkedStep(model: KvmModel, actor: number, choice: number): void {
    const before = new Int32Array(model.stateWords);
    const after = new Int32Array(model.stateWords);
    const quick = new Int32Array(model.stateWords);
    const out = { reads: 0, writes: 0 };
    const rest = { reads: 0, writes: 0 };
    model.capture(before, 0);
    model.footprint(actor, out);
    model.restFootprint(actor, rest);
    const stage = `${model.actors[actor]!.name}: ${model.stageName(actor)}`;
    model.step(actor, choice);
    model.capture(quick, 0);
    model.lookAgain();
    model.capture(after, 0);
    if (!same(quick, after)) throw new Error(`${stage} changed more than it said`);
    const unsaid = model.changed(before, after, actor) & ~out.writes;
    if (unsaid !== 0) throw new Error(`${stage} wrote resources 0x${unsaid.toString(16)}`);
    if (((out.reads & ~rest.reads) | (out.writes & ~rest.writes)) !== 0)
      throw new Error(`${stage}: more than all the rest`);
  }

  function same(a: Int32Array, b: Int32Array): boolean {
    for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
    return true;
  }

  for (const scene of kvmScenes.filter((s) => s.expect === 'safe')) {
    it(`comes back as it was, in another model too: ${scene.name}`, () => {
      const model = new KvmModel(scene);
      const other = new KvmModel(scene);
      const again = new Int32Array(model.stateWords);
      for (const words of visited(model)) {
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
      for (const words of visited(model)) {
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
