/**
 * How the threads of one search go together: they take the states of a level in handfuls, wait for each other at its end, and whoever comes
 * last begins the next level. A thread that is not ready yet when a search begins joins at the end of a level. When a table has become too
 * small all pause, the first thread enlarges it, and the others hear of the new memory through their ports.
 */
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import type { StateTable, TableMemory } from './state-table.ts';

/** Words of the control block. */
const NEXT = 0;
const LEVEL_START = 16;
const LEVEL_END = 17;
const HANDFUL = 18;
const DEPTH = 19;
const MEMBERS = 20;
const FLAGS = 21;
const DONE = 22;
const GENERATION = 23;
const ABORT = 24;
const ARRIVED = 32;
const BELL = 33;
const PAUSE = 48;
const PAUSED = 49;
/** Pauses so far, which is how often the tables were enlarged. */
const PAUSES = 50;
/** By thread: whether it wants to join, or has. */
const JOIN = 64;
const WANTS = 1;
const HAS = 2;

/** In FLAGS. */
const FOUND = 1;
const FULL = 2;
const INTERRUPTED = 4;

/** Most states that are taken at a time: the others may have to wait for as many at the end of a level. */
const MOST_AT_ONCE = 64;
const MOST_AT_ONCE_ALONE = 4096;
const SPINS = 2000;
/** Milliseconds of a sleep at most. */
const NAP = 20;

/** What a thread says that stops because another one has failed. */
export const FAILED_ELSEWHERE = 'another thread of the search has failed';

/** What a thread needs to take part. */
export interface TeamSpace {
  readonly control: SharedArrayBuffer;
  readonly threads: number;
}

export interface TeamBounds {
  readonly depth: number;
  readonly maxStates: number;
}

/** Waits a little; something else of the thread's may run meanwhile. */
export type Breathe = () => Promise<void> | undefined;

export function teamSpace(threads: number): TeamSpace {
  return { control: new SharedArrayBuffer(4 * (JOIN + threads)), threads };
}

export class Team {
  private readonly control: Int32Array;
  private readonly threads: number;
  private readonly me: number;
  private readonly table: StateTable;
  private readonly bounds: TeamBounds;
  /** Of the first thread: to the others; of the others: to the first. */
  private readonly ports: readonly MessagePort[];
  private pauses = 0;

  constructor(
    { control, threads }: TeamSpace,
    me: number,
    table: StateTable,
    bounds: TeamBounds,
    ports: readonly MessagePort[],
  ) {
    this.control = new Int32Array(control);
    this.threads = threads;
    this.me = me;
    this.table = table;
    this.bounds = bounds;
    this.ports = ports;
  }

  get levelStart(): number {
    return this.control[LEVEL_START]!;
  }

  get levelEnd(): number {
    return this.control[LEVEL_END]!;
  }

  get depth(): number {
    return this.control[DEPTH]!;
  }

  /** Whether states are expanded, or only looked at: a bound is reached. */
  get expanding(): boolean {
    return this.depth < this.bounds.depth && !this.full;
  }

  get found(): boolean {
    return (this.control[FLAGS]! & FOUND) !== 0;
  }

  get full(): boolean {
    return (this.control[FLAGS]! & FULL) !== 0;
  }

  get interrupted(): boolean {
    return (this.control[FLAGS]! & INTERRUPTED) !== 0;
  }

  get done(): boolean {
    return Atomics.load(this.control, DONE) !== 0;
  }

  /** Every thread takes part. */
  get complete(): boolean {
    return this.control[MEMBERS] === this.threads;
  }

  private raise(flag: number): void {
    Atomics.or(this.control, FLAGS, flag);
  }

  /** Something was found in a state of this level. */
  find(): void {
    this.raise(FOUND);
  }

  interrupt(): void {
    this.raise(INTERRUPTED);
  }

  /** The first thread begins with the first level, when the first state is in the table, and with it those that are ready. */
  begin(): void {
    const { control } = this;
    control[MEMBERS] = 1;
    Atomics.store(control, JOIN + this.me, HAS);
    this.nextLevel(0);
    this.admit(() => {});
  }

  /** Waits until every thread is ready. */
  async assemble(breathe: Breathe): Promise<void> {
    const { control, threads } = this;
    for (let i = 1; i < threads; i++) await this.until(() => Atomics.load(control, JOIN + i) === WANTS, breathe);
  }

  /** Counts those in that are ready, and then lets them in: when they arrive somewhere, it is as one of all. */
  private admit(turn: () => void): void {
    const { control, threads } = this;
    const ready: number[] = [];
    for (let i = 0; i < threads; i++) if (Atomics.load(control, JOIN + i) === WANTS) ready.push(i);
    control[MEMBERS] = control[MEMBERS]! + ready.length;
    turn();
    for (const i of ready) Atomics.store(control, JOIN + i, HAS);
    this.ring();
  }

  /** The others come in at the end of a level; false when the search has ended before. */
  join(): boolean {
    const { control } = this;
    Atomics.store(control, JOIN + this.me, WANTS);
    while (Atomics.load(control, JOIN + this.me) !== HAS && !this.done) this.nap();
    if (Atomics.load(control, JOIN + this.me) !== HAS) return false;
    this.catchUp();
    return true;
  }

