/** One search in this thread, and what follows from it: a livelock, a shortest schedule. */
import { firstHopeless } from './livelock.ts';
import type { Model } from './model.ts';
import type { Move } from './schedule.ts';
import type { SearchOptions, SearchResult, Stop } from './search.ts';
import { actorOf, choiceOf, DEADLOCK, Shard } from './shard.ts';

/** States between two looks at the clock. */
const BATCH = 4096;
/** Milliseconds after which others get their turn: a signal, the progress line. */
const SLICE = 100;

/** Searches breadth first from the state that the model is in. The first finding has a schedule of fewest steps among those searched. */
export async function search(model: Model, options: SearchOptions): Promise<SearchResult> {
  const start = performance.now();
  const shard = new Shard(model, options.reduce, options.livelock, null);
  shard.begin();
  const most = options.maxStates ?? Number.POSITIVE_INFINITY;
  let stopped: Stop | null = null;
  let depth = 0;
  let { transitions, reducedStates } = shard;
  let slice = start;
  for (; ; depth++) {
    shard.nextLevel();
    ({ transitions, reducedStates } = shard);
    shard.expanding = depth < (options.depth ?? Number.POSITIVE_INFINITY) && stopped === null;
    while (!shard.expandSome(BATCH)) {
      if (shard.table.count >= most && shard.expanding) {
        stopped = 'max-states';
        shard.expanding = false;
      }
      if (performance.now() - slice < SLICE) continue;
      options.onProgress?.({ states: shard.table.count, depth, level: shard.levelEnd - shard.levelStart });
      await new Promise((resolve) => setImmediate(resolve));
      slice = performance.now();
      if (options.interrupted?.() !== true) continue;
      stopped = 'interrupted';
      break;
    }
    if (shard.finding !== null || stopped === 'interrupted' || shard.table.count === shard.levelEnd) break;
    if (shard.table.count >= most) stopped ??= 'max-states';
  }
  const { finding } = shard;
  if (shard.cut && finding === null) stopped ??= 'depth';
  const complete = finding === null && stopped === null;
  const base = {
    complete,
    stopped: finding === null ? stopped : null,
    states: shard.levelEnd,
    transitions: finding === null ? shard.transitions : transitions,
    depth,
    reducedStates: finding === null ? shard.reducedStates : reducedStates,
    bytes: shard.bytes,
  };
  const seconds = (): number => (performance.now() - start) / 1000;
  if (finding !== null) {
    const verdict = finding.violation === DEADLOCK ? 'deadlock' : 'violation';
    const moves = pathTo(shard, finding.state);
    return { ...base, verdict, violation: Math.max(0, finding.violation), moves, seconds: seconds() };
  }
  const hopeless = complete && options.livelock ? firstHopeless(shard.levelEnd, shard.edges, shard.finished) : -1;
  if (hopeless < 0) return { ...base, verdict: 'holds', violation: 0, moves: [], seconds: seconds() };
  return { ...base, verdict: 'livelock', violation: 0, moves: pathTo(shard, hopeless), seconds: seconds() };
}

function pathTo(shard: Shard, state: number): Move[] {
  const { parents, steps } = shard.table;
  const moves: Move[] = [];
  for (let at = state; parents[at] !== -1; at = parents[at]!)
    moves.push({ actor: actorOf(steps[at]!), choice: choiceOf(steps[at]!) });
  return moves.reverse();
}

/** The fewest states that a second search may take to make a schedule shorter, and how many times those of the first. */
const SECOND_LEAST = 200_000;
const SECOND_FACTOR = 4;

/**
 * The result with a schedule that is shortest of all, where that could be made sure: the reduction keeps what can go wrong, but may find it a
 * few steps later. `shortest` says whether it is.
 */
export async function shortened(
  model: Model,
  options: SearchOptions,
  found: SearchResult,
  restart: () => void,
): Promise<{ readonly result: SearchResult; readonly shortest: boolean }> {
  if (found.verdict === 'holds' || found.verdict === 'livelock') return { result: found, shortest: false };
  if (!options.reduce || found.moves.length === 0) return { result: found, shortest: true };
  restart();
  const maxStates = Math.max(SECOND_LEAST, SECOND_FACTOR * found.states);
  const second = await search(model, {
    ...options,
    reduce: false,
    livelock: false,
    depth: found.moves.length - 1,
    maxStates,
  });
  if (second.stopped !== null && second.stopped !== 'depth') return { result: found, shortest: false };
  if (second.verdict === 'holds') return { result: found, shortest: true };
  const { verdict, violation, moves } = second;
  return { result: { ...found, verdict, violation, moves }, shortest: true };
}
