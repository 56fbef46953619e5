/**
 * The search itself: breadth first, one level of equally many steps after the other, over the states that this shard owns. Alone it owns all;
 * of several (parallel.ts) each owns some (ownership.ts), and hands the others' states over through an `Exchange`.
 *
 * What is found does not depend on how the states are shared out: which states there are, their levels, which of them were reduced
 * (that asks about earlier levels only) and, of all ways to reach a state, which one is remembered.
 */
import { GrowingInts } from './growing.ts';
import type { Model } from './model.ts';
import { type Ownership, ownerOf } from './ownership.ts';
import { Reduction } from './reduction.ts';
import { type Cursor, StateTable } from './state-table.ts';

/** A violation() of this number means: nobody can move and somebody has not finished. */
export const DEADLOCK = -1;

const ACTOR_BITS = 5;

/** A step in one word. */
export function stepWord(actor: number, choice: number): number {
  return actor | (choice << ACTOR_BITS);
}

export function actorOf(word: number): number {
  return word & ((1 << ACTOR_BITS) - 1);
}

export function choiceOf(word: number): number {
  return word >>> ACTOR_BITS;
}

/** The way to the other shards. A state is known everywhere by `local number * shards + shard`. */
export interface Exchange {
  readonly shards: number;
  readonly me: number;
  readonly ownership: Ownership;
  /** `ask`: the owner is to say when the state is of no later level than its parent. May take in what others sent. HOT */
  send(to: number, parent: number, parentHash: number, step: number, ask: boolean, words: Int32Array): void;
}

/** What is wrong in a state. */
export interface Finding {
  /** Local number. */
  readonly state: number;
  readonly hash: number;
  /** The violated invariant, or DEADLOCK. */
  readonly violation: number;
}

export class Shard {
  readonly table: StateTable;
  readonly model: Model;
  /** Of the states that were expanded. */
  transitions = 0;
  reducedStates = 0;
  /** The level whose states are being expanded: local numbers from levelStart to levelEnd. */
  levelStart = 0;
  levelEnd = 0;
  /** Where each level so far begins. */
  readonly levels: number[] = [];
  /** The first finding of the level in an order that does not depend on the order of the search. */
  finding: Finding | null = null;
  /** Whether states are expanded, or only looked at: the bound is reached. */
  expanding = true;
  /** Whether a state was not expanded although somebody could have moved. */
  cut = false;
  /** Pairs: the source of each transition, known everywhere, and its target, a local number. */
  readonly edges = new GrowingInts();
  /** Local numbers of the states in which everybody has finished. */
  readonly finished = new GrowingInts();
  private readonly keepEdges: boolean;
  private readonly reduction: Reduction | null;
  private readonly exchange: Exchange | null;
  private readonly shards: number;
  private readonly me: number;
  private next = 0;
  private base: Cursor;
  private cursor: Cursor;
  /** The state that came in last, and the one that comes. */
  private received: Cursor;
  private receiving: Cursor;
  /** Pairs: states whose reduction depends on what other shards answer, and the actors that were left out. */
  private readonly awaiting = new GrowingInts();
  private refused = new Uint8Array(0);
  private asked = false;

  constructor(model: Model, reduce: boolean, keepEdges: boolean, exchange: Exchange | null) {
    this.model = model;
    this.table = new StateTable(model.stateWords);
    this.reduction = reduce ? new Reduction(model) : null;
    this.keepEdges = keepEdges;
    this.exchange = exchange;
    this.shards = exchange?.shards ?? 1;
    this.me = exchange?.me ?? 0;
    this.base = this.table.cursor();
    this.cursor = this.table.cursor();
    this.received = this.table.cursor();
    this.receiving = this.table.cursor();
  }

  /** Takes in the state that the model is in as the first one, if it is ours. */
  begin(): void {
    this.model.capture(this.cursor.data, 0);
    this.table.fold(this.cursor, this.base);
    if (this.owner(this.cursor.data) !== this.me) return;
    const id = this.table.insert(this.cursor);
    this.table.parents[id] = -1;
  }

  /** What was reached becomes the level to expand. */
  nextLevel(): void {
    this.levelStart = this.levelEnd;
    this.levelEnd = this.table.count;
    this.levels.push(this.levelStart);
    this.next = this.levelStart;
    this.awaiting.clear();
    if (this.reduction !== null && this.exchange !== null) {
      const size = this.levelEnd - this.levelStart;
      if (this.refused.length < size) this.refused = new Uint8Array(size * 2);
      else this.refused.fill(0, 0, size);
    }
  }

  /** Expands at most `most` states of the level; whether that was the last of them. */
  expandSome(most: number): boolean {
    const end = Math.min(this.levelEnd, this.next + most);
    for (; this.next < end; this.next++) this.expand(this.next);
    return this.next === this.levelEnd;
  }

