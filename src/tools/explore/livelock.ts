/** Livelock: a state from which everybody's finish is out of reach, though somebody can always move. */
import type { GrowingInts } from './growing.ts';

/** Reads of a list of transitions: pairs of source and target, in one piece or in many. */
export interface EdgeList {
  readonly length: number;
  at(index: number): number;
}

/**
 * The lowest-numbered state from which no finished state can be reached, or -1. `edges`: pairs of source and target.
 * Backwards over the transitions, which is nearly backwards over the levels, until a pass finds nothing new.
 */
export function firstHopeless(states: number, edges: EdgeList, finished: EdgeList | GrowingInts): number {
  const hopeful = new Uint8Array(states);
  for (let i = 0; i < finished.length; i++) hopeful[finished.at(i)] = 1;
  for (let changed = true; changed; ) {
    changed = false;
    for (let i = edges.length - 2; i >= 0; i -= 2) {
      const source = edges.at(i);
      if (hopeful[source] === 0 && hopeful[edges.at(i + 1)] === 1) {
        hopeful[source] = 1;
        changed = true;
      }
    }
  }
  return hopeful.indexOf(0);
}
