/**
 * What one thread does of a search: it expands states of the present level, and puts what they lead to into the table that all share.
 *
 * What is found does not depend on how the states are shared out: which states there are, their levels, and which of them were reduced
 * (that asks about earlier levels only).
 */
import { GrowingInts } from './growing.ts';
import type { Model } from './model.ts';
import { Reduction } from './reduction.ts';
import type { Cursor, StateTable } from './state-table.ts';

/** A violation() of this number means: nobody can move and somebody has not finished. */
export const DEADLOCK = -1;

/** What is wrong in a state. */
export interface Finding {
  readonly state: number;
  readonly hash: number;
  /** The violated invariant, or DEADLOCK. */
  readonly violation: number;
}

export class Searcher {
  readonly table: StateTable;
  readonly model: Model;
  /** Of the states that were expanded here. */
  transitions = 0;
  reducedStates = 0;
  /** The first finding of the level in an order that does not depend on the order of the search. */
  finding: Finding | null = null;
  /** Whether a state was not expanded although somebody could have moved. */
  cut = false;
  /** Pairs: the source of each transition and its target. */
  readonly edges = new GrowingInts();
  /** How many edges there were, times two, when each level began. */
  readonly marks: number[] = [];
  /** States in which everybody has finished. */
  readonly finished = new GrowingInts();
  /** States below this number are of the present level or of an earlier one. */
  private levelEnd = 0;
  private expanding = true;
  private readonly reduction: Reduction | null;
  private readonly base: Cursor;
  /** Words that a step has changed: their numbers, what they are now. */
  private readonly list: Int32Array;
  private readonly values: Int32Array;
  private readonly captured: Int32Array;

  constructor(model: Model, reduce: boolean, table: StateTable) {
    this.model = model;
    this.table = table;
    this.reduction = reduce ? new Reduction(model) : null;
    this.base = table.cursor();
    this.list = new Int32Array(model.stateWords);
    this.values = new Int32Array(model.stateWords);
    this.captured = new Int32Array(model.stateWords);
  }

  /** Takes in the state that the model is in as the first one. */
  begin(): void {
    const { table, base } = this;
    table.change(base, this.list, this.values, this.compare());
    table.insert(base);
    table.undo(base);
  }

  /** A level begins, `depth` steps from the first state, whose states end with `levelEnd`. */
  nextLevel(depth: number, levelEnd: number, expanding: boolean): void {
    while (this.marks.length <= depth) this.marks.push(this.edges.length);
    this.levelEnd = levelEnd;
    this.expanding = expanding;
  }

  /** A bound is reached: states are only looked at from now on. */
  stopExpanding(): void {
    this.expanding = false;
  }

  /** HOT */
  expand(id: number): void {
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
      this.stepAll(id, enabled, true);
      return;
    }
    // A reduced state whose successor was there before could put off the others for ever, round a cycle.
    if (this.stepAll(id, first, true)) this.stepAll(id, enabled & ~first, false);
    else this.reducedStates++;
  }

  /** Takes every step of `actors` from `base`; whether one led to a state of this level or an earlier one. HOT */
  private stepAll(id: number, actors: number, restored: boolean): boolean {
    const { model, base, table, edges, list, values } = this;
    let back = false;
    let here = restored;
    for (let left = actors; left !== 0; left &= left - 1) {
      const actor = 31 - Math.clz32(left & -left);
      if (!here) this.goBack();
      here = true;
      const choices = model.choices(actor);
      for (let choice = 0; choice < choices; choice++) {
        if (!here) this.goBack();
        here = false;
        model.step(actor, choice);
        const n = model.changes === undefined ? this.compare() : model.changes(list, values);
        table.change(base, list, values, n);
        const target = table.insert(base);
        table.undo(base);
        this.transitions++;
        if (target < this.levelEnd) back = true;
        edges.push(id);
        edges.push(target);
      }
    }
    return back;
  }

  /* HOT */
  private goBack(): void {
    const { model } = this;
    if (model.rewind === undefined) model.restore(this.base.data, 0);
    else model.rewind();
  }

  /** Where the model's state differs from that at `base`, for models that do not know themselves. HOT */
  private compare(): number {
    const { model, captured, list, values, base } = this;
    const { data } = base;
    model.capture(captured, 0);
    let n = 0;
    for (let i = 0; i < captured.length; i++) {
      const word = captured[i]!;
      if (word === data[i]) continue;
      list[n] = i;
      values[n++] = word;
    }
    return n;
  }

  private note(state: number, violation: number): void {
    const found = { state, hash: this.table.hashes[state]!, violation };
    if (this.finding === null || comesBefore(found, this.finding)) this.finding = found;
  }

  get bytes(): number {
    return this.edges.bytes + this.finished.bytes;
  }
}

/** The order in which findings of one level are preferred. */
export function comesBefore(a: Finding, b: Finding): boolean {
  return a.hash !== b.hash ? a.hash < b.hash : a.violation < b.violation;
}
