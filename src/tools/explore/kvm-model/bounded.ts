/** Whether what the actors of a scene do has an end. */
import type { Model } from '../model.ts';
import type { ModelActor } from './state.ts';

/** Steps that an actor may take to its end with nobody in its way, and those that others may take meanwhile. */
const MOST_STEPS = 500;
const MOST_OF_OTHERS = 5000;

/**
 * Runs each of `actors` (numbers) alone; others only get out of its way. An actor that goes on for ever would count, or wander, without end,
 * and so would the search. The model comes back to the state that it is in. @throws Error that names the actor
 */
export function refuseEndless(model: Model, list: readonly ModelActor[], actors: readonly number[]): void {
  const first = new Int32Array(model.stateWords);
  const scratch = new Int32Array(model.stateWords);
  model.capture(first, 0);
  for (const actor of actors) {
    let own = 0;
    for (let others = 0; !list[actor]!.finished && others < MOST_OF_OTHERS; ) {
      if (own === MOST_STEPS) throw new Error(`cannot be bounded: '${list[actor]!.name}' has no end`);
      const enabled = model.enabled();
      // who cannot go on is for the search to find
      if (enabled === 0 || model.violation() !== 0) break;
      const mine = (enabled & (1 << actor)) !== 0;
      const next = mine ? actor : 31 - Math.clz32(enabled & -enabled);
      if (mine) own++;
      else others++;
      model.step(next, mine ? 0 : model.choices(next) - 1);
      model.capture(scratch, 0);
    }
    model.restore(first, 0);
  }
}
