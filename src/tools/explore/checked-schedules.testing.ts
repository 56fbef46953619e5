/** Random schedules of a scene, each step of which is held to what the model says of it. For tests. */
import { runs } from '../../runs.testing.ts';
import { search } from './explorer.ts';
import type { SceneModel } from './kvm-model/scene-model.ts';

const RUNS = runs(12);

/** What the search says of a scene: `safe`, or the invariant. */
export async function outcome(model: SceneModel, reduce = true): Promise<string> {
  const result = await search(model, { reduce, livelock: true });
  if (result.verdict === 'holds') return result.complete ? 'safe' : 'not complete';
  return result.verdict === 'violation' ? (model.invariants[result.violation - 1] ?? '?') : result.verdict;
}

/**
 * States that random schedules of `depth` steps come to, each step checked. `also`: what else the model can be asked after a step;
 * it gets the state as captured and what the step was.
 */
export function* visited<M extends SceneModel>(
  model: M,
  depth: number,
  also: (model: M, words: Int32Array, stage: string) => void,
): Generator<Int32Array> {
  const first = new Int32Array(model.stateWords);
  model.capture(first, 0);
  let seed = 1;
  for (let run = 0; run < RUNS; run++) {
    model.restore(first, 0);
    for (let steps = 0; steps < depth; steps++) {
      const enabled = model.enabled();
      if (enabled === 0) break;
      const able = model.actors.map((_, i) => i).filter((i) => (enabled & (1 << i)) !== 0);
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
      const actor = able[(seed >>> 8) % able.length]!;
      yield checkedStep(model, actor, (seed >>> 16) % model.choices(actor), also);
    }
  }
}

/** A step that changes nothing but what it says, and says nothing that the rest of its actor does not. */
function checkedStep<M extends SceneModel>(
  model: M,
  actor: number,
  choice: number,
  also: (model: M, words: Int32Array, stage: string) => void,
): Int32Array {
  const before = new Int32Array(model.stateWords);
  const after = new Int32Array(model.stateWords);
  const out = { reads: 0, writes: 0 };
  const rest = { reads: 0, writes: 0 };
  model.capture(before, 0);
  model.footprint(actor, out);
  model.restFootprint(actor, rest);
  const stage = `${model.actors[actor]!.name}: ${model.stageName(actor)}`;
  model.step(actor, choice);
  model.capture(after, 0);
  also(model, after, stage);
  const unsaid = model.changed(before, after, actor) & ~out.writes;
  if (unsaid !== 0) throw new Error(`${stage} wrote resources 0x${unsaid.toString(16)}`);
  if (((out.reads & ~rest.reads) | (out.writes & ~rest.writes)) !== 0)
    throw new Error(`${stage}: more than all the rest`);
  return after;
}

export function same(a: Int32Array, b: Int32Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
