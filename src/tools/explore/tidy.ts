/** Of the many schedules of one length that end the same way, one that is easy to read: nobody is interrupted without need. */
import type { Model } from './model.ts';
import type { Move } from './schedule.ts';

/** Schedules that are tried, at most. */
const TRIES = 20_000;

/** A schedule with as many steps and fewer switches, if there is one nearby. `ends` says of the model's state whether it is what was found. */
export function tidied(model: Model, first: Int32Array, moves: readonly Move[], ends: () => boolean): readonly Move[] {
  let best = [...moves];
  let tries = 0;
  for (let better = true; better; ) {
    better = false;
    for (let at = 1; at < best.length && tries < TRIES; at++) {
      if (best[at]!.actor === best[at - 1]!.actor) continue;
      for (const candidate of closer(best, at)) {
        if (switches(candidate) >= switches(best)) continue;
        tries++;
        if (!works(model, first, candidate, ends)) continue;
        best = candidate;
        better = true;
        break;
      }
    }
  }
  return best;
}

/**
 * Where a run of one actor's steps begins at `at`: the next runs of whoever had moved before come ahead of it, or it goes ahead to the last
 * run of its own.
 */
function closer(moves: readonly Move[], at: number): Move[][] {
  const { actor } = moves[at]!;
  const before = moves[at - 1]!.actor;
  const candidates: Move[][] = [];
  const next = moves.findIndex((m, i) => i > at && m.actor === before);
  if (next > 0) {
    const end = runEnd(moves, next);
    candidates.push([...moves.slice(0, at), ...moves.slice(next, end), ...moves.slice(at, next), ...moves.slice(end)]);
  }
  const last = moves.findLastIndex((m, i) => i < at && m.actor === actor);
  if (last >= 0) {
    const end = runEnd(moves, at);
    candidates.push([
      ...moves.slice(0, last + 1),
      ...moves.slice(at, end),
      ...moves.slice(last + 1, at),
      ...moves.slice(end),
    ]);
    // or what lies between goes after it
    const start = moves.findLastIndex((m, i) => i < last && m.actor !== actor) + 1;
    candidates.push([
      ...moves.slice(0, start),
      ...moves.slice(last + 1, at),
      ...moves.slice(start, last + 1),
      ...moves.slice(at),
    ]);
  }
  return candidates;
}

function runEnd(moves: readonly Move[], from: number): number {
  let end = from + 1;
  while (end < moves.length && moves[end]!.actor === moves[from]!.actor) end++;
  return end;
}

function switches(moves: readonly Move[]): number {
  let n = 0;
  for (let i = 1; i < moves.length; i++) if (moves[i]!.actor !== moves[i - 1]!.actor) n++;
  return n;
}

function works(model: Model, first: Int32Array, moves: readonly Move[], ends: () => boolean): boolean {
  model.restore(first, 0);
  for (const { actor, choice } of moves) {
    if (model.violation() !== 0) return false;
    if ((model.enabled() & (1 << actor)) === 0 || choice >= model.choices(actor)) return false;
    model.step(actor, choice);
  }
  return ends();
}