  /** The first of the next states to expand, `taken` of them; -1 when the level has no more. HOT */
  take(): number {
    const { control } = this;
    if (this.interrupted) return -1;
    if (this.table.count >= this.bounds.maxStates && this.depth < this.bounds.depth) this.raise(FULL);
    const from = Atomics.add(control, NEXT, control[HANDFUL]!);
    return from < control[LEVEL_END]! ? from : -1;
  }

  /** The end of what was taken at `from`. */
  takenTo(from: number): number {
    return Math.min(from + this.control[HANDFUL]!, this.control[LEVEL_END]!);
  }

  /** The level is done here. Waits for the others; false when the search has ended. @throws when another thread has failed */
  async turn(breathe: Breathe): Promise<boolean> {
    const { control } = this;
    const generation = Atomics.load(control, GENERATION);
    if (Atomics.add(control, ARRIVED, 1) + 1 === control[MEMBERS]) this.turnOver();
    else
      await this.until(() => {
        if (Atomics.load(control, PAUSE) !== 0) return true;
        return Atomics.load(control, GENERATION) !== generation;
      }, breathe);
    // somebody else's table is too small
    while (Atomics.load(control, GENERATION) === generation) {
      await this.pause(breathe);
      await this.until(
        () => Atomics.load(control, PAUSE) !== 0 || Atomics.load(control, GENERATION) !== generation,
        breathe,
      );
    }
    return !this.done;
  }

  private turnOver(): void {
    const { control, table } = this;
    const levelEnd = control[LEVEL_END]!;
    if (table.count >= this.bounds.maxStates && table.count > levelEnd) this.raise(FULL);
    if (this.found || this.interrupted || table.count === levelEnd) Atomics.store(control, DONE, 1);
    else {
      control[DEPTH] = control[DEPTH]! + 1;
      this.nextLevel(levelEnd);
    }
    Atomics.store(control, ARRIVED, 0);
    const turn = (): void => {
      Atomics.add(control, GENERATION, 1);
    };
    if (!this.done) this.admit(turn);
    else {
      turn();
      this.ring();
    }
  }

  private nextLevel(start: number): void {
    const { control, table, threads } = this;
    const end = table.count;
    control[LEVEL_START] = start;
    control[LEVEL_END] = end;
    const most = threads === 1 ? MOST_AT_ONCE_ALONE : MOST_AT_ONCE;
    control[HANDFUL] = Math.max(1, Math.min(most, Math.floor((end - start) / (4 * threads))));
    Atomics.store(control, NEXT, start);
  }

  // ---- pauses ----

  /** All are to pause. */
  get pausing(): boolean {
    return this.control[PAUSE] !== 0;
  }

  /** Lets the tables be enlarged, for which all must pause. */
  async pause(breathe: Breathe): Promise<void> {
    const { control } = this;
    if (this.threads === 1) {
      this.table.grow();
      return;
    }
    const pauses = this.pauses;
    Atomics.store(control, PAUSE, 1);
    Atomics.add(control, PAUSED, 1);
    this.ring();
    if (this.me !== 0) {
      await this.until(() => Atomics.load(control, PAUSES) !== pauses, breathe);
      this.catchUp();
      return;
    }
    await this.until(() => Atomics.load(control, PAUSED) === control[MEMBERS], breathe);
    if (this.table.crowded) this.table.grow();
    const { memory } = this.table;
    for (const port of this.ports) port.postMessage(memory);
    this.pauses++;
    Atomics.store(control, PAUSED, 0);
    Atomics.store(control, PAUSE, 0);
    Atomics.add(control, PAUSES, 1);
    this.ring();
  }

  /** Goes over to the memory that the tables have now. */
  private catchUp(): void {
    const { control, ports } = this;
    const pauses = Atomics.load(control, PAUSES);
    let memory: TableMemory | null = null;
    for (; this.pauses < pauses; this.pauses++) {
      const message = receiveMessageOnPort(ports[0]!);
      if (message === undefined) throw new Error('the new memory of the tables did not come');
      memory = message.message as TableMemory;
    }
    if (memory !== null) this.table.adopt(memory);
  }

  // ---- waiting ----

  private ring(): void {
    Atomics.add(this.control, BELL, 1);
    Atomics.notify(this.control, BELL);
  }

  private nap(): void {
    if (Atomics.load(this.control, ABORT) !== 0) throw new Error(FAILED_ELSEWHERE);
    Atomics.wait(this.control, BELL, Atomics.load(this.control, BELL), NAP);
  }

  private async until(condition: () => boolean, breathe: Breathe): Promise<void> {
    for (let spins = 0; spins < SPINS; spins++) if (condition()) return;
    const { control } = this;
    for (;;) {
      const bell = Atomics.load(control, BELL);
      if (condition()) return;
      if (Atomics.load(control, ABORT) !== 0) throw new Error(FAILED_ELSEWHERE);
      if (Atomics.wait(control, BELL, bell, NAP) === 'timed-out') await breathe();
    }
  }

  /** This thread has failed: the others must not wait for it. */
  abort(): void {
    Atomics.store(this.control, ABORT, 1);
    this.ring();
  }
}

/** For a thread that fails before it can take part. */
export function abortTeam({ control }: TeamSpace): void {
  const words = new Int32Array(control);
  Atomics.store(words, ABORT, 1);
  Atomics.add(words, BELL, 1);
  Atomics.notify(words, BELL);
}
