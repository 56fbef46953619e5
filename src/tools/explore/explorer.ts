/** One search in this thread, and what follows from it: a livelock, a shortest schedule. */
import { conclude, partOf } from './conclusion.ts';
import type { Model } from './model.ts';
import type { SearchOptions, SearchResult, Stop } from './search.ts';
import { Shard } from './shard.ts';

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
  const before = shard.finding === null ? shard : { transitions, reducedStates };
  const part = partOf(shard, { transitions: before.transitions, reducedStates: before.reducedStates });
  return conclude([part], depth, stopped, options.livelock, () => (performance.now() - start) / 1000);
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
