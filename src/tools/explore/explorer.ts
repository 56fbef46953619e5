/** A search, in this thread alone or with others, and what follows from it: a livelock, a shortest schedule. */
import { conclude, type Part, partOf } from './conclusion.ts';
import type { Model } from './model.ts';
import type { SearchOptions, SearchResult } from './search.ts';
import { Searcher } from './searcher.ts';
import { MOST_STATES, StateTable } from './state-table.ts';
import { type Breathe, Team, type TeamBounds, teamSpace } from './team.ts';

/** Milliseconds after which something else of this thread gets its turn: a signal, the progress line; others that are to join. */
const SLICE = 100;
const SLICE_ASSEMBLING = 5;

/** Searches breadth first from the state that the model is in. The first finding has a schedule of fewest steps among those searched. */
export async function search(model: Model, options: SearchOptions): Promise<SearchResult> {
  const table = new StateTable(model.stateWords);
  return await searchWith(
    model,
    table,
    new Team(teamSpace(1), 0, table, boundsOf(options), []),
    options,
    async () => [],
  );
}

export function boundsOf({ depth, maxStates }: SearchOptions): TeamBounds {
  return {
    depth: depth ?? Number.POSITIVE_INFINITY,
    maxStates: Math.min(maxStates ?? MOST_STATES, MOST_STATES),
  };
}

/** The same with others: this is the team's first thread. `others`: what the others know at the end. */
export async function searchWith(
  model: Model,
  table: StateTable,
  team: Team,
  options: SearchOptions,
  others: () => Promise<readonly Part[]>,
): Promise<SearchResult> {
  const start = performance.now();
  const searcher = new Searcher(model, options.reduce, table);
  let slice = start;
  const breathe = async (): Promise<void> => {
    options.onProgress?.({ states: table.count, depth: team.depth, level: team.levelEnd - team.levelStart });
    await new Promise((resolve) => setImmediate(resolve));
    slice = performance.now();
    if (options.interrupted?.() === true) team.interrupt();
  };
  searcher.begin();
  if (options.assemble === true) await team.assemble(breathe);
  team.begin();
  const levels: number[] = [];
  const own = await takePart(searcher, team, breathe, {
    level: (from) => levels.push(from),
    due: () => performance.now() - slice > (team.complete ? SLICE : SLICE_ASSEMBLING),
  });
  const states = team.levelEnd;
  const stopped = team.interrupted ? 'interrupted' : team.full ? 'max-states' : null;
  const searched = performance.now();
  const parts = [own, ...(await others())];
  // A thread that is still on its way when all is done costs nothing but the wait for it.
  const waited = performance.now() - searched;
  const seconds = (): number => (performance.now() - start - waited) / 1000;
  return conclude({ model, table, parts, states, levels, stopped }, options.livelock, seconds);
}

interface Hooks {
  /** A level begins with this state. */
  level(from: number): void;
  /** It is time to breathe. */
  due(): boolean;
}

const NO_HOOKS: Hooks = { level() {}, due: () => false };

/** One thread's part of a search, until it ends everywhere. */
export async function takePart(searcher: Searcher, team: Team, breathe: Breathe, hooks = NO_HOOKS): Promise<Part> {
  const { table } = searcher;
  for (;;) {
    hooks.level(team.levelStart);
    searcher.nextLevel(team.depth, team.levelEnd, team.expanding);
    const { transitions, reducedStates } = searcher;
    for (let from = team.take(); from >= 0; from = team.take()) {
      const to = team.takenTo(from);
      for (let id = from; id < to; id++) {
        if (table.crowded || team.pausing) await team.pause(breathe);
        searcher.expand(id);
      }
      if (team.full) searcher.stopExpanding();
      if (hooks.due()) await breathe();
    }
    if (searcher.finding !== null) team.find();
    if (await team.turn(breathe)) continue;
    return partOf(searcher, team.found ? { transitions, reducedStates } : searcher);
  }
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
