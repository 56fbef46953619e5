/** Outcomes by number: equal ones get one number, found by hash and checked word by word. */
import { names } from '../fault-machine/names.ts';
import type { DifferenceLevel, Outcome } from '../fault-machine/outcome.ts';
import {
  GUEST_FAULT,
  OUTCOME_WORDS,
  outcomeOf,
  SIGNALLED,
  W_ASYNC,
  W_DECIDED,
  W_EMULATED,
  W_EXIT,
  W_EXIT_DATA,
  W_FIELDS,
  W_LOG,
  W_MMIO_CACHE,
  W_RET,
  W_SIGNALS,
  W_SPTE_HI,
  W_SPTE_LO,
  W_STATS,
  W_VERDICT,
} from '../fault-machine/outcome-words.ts';

const EXIT_WORDS = [W_VERDICT, W_EMULATED] as const;
const STATE_WORDS = [
  W_EXIT,
  W_EXIT_DATA,
  W_ASYNC,
  W_SPTE_LO,
  W_SPTE_HI,
  W_MMIO_CACHE,
  W_STATS,
  W_LOG,
  W_SIGNALS,
] as const;
const FIELD_WORDS = [W_RET, W_FIELDS] as const;
const LEVELS: readonly DifferenceLevel[] = ['exit', 'state', 'field'];

export class OutcomeTable {
  private slots = new Int32Array(1 << 12).fill(-1);
  private words = new Int32Array(OUTCOME_WORDS * 1024);
  private count = 0;
  /** By outcome, what counts at each level as a number: equal numbers do not differ there. */
  private readonly keys: number[] = [];
  private readonly keyNumbers = new Map<string, number>();
  private readonly made: (Outcome | undefined)[] = [];

  /** The number of the outcome in `from`. HOT */
  number(from: Int32Array): number {
    let hash = 0;
    for (let i = 0; i < OUTCOME_WORDS; i++) hash = Math.imul(hash ^ from[i]!, 0x9e3779b1) ^ (hash >>> 15);
    const { slots, words } = this;
    const mask = slots.length - 1;
    let at = (hash ^ (hash >>> 13)) & mask;
    for (let found = slots[at]!; found >= 0; found = slots[at]!) {
      const base = found * OUTCOME_WORDS;
      let i = 0;
      while (i < OUTCOME_WORDS && words[base + i] === from[i]) i++;
      if (i === OUTCOME_WORDS) return found;
      at = (at + 1) & mask;
    }
    return this.add(from, at);
  }

  private add(from: Int32Array, at: number): number {
    const number = this.count++;
    if (this.count * OUTCOME_WORDS > this.words.length) {
      const wider = new Int32Array(this.words.length * 2);
      wider.set(this.words);
      this.words = wider;
    }
    this.words.set(from, number * OUTCOME_WORDS);
    this.slots[at] = number;
    this.keys.push(...this.keysOf(from));
    if (this.count * 2 > this.slots.length) this.rehash();
    return number;
  }

  private rehash(): void {
    const numbers = this.count;
    this.slots = new Int32Array(this.slots.length * 2).fill(-1);
    const { slots, words } = this;
    const mask = slots.length - 1;
    for (let n = 0; n < numbers; n++) {
      let hash = 0;
      for (let i = 0; i < OUTCOME_WORDS; i++)
        hash = Math.imul(hash ^ words[n * OUTCOME_WORDS + i]!, 0x9e3779b1) ^ (hash >>> 15);
      let at = (hash ^ (hash >>> 13)) & mask;
      while (slots[at]! >= 0) at = (at + 1) & mask;
      slots[at] = n;
    }
  }

  /** Who decided (W_DECIDED) is in no key. */
  private keysOf(from: Int32Array): number[] {
    // An exit that was prepared is seen by userspace only if the fault leaves to it.
    const seen = from[W_VERDICT]! <= 0 ? [from[W_EXIT]!, from[W_EXIT_DATA]!] : [0, 0];
    const exit = [...EXIT_WORDS.map((i) => from[i]!), ...seen, from[W_SIGNALS]! & (SIGNALLED | GUEST_FAULT)];
    const state = [...exit, ...STATE_WORDS.map((i) => from[i]!)];
    const field = [...state, ...FIELD_WORDS.map((i) => from[i]!)];
    return [exit, state, field].map((words) => this.keyNumber(words.join()));
  }

  private keyNumber(text: string): number {
    const known = this.keyNumbers.get(text);
    if (known !== undefined) return known;
    this.keyNumbers.set(text, this.keyNumbers.size);
    return this.keyNumbers.size - 1;
  }

  /** The strongest level at which the two differ: 0 exit, 1 state, 2 field; -1 when they are equal. HOT */
  differAt(a: number, b: number): number {
    if (a === b) return -1;
    const { keys } = this;
    for (let level = 0; level < LEVELS.length; level++) if (keys[3 * a + level] !== keys[3 * b + level]) return level;
    return -1;
  }

  /** The name of the stage that decided. */
  decidedBy(number: number): number {
    return this.words[number * OUTCOME_WORDS + W_DECIDED]!;
  }

  outcome(number: number): Outcome {
    this.made[number] ??= outcomeOf(this.words, number * OUTCOME_WORDS, names);
    return this.made[number];
  }
}
