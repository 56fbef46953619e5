/**
 * Which of several threads owns a state: decided by a few of its words. Were it a function of all, every other step would lead to a state of
 * another thread; words that change seldom, and still tell states apart, keep most steps at home and everybody busy. Which those are is found out
 * from schedules by chance. What a search finds does not depend on it, only how fast.
 */
import { mixWord } from './block-table.ts';
import type { Model } from './model.ts';
import { RandomNumbers } from './random-schedules.ts';

const TRANSITIONS = 6000;
const WALK = 400;
/** Steps of a schedule that count as one level, for want of more samples. */
const STRIDE = 8;
/** What it costs to hand a state over, in parts of what a step costs. */
const HANDOVER = 1.5;
/** Words that are tried in pairs: the best ones alone. */
const TRIED = 10;
/** States fall into this many groups by their words; each group has an owner. */
const GROUPS = 64;
const PASSES = 6;

/** Which words decide, and whose each group is. */
export interface Ownership {
  readonly words: Int32Array;
  readonly owners: Uint8Array;
}

/** HOT */
export function ownerOf(data: Int32Array, { words, owners }: Ownership): number {
  return owners[groupOf(data, words)]!;
}

/* HOT */
function groupOf(data: Int32Array, words: Int32Array): number {
  let h = 0;
  for (let i = 0; i < words.length; i++) h ^= mixWord(data[words[i]!]!, words[i]!);
  return (h >>> 8) & (GROUPS - 1);
}

interface Sample {
  /** Pairs of states, before and after a step. */
  readonly before: readonly Int32Array[];
  readonly after: readonly Int32Array[];
  /** The step's place in its schedule. */
  readonly depth: Int32Array;
}

/** Owners for the states of a model that is in its first state, to which it comes back. */
export function shareOut(model: Model, shards: number): Ownership {
  const sample = takeSample(model);
  const all = Array.from({ length: model.stateWords }, (_, i) => i);
  const changes = (i: number): boolean => sample.before.some((words, k) => words[i] !== sample.after[k]![i]);
  const few = all
    .filter(changes)
    .map((i) => assign(sample, [i], shards))
    .sort((a, b) => a.cost - b.cost)
    .slice(0, TRIED);
  const pairs = few.flatMap((a, i) => few.slice(i + 1).map((b) => assign(sample, [a.words[0]!, b.words[0]!], shards)));
  return [...few, ...pairs, assign(sample, all, shards)].reduce((x, y) => (y.cost < x.cost ? y : x));
}

function takeSample(model: Model): Sample {
  const first = new Int32Array(model.stateWords);
  model.capture(first, 0);
  const random = new RandomNumbers(1);
  const before: Int32Array[] = [];
  const after: Int32Array[] = [];
  const depth = new Int32Array(TRANSITIONS);
  for (let walks = 0; walks < TRANSITIONS && before.length < TRANSITIONS; walks++) {
    model.restore(first, 0);
    let here = first;
    for (let n = 0; n < WALK && before.length < TRANSITIONS; n++) {
      const enabled = model.enabled();
      if (enabled === 0 || model.violation() !== 0) break;
      let actor = random.below(model.actors.length);
      while ((enabled & (1 << actor)) === 0) actor = (actor + 1) % model.actors.length;
      model.step(actor, random.below(model.choices(actor)));
      const next = new Int32Array(model.stateWords);
      model.capture(next, 0);
      depth[before.length] = n;
      before.push(here);
      after.push(next);
      here = next;
    }
  }
  model.restore(first, 0);
  return { before, after, depth };
}

interface Assigned extends Ownership {
  readonly cost: number;
}

/**
 * The groups of these words, given to the shards so that a search takes least: it takes the largest share of each level, and what is handed
 * over. From shares of one size, one group at a time to where it is better off.
 */
function assign(sample: Sample, list: readonly number[], shards: number): Assigned {
  const words = Int32Array.from(list);
  const n = Math.max(1, sample.before.length);
  const levels = Math.ceil(WALK / STRIDE);
  const weights = new Int32Array(levels * GROUPS);
  const between = new Int32Array(GROUPS * GROUPS);
  const totals = new Int32Array(GROUPS);
  for (const [k, state] of sample.before.entries()) {
    const group = groupOf(state, words);
    const at = Math.floor(sample.depth[k]! / STRIDE) * GROUPS + group;
    weights[at] = weights[at]! + 1;
    totals[group] = totals[group]! + 1;
    const to = group * GROUPS + groupOf(sample.after[k]!, words);
    between[to] = between[to]! + 1;
  }
  const owners = evenOwners(totals, shards);
  const used = Array.from(totals.keys()).filter((g) => totals[g] !== 0);
  const share = new Int32Array(shards);
  const costNow = (): number => {
    let longest = 0;
    for (let level = 0; level < levels; level++) {
      share.fill(0);
      for (const g of used) share[owners[g]!] = share[owners[g]!]! + weights[level * GROUPS + g]!;
      let most = 0;
      for (let i = 0; i < shards; i++) most = Math.max(most, share[i]!);
      longest += most;
    }
    let across = 0;
    for (const g of used) for (const h of used) if (owners[g] !== owners[h]) across += between[g * GROUPS + h]!;
    return (longest / n) * (1 + (HANDOVER * across) / n);
  };
  let cost = costNow();
  for (let pass = 0, better = true; better && pass < PASSES; pass++) {
    better = false;
    for (const g of used) {
      const old = owners[g]!;
      owners[g] = (old + 1 + (pass % Math.max(1, shards - 1))) % shards;
      const moved = costNow();
      if (moved < cost) {
        cost = moved;
        better = true;
      } else owners[g] = old;
    }
  }
  return { words, owners, cost };
}

/** The heaviest group first, each to whoever has least. */
function evenOwners(totals: Int32Array, shards: number): Uint8Array {
  const owners = new Uint8Array(GROUPS);
  const loads = new Int32Array(shards);
  const order = Array.from(totals.keys()).sort((a, b) => totals[b]! - totals[a]!);
  for (const g of order) {
    const least = loads.indexOf(Math.min(...loads));
    // groups that were not seen go round
    owners[g] = totals[g] === 0 ? g % shards : least;
    loads[least] = loads[least]! + totals[g]!;
  }
  return owners;
}
