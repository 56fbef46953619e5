/** The slots that there can be in a scene, found by trying. */
import type { Model } from '../model.ts';
import type { ModelActor } from './state.ts';

/**
 * Makes a model learn every slot that its scene can come to have, in the same order in each model of the scene: slots_lock lets changes of
 * slots happen only one after the other, so all orders of them are tried. `changers`: the actors that change slots. The model comes back to
 * the state that it is in.
 */
export function tryEverySlotChange(model: Model, actors: readonly ModelActor[], changers: readonly number[]): void {
  const first = new Int32Array(model.stateWords);
  model.capture(first, 0);
  const go = (left: readonly number[]): void => {
    const here = new Int32Array(model.stateWords);
    model.capture(here, 0);
    for (const i of left) {
      model.restore(here, 0);
      runAlone(model, actors, i);
      go(left.filter((j) => j !== i));
    }
  };
  go(changers);
  model.restore(first, 0);
}

/** Runs one actor to its end; others only get out of its way. */
function runAlone(model: Model, actors: readonly ModelActor[], actor: number): void {
  const scratch = new Int32Array(model.stateWords);
  for (let steps = 0; !actors[actor]!.finished; steps++) {
    if (steps > 500) throw new Error(`cannot be bounded: '${actors[actor]!.name}' has no end`);
    const enabled = model.enabled();
    const next = (enabled & (1 << actor)) !== 0 ? actor : actors.findIndex((_, i) => (enabled & (1 << i)) !== 0);
    if (next < 0) throw new Error(`${actors[actor]!.name} cannot go on by itself`);
    model.step(next, next === actor ? 0 : model.choices(next) - 1);
    model.capture(scratch, 0);
  }
}
