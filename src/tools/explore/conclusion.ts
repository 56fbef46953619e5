/** What follows from a search that has ended, of one shard or several: the finding, the way to it, a livelock. */
import type { IntList } from './growing.ts';
import type { Move } from './schedule.ts';
import type { SearchResult, Stop } from './search.ts';
import { actorOf, choiceOf, comesBefore, DEADLOCK, type Finding, type Shard } from './shard.ts';

/** What one shard knows at the end. Part `i` of n knows the states `local number * n + i`. */
export interface Part {
  /** States of the levels that were looked at in full. */
  readonly states: number;
  readonly transitions: number;
  readonly reducedStates: number;
  readonly cut: boolean;
  readonly finding: Finding | null;
  readonly bytes: number;
  /** By local number; the parent is a number known everywhere, -1 of the first state. */
  readonly parents: Int32Array;
  readonly steps: Int32Array;
  readonly hashes: Int32Array;
  /** Where each level begins. */
  readonly levels: readonly number[];
  readonly edges: IntList;
  readonly finished: IntList;
}

/** `before`: what was counted when the last level began, which is what counts when that was not expanded in full. */
export function partOf(shard: Shard, before: { readonly transitions: number; readonly reducedStates: number }): Part {
  const { table, finding, cut, levels, edges, finished } = shard;
  return {
    states: shard.levelEnd,
    ...before,
    cut,
    finding,
    bytes: shard.bytes,
    parents: table.parents,
    steps: table.steps,
    hashes: table.hashes,
    levels,
    edges,
    finished,
  };
}

/** `depth`: of the last level; `stopped`: by what, if not by a finding. */
export function conclude(
  parts: readonly Part[],
  depth: number,
  stopped: Stop | null,
  livelock: boolean,
  seconds: () => number,
): SearchResult {
  const sum = (of: (part: Part) => number): number => parts.reduce((total, part) => total + of(part), 0);
  let finding: Finding | null = null;
  let owner = 0;
  for (const [i, part] of parts.entries())
    if (part.finding !== null && (finding === null || comesBefore(part.finding, finding))) {
      finding = part.finding;
      owner = i;
    }
  // a bound that left nothing out was none
  const cut = parts.some((part) => part.cut);
  const stop = stopped === 'interrupted' ? stopped : cut ? (stopped ?? 'depth') : null;
  const complete = finding === null && stop === null;
  const base = {
    complete,
    stopped: finding === null ? stop : null,
    states: sum((p) => p.states),
    transitions: sum((p) => p.transitions),
    depth,
    reducedStates: sum((p) => p.reducedStates),
    bytes: sum((p) => p.bytes),
  };
  if (finding !== null) {
    const verdict = finding.violation === DEADLOCK ? 'deadlock' : 'violation';
    const moves = pathTo(parts, finding.state * parts.length + owner);
    return { ...base, verdict, violation: Math.max(0, finding.violation), moves, seconds: seconds() };
  }
  const hopeless = complete && livelock ? firstHopeless(parts) : -1;
  if (hopeless < 0) return { ...base, verdict: 'holds', violation: 0, moves: [], seconds: seconds() };
  return { ...base, verdict: 'livelock', violation: 0, moves: pathTo(parts, hopeless), seconds: seconds() };
}

function pathTo(parts: readonly Part[], state: number): Move[] {
  const moves: Move[] = [];
  for (let at = state; ; ) {
    const { parents, steps } = parts[at % parts.length]!;
    const local = Math.floor(at / parts.length);
    if (parents[local] === -1) return moves.reverse();
    moves.push({ actor: actorOf(steps[local]!), choice: choiceOf(steps[local]!) });
    at = parents[local]!;
  }
}

/**
 * A state of the lowest level from which no finished state can be reached, of those the one with the lowest hash; -1 when there is none.
 * Backwards over the transitions, which is nearly backwards over the levels, until a pass finds nothing new.
 */
function firstHopeless(parts: readonly Part[]): number {
  const n = parts.length;
  const hopeful = new Uint8Array(n * Math.max(...parts.map((part) => part.states)));
  for (const [i, { finished }] of parts.entries())
    for (let k = 0; k < finished.length; k++) hopeful[finished.at(k) * n + i] = 1;
  for (let changed = true; changed; ) {
    changed = false;
    for (let i = n - 1; i >= 0; i--) if (spread(hopeful, parts[i]!.edges, n, i)) changed = true;
  }
  const levels = Math.max(...parts.map((part) => part.levels.length));
  for (let level = 0; level < levels; level++) {
    let best = -1;
    let lowest = 0;
    for (const [i, { levels, hashes, states }] of parts.entries())
      for (let k = levels[level] ?? states; k < (levels[level + 1] ?? states); k++)
        if (hopeful[k * n + i] === 0 && (best < 0 || hashes[k]! < lowest)) {
          best = k * n + i;
          lowest = hashes[k]!;
        }
    if (best >= 0) return best;
  }
  return -1;
}

function spread(hopeful: Uint8Array, edges: IntList, n: number, part: number): boolean {
  let changed = false;
  for (let e = edges.length - 2; e >= 0; e -= 2) {
    const source = edges.at(e);
    if (hopeful[source] === 0 && hopeful[edges.at(e + 1) * n + part] === 1) {
      hopeful[source] = 1;
      changed = true;
    }
  }
  return changed;
}
