/** What follows from a search that has ended, in one thread or several: the finding, the way to it, a livelock. */
import type { IntList } from './growing.ts';
import type { Model } from './model.ts';
import { type Move, stepWord } from './schedule.ts';
import type { SearchResult, Stop } from './search.ts';
import { comesBefore, DEADLOCK, type Finding, type Searcher } from './searcher.ts';
import type { StateTable } from './state-table.ts';

/** What one thread knows at the end. */
export interface Part {
  /** Of the levels that were looked at in full. */
  readonly transitions: number;
  readonly reducedStates: number;
  readonly cut: boolean;
  readonly finding: Finding | null;
  readonly bytes: number;
  /** Sources and targets of the transitions, in turns; `marks`: where each level's begin. */
  readonly edges: IntList;
  readonly marks: readonly number[];
  readonly finished: IntList;
}

/** `before`: what was counted when the last level began, which is what counts when that was not expanded in full. */
export function partOf(
  searcher: Searcher,
  before: { readonly transitions: number; readonly reducedStates: number },
): Part {
  const { finding, cut, marks, edges, finished, bytes } = searcher;
  const { transitions, reducedStates } = before;
  return { transitions, reducedStates, cut, finding, bytes, edges, marks, finished };
}

/** A search that has ended, but for what follows from it. */
export interface Ended {
  readonly model: Model;
  readonly table: StateTable;
  readonly parts: readonly Part[];
  /** States of the levels that were looked at in full. */
  readonly states: number;
  /** Where each level begins. */
  readonly levels: readonly number[];
  /** By what it was stopped, if not by a finding. */
  readonly stopped: Stop | null;
}

/** The model is in some state afterwards. */
export function conclude(ended: Ended, livelock: boolean, seconds: () => number): SearchResult {
  const { parts, stopped, levels, states, table } = ended;
  const sum = (of: (part: Part) => number): number => parts.reduce((total, part) => total + of(part), 0);
  let finding: Finding | null = null;
  for (const part of parts)
    if (part.finding !== null && (finding === null || comesBefore(part.finding, finding))) finding = part.finding;
  // a bound that left nothing out was none
  const cut = parts.some((part) => part.cut);
  const stop = stopped === 'interrupted' ? stopped : cut ? (stopped ?? 'depth') : null;
  const complete = finding === null && stop === null;
  const depth = levels.length - 1;
  const base = {
    complete,
    stopped: finding === null ? stop : null,
    states,
    transitions: sum((p) => p.transitions),
    depth,
    reducedStates: sum((p) => p.reducedStates),
    bytes: sum((p) => p.bytes) + table.bytes,
  };
  if (finding !== null) {
    const verdict = finding.violation === DEADLOCK ? 'deadlock' : 'violation';
    const moves = pathTo(ended, finding.state, depth);
    return { ...base, verdict, violation: Math.max(0, finding.violation), moves, seconds: seconds() };
  }
  const hopeless = complete && livelock ? firstHopeless(ended) : null;
  if (hopeless === null) return { ...base, verdict: 'holds', violation: 0, moves: [], seconds: seconds() };
  const moves = pathTo(ended, hopeless.state, hopeless.level);
  return { ...base, verdict: 'livelock', violation: 0, moves, seconds: seconds() };
}

/** Where the edges of a level begin and end among those of a part. */
function edgesOf({ marks, edges }: Part, level: number): readonly [number, number] {
  return [marks[level] ?? edges.length, marks[level + 1] ?? edges.length];
}

/** The way to a state of this level: backwards, each time from the state with the lowest hash. */
function pathTo(ended: Ended, state: number, level: number): Move[] {
  const { parts, table, levels } = ended;
  const moves: Move[] = [];
  for (let at = state, l = level - 1; l >= 0; l--) {
    let best = -1;
    let move: Move | null = null;
    for (const part of parts) {
      const [from, to] = edgesOf(part, l);
      for (let e = from; e < to; e += 2) {
        const source = part.edges.at(e);
        if (part.edges.at(e + 1) !== at || source === best || source < levels[l]!) continue;
        if (best >= 0 && table.hashes[source]! > table.hashes[best]!) continue;
        const found = lowestMove(ended, source, at);
        const less = move === null || stepWord(found.actor, found.choice) < stepWord(move.actor, move.choice);
        if (best >= 0 && table.hashes[source] === table.hashes[best] && !less) continue;
        best = source;
        move = found;
      }
    }
    if (move === null) throw new Error('a state that nothing led to');
    moves.push(move);
    at = best;
  }
  return moves.reverse();
}

/** Of the steps that lead from one state to the other, the one with the lowest word. */
function lowestMove({ model, table }: Ended, source: number, target: number): Move {
  const from = table.cursor();
  const to = table.cursor();
  const words = new Int32Array(model.stateWords);
  table.decode(source, from);
  table.decode(target, to);
  const wanted = to.data;
  let best: Move | null = null;
  model.restore(from.data, 0);
  const enabled = model.enabled();
  for (let actor = 0; actor < model.actors.length; actor++) {
    if ((enabled & (1 << actor)) === 0) continue;
    model.restore(from.data, 0);
    const choices = model.choices(actor);
    for (let choice = 0; choice < choices; choice++) {
      model.restore(from.data, 0);
      model.step(actor, choice);
      model.capture(words, 0);
      if (words.some((word, i) => word !== wanted[i])) continue;
      if (best === null || stepWord(actor, choice) < stepWord(best.actor, best.choice)) best = { actor, choice };
    }
  }
  if (best === null) throw new Error('a step leads elsewhere the second time');
  return best;
}

/**
 * A state of the lowest level from which no finished state can be reached, of those the one with the lowest hash; null when there is none.
 * Backwards over the transitions level by level, again until a pass finds nothing new.
 */
function firstHopeless(ended: Ended): { readonly state: number; readonly level: number } | null {
  const { parts, states, levels, table } = ended;
  const hopeful = new Uint8Array(states);
  let left = states;
  for (const { finished } of parts) {
    for (let k = 0; k < finished.length; k++) hopeful[finished.at(k)] = 1;
    left -= finished.length;
  }
  for (let before = -1; left !== before && left > 0; ) {
    before = left;
    for (let level = levels.length - 1; level >= 0; level--)
      for (const part of parts) left -= spread(hopeful, part.edges, ...edgesOf(part, level));
  }
  if (left === 0) return null;
  for (let level = 0; level < levels.length; level++) {
    let best = -1;
    for (let state = levels[level]!; state < (levels[level + 1] ?? states); state++)
      if (hopeful[state] === 0 && (best < 0 || table.hashes[state]! < table.hashes[best]!)) best = state;
    if (best >= 0) return { state: best, level };
  }
  return null;
}

/** Makes hopeful what leads to something hopeful; how many states that were. */
function spread(hopeful: Uint8Array, edges: IntList, from: number, to: number): number {
  let more = 0;
  for (let e = to - 2; e >= from; e -= 2) {
    const source = edges.at(e);
    if (hopeful[source] === 0 && hopeful[edges.at(e + 1)] === 1) {
      hopeful[source] = 1;
      more++;
    }
  }
  return more;
}