  /** Completes the states that could not be reduced after all, once all answers are in. */
  expandRefused(): void {
    for (let i = 0; i < this.awaiting.length; i += 2) {
      const id = this.awaiting.at(i);
      if (this.refused[id - this.levelStart] === 0) {
        this.reducedStates++;
        continue;
      }
      this.table.decode(id, this.base);
      this.stepAll(id, this.awaiting.at(i + 1), false, false);
    }
    this.awaiting.clear();
  }

  /** Another shard says that a successor of ours is of no later level: the state is to be expanded in full. */
  refuse(id: number): void {
    this.refused[id - this.levelStart] = 1;
  }

  /* HOT */
  private expand(id: number): void {
    const { model, base } = this;
    this.table.decode(id, base);
    model.restore(base.data, 0);
    const violation = model.violation();
    if (violation !== 0) {
      this.note(id, violation);
      return;
    }
    const enabled = model.enabled();
    const unfinished = model.unfinished();
    if (unfinished === 0) this.finished.push(id);
    if (enabled === 0) {
      if (unfinished !== 0) this.note(id, DEADLOCK);
      return;
    }
    if (!this.expanding || this.finding !== null) {
      this.cut = true;
      return;
    }
    const first = this.reduction === null ? enabled : this.reduction.sufficient(enabled);
    if (first === enabled) {
      this.stepAll(id, enabled, false, true);
      return;
    }
    // A reduced state whose successor was there before could put off the others for ever, round a cycle.
    this.asked = false;
    if (this.stepAll(id, first, true, true)) this.stepAll(id, enabled & ~first, false, false);
    else if (this.asked) {
      this.awaiting.push(id);
      this.awaiting.push(enabled & ~first);
    } else this.reducedStates++;
  }

  /** Takes every step of `actors` from `base`; whether one led to a state of this level or an earlier one that is ours. HOT */
  private stepAll(id: number, actors: number, ask: boolean, restored: boolean): boolean {
    const { model, base, cursor, table } = this;
    const hash = base.hash;
    const source = id * this.shards + this.me;
    let back = false;
    let fresh = restored;
    for (let left = actors; left !== 0; left &= left - 1) {
      const actor = 31 - Math.clz32(left & -left);
      if (!fresh) {
        model.restore(base.data, 0);
        fresh = true;
      }
      const choices = model.choices(actor);
      for (let choice = 0; choice < choices; choice++) {
        if (!fresh) model.restore(base.data, 0);
        fresh = false;
        model.step(actor, choice);
        model.capture(cursor.data, 0);
        this.transitions++;
        const owner = this.owner(cursor.data);
        if (owner === this.me) {
          table.fold(cursor, base);
          if (this.admit(cursor, source, hash, stepWord(actor, choice)) < this.levelEnd) back = true;
        } else {
          this.exchange!.send(owner, source, hash, stepWord(actor, choice), ask, cursor.data);
          if (ask) this.asked = true;
        }
      }
    }
    return back;
  }

  /** Takes in a state that another shard reached; whether it is of this level or an earlier one. The words are at `at`. HOT */
  receive(source: number, sourceHash: number, step: number, from: Int32Array, at: number): boolean {
    const { receiving, received, table } = this;
    const { data } = receiving;
    for (let i = 0; i < table.stateWords; i++) data[i] = from[at + i]!;
    table.fold(receiving, received);
    const id = this.admit(receiving, source, sourceHash, step);
    this.received = receiving;
    this.receiving = received;
    return id < this.levelEnd;
  }

  /* HOT */
  private admit(cursor: Cursor, source: number, sourceHash: number, step: number): number {
    const { table } = this;
    const id = table.insert(cursor);
    if (
      table.fresh ||
      (id >= this.levelEnd &&
        (sourceHash < table.parentHashes[id]! || (sourceHash === table.parentHashes[id]! && step < table.steps[id]!)))
    ) {
      table.parents[id] = source;
      table.parentHashes[id] = sourceHash;
      table.steps[id] = step;
    }
    if (this.keepEdges) {
      this.edges.push(source);
      this.edges.push(id);
    }
    return id;
  }

  private owner(words: Int32Array): number {
    return this.exchange === null ? 0 : ownerOf(words, this.exchange.ownership);
  }

  private note(state: number, violation: number): void {
    const found = { state, hash: this.table.hashes[state]!, violation };
    if (this.finding === null || comesBefore(found, this.finding)) this.finding = found;
  }

  get bytes(): number {
    return this.table.bytes + this.edges.bytes + this.finished.bytes + this.awaiting.bytes + this.refused.byteLength;
  }
}

/** The order in which findings of one level are preferred. */
export function comesBefore(a: Finding, b: Finding): boolean {
  return a.hash !== b.hash ? a.hash < b.hash : a.violation < b.violation;
}
