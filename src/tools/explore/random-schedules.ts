/** Schedules by chance, from a seed: for scenes that are too large to search. Proves nothing; finds what is common. */
import type { Model } from './model.ts';
import type { Move } from './schedule.ts';

export interface RandomOptions {
  readonly runs: number;
  readonly seed: number;
  /** Most steps of a run. */
  readonly depth: number;
  readonly interrupted?: () => boolean;
  readonly onProgress?: (runs: number) => void;
}

export interface RandomResult {
  readonly verdict: 'holds' | 'violation' | 'deadlock';
  readonly violation: number;
  /** The run, from 0, that found it. */
  readonly runs: number;
  readonly steps: number;
  readonly longest: number;
  /** Runs that were ended by the bound. */
  readonly unfinished: number;
  readonly stopped: boolean;
  readonly seconds: number;
  readonly moves: readonly Move[];
}

const SLICE = 100;

/** A sequence of 32-bit numbers from a seed: splitmix32. */
export class RandomNumbers {
  private state: number;

  constructor(seed: number) {
    this.state = seed | 0;
  }

  /** Of 0 to n - 1. HOT */
  below(n: number): number {
    this.state = (this.state + 0x9e3779b9) | 0;
    let x = Math.imul(this.state ^ (this.state >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return ((x ^ (x >>> 15)) >>> 0) % n;
  }
}

/** Run after run from the state that the model is in, each with a choice of the next actor at every step. */
export async function randomSchedules(model: Model, options: RandomOptions): Promise<RandomResult> {
  const start = performance.now();
  const initial = new Int32Array(model.stateWords);
  model.capture(initial, 0);
  const random = new RandomNumbers(options.seed);
  const actors = new Int32Array(options.depth);
  const choices = new Int32Array(options.depth);
  let runs = 0;
  let steps = 0;
  let longest = 0;
  let unfinished = 0;
  let stopped = false;
  let slice = start;
  const result = (verdict: RandomResult['verdict'], violation: number, length: number): RandomResult => ({
    verdict,
    violation,
    runs,
    steps,
    longest,
    unfinished,
    stopped,
    seconds: (performance.now() - start) / 1000,
    moves: Array.from({ length }, (_, i) => ({ actor: actors[i]!, choice: choices[i]! })),
  });
  for (; runs < options.runs; runs++) {
    model.restore(initial, 0);
    for (let n = 0; ; n++) {
      const violation = model.violation();
      if (violation !== 0) return result('violation', violation, n);
      const enabled = model.enabled();
      if (enabled === 0) {
        if (model.unfinished() !== 0) return result('deadlock', 0, n);
        break;
      }
      if (n === options.depth) {
        unfinished++;
        break;
      }
      const actor = nth(enabled, random.below(count(enabled)));
      const ways = model.choices(actor);
      const choice = ways === 1 ? 0 : random.below(ways);
      actors[n] = actor;
      choices[n] = choice;
      model.step(actor, choice);
      steps++;
      if (n + 1 > longest) longest = n + 1;
    }
    if (performance.now() - slice < SLICE) continue;
    options.onProgress?.(runs + 1);
    await new Promise((resolve) => setImmediate(resolve));
    slice = performance.now();
    if (options.interrupted?.() === true) {
      runs++;
      stopped = true;
      break;
    }
  }
  return result('holds', 0, 0);
}

function count(mask: number): number {
  let n = 0;
  for (let left = mask; left !== 0; left &= left - 1) n++;
  return n;
}

/** The number of the n-th bit that is set. */
function nth(mask: number, n: number): number {
  let left = mask;
  for (let i = 0; i < n; i++) left &= left - 1;
  return 31 - Math.clz32(left & -left);
}
