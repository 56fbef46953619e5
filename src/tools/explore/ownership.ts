/**
 * Which of several threads owns a state: a function of a few of its words. Were it a function of all, every other step would lead to a state of
 * another thread; words that change seldom, and still tell states apart, keep most steps at home and everybody busy. Which those are is found out
 * from schedules by chance. What a search finds does not depend on it, only how fast.
 */
import { mixWord } from './block-table.ts';
import type { Model } from './model.ts';
import { RandomNumbers } from './random-schedules.ts';

const TRANSITIONS = 6000;
const WALK = 400;
/** What it costs to hand a state over, in parts of what a step costs. */
const HANDOVER = 1.5;
/** Single words that are combined to pairs. */
const PAIRED = 16;

/** By the words at `words`. HOT */
export function ownerOf(data: Int32Array, words: Int32Array, shards: number): number {
  let h = 0;
  for (let i = 0; i < words.length; i++) h ^= mixWord(data[words[i]!]!, words[i]!);
  return ((h >>> 8) & 0xffff) % shards;
}

interface Sample {
  /** Pairs of states, before and after a step. */
  readonly before: readonly Int32Array[];
  readonly after: readonly Int32Array[];
  /** The step's place in its schedule. */
  readonly depth: Int32Array;
}

/** Words for `ownerOf` for a model in its first state, to which it comes back. */
export function ownerWords(model: Model, shards: number): Int32Array<ArrayBuffer> {
  const sample = takeSample(model);
  const all = Array.from({ length: model.stateWords }, (_, i) => i);
  if (sample.before.length === 0) return Int32Array.from(all);
  const changing = all.filter((i) => sample.before.some((words, k) => words[i] !== sample.after[k]![i]));
  const judged = changing.map((i) => judge(sample, [i], shards)).sort((a, b) => a.cost - b.cost);
  const few = judged.slice(0, PAIRED).map((j) => j.words[0]!);
  const pairs = few.flatMap((a, i) => few.slice(i + 1).map((b) => judge(sample, [a, b], shards)));
  const best = [...judged, ...pairs, judge(sample, all, shards)].reduce((x, y) => (y.cost < x.cost ? y : x));
  return Int32Array.from(best.words);
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

/** The time that a search would take, in parts of what one thread takes: the largest share of each level, and what is handed over. */
function judge(sample: Sample, list: readonly number[], shards: number): { words: readonly number[]; cost: number } {
  const words = Int32Array.from(list);
  const n = sample.before.length;
  const shares = new Map<number, Int32Array>();
  let across = 0;
  for (let k = 0; k < n; k++) {
    const owner = ownerOf(sample.before[k]!, words, shards);
    if (owner !== ownerOf(sample.after[k]!, words, shards)) across++;
    const level = sample.depth[k]! >> 2;
    const share = shares.get(level) ?? new Int32Array(shards);
    shares.set(level, share);
    share[owner] = share[owner]! + 1;
  }
  let longest = 0;
  for (const share of shares.values()) longest += Math.max(...share);
  return { words: list, cost: (longest / n) * (1 + (HANDOVER * across) / n) };
}
