/**
 * How shards in several threads hand states to each other: for each pair a ring of records in shared memory, one of answers, and barriers.
 * A thread that has to wait, for room or for the others, takes in what came for it meanwhile, so that nobody waits in a circle.
 */
import type { Ownership } from './ownership.ts';
import type { Exchange, Shard } from './shard.ts';

/** Words of the control block: what all share, then a line for each thread. */
const ARRIVED = 0;
const GENERATION = 1;
const ABORT = 2;
const STOP = 3;
const COMMON = 16;
const LINE = 32;
/** In a thread's line: its bell, its states so far, and two reports of a level, in turns. */
const BELL = 0;
const STATES = 1;
const REPORT = 8;
const REPORT_WORDS = 8;

/** Words of a ring that are no records: how many went in, how many came out, each with a cache line of its own. */
const IN = 0;
const OUT = 16;
const RING = 32;
/** Words of a record besides the state's. */
const RECORD = 3;
const RING_WORDS = 1 << 18;
const ANSWERS = 1 << 14;
/** Records that are written before the other hears of them. */
const BATCH = 64;
const ASK = -0x8000_0000;
const SPINS = 200;

/** What the threads share. */
export interface SharedSpace {
  readonly shards: number;
  readonly stateWords: number;
  readonly ownership: Ownership;
  readonly control: SharedArrayBuffer;
  /** By sender, then by receiver. */
  readonly rings: readonly (readonly SharedArrayBuffer[])[];
  readonly answers: readonly (readonly SharedArrayBuffer[])[];
}

export function sharedSpace(shards: number, stateWords: number, ownership: Ownership): SharedSpace {
  const capacity = Math.max(2 * BATCH, Math.floor(RING_WORDS / (RECORD + stateWords)));
  const each = (bytes: number): SharedArrayBuffer[][] =>
    Array.from({ length: shards }, (_, from) =>
      Array.from({ length: shards }, (_, to) => new SharedArrayBuffer(from === to ? 0 : bytes)),
    );
  return {
    shards,
    stateWords,
    ownership,
    control: new SharedArrayBuffer(4 * (COMMON + LINE * shards)),
    rings: each(4 * (RING + capacity * (RECORD + stateWords))),
    answers: each(4 * (RING + ANSWERS)),
  };
}

/** The control block as the thread that started the others sees it. */
export class Overseer {
  private readonly control: Int32Array;
  private readonly shards: number;

  constructor(space: SharedSpace) {
    this.control = new Int32Array(space.control);
    this.shards = space.shards;
  }

  /** One has failed: the others must not wait for it. */
  abort(): void {
    Atomics.store(this.control, ABORT, 1);
  }

  /** All are to end after their level. */
  stop(): void {
    Atomics.store(this.control, STOP, 1);
  }

  states(): number {
    let sum = 0;
    for (let i = 0; i < this.shards; i++) sum += Atomics.load(this.control, COMMON + i * LINE + STATES);
    return sum;
  }
}

/** What a shard tells all others when a level is done. */
export interface LevelReport {
  /** States of the next level. */
  readonly next: number;
  readonly total: number;
  readonly found: boolean;
  readonly full: boolean;
  readonly interrupted: boolean;
}

export class Rings implements Exchange {
  readonly shards: number;
  readonly me: number;
  readonly ownership: Ownership;
  private readonly control: Int32Array;
  private readonly outgoing: readonly Int32Array[];
  private readonly incoming: readonly Int32Array[];
  private readonly outgoingAnswers: readonly Int32Array[];
  private readonly incomingAnswers: readonly Int32Array[];
  /** By receiver: records written, and how many of them it has heard of. */
  private readonly written: Int32Array;
  private readonly told: Int32Array;
  private readonly stateWords: number;
  private readonly record: number;
  private readonly capacity: number;
  private shard: Shard | null = null;
  private level = 0;

  constructor(space: SharedSpace, me: number) {
    const { shards } = space;
    this.shards = shards;
    this.me = me;
    this.ownership = space.ownership;
    this.control = new Int32Array(space.control);
    const views = (buffers: readonly SharedArrayBuffer[]): Int32Array[] => buffers.map((b) => new Int32Array(b));
    this.outgoing = views(space.rings[me]!);
    this.incoming = views(space.rings.map((from) => from[me]!));
    this.outgoingAnswers = views(space.answers[me]!);
    this.incomingAnswers = views(space.answers.map((from) => from[me]!));
    this.written = new Int32Array(shards);
    this.told = new Int32Array(shards);
    this.stateWords = space.stateWords;
    this.record = RECORD + space.stateWords;
    const other = this.outgoing[me === 0 ? 1 : 0]!;
    this.capacity = Math.floor((other.length - RING) / this.record);
  }

  /** Whose states come in. */
  serve(shard: Shard): void {
    this.shard = shard;
  }

  /* HOT */
  send(to: number, parent: number, parentHash: number, step: number, ask: boolean, words: Int32Array): void {
    const ring = this.outgoing[to]!;
    const written = this.written[to]!;
    if (((written - Atomics.load(ring, OUT)) | 0) >= this.capacity) this.waitForRoom(to, ring);
    let at = RING + ((written >>> 0) % this.capacity) * this.record;
    ring[at] = parent;
    ring[at + 1] = parentHash;
    ring[at + 2] = ask ? step | ASK : step;
    at += RECORD;
    for (let i = 0; i < this.stateWords; i++) ring[at + i] = words[i]!;
    this.written[to] = (written + 1) | 0;
    if (((written + 1 - this.told[to]!) | 0) >= BATCH) this.tell(to);
  }

  private tell(to: number): void {
    this.told[to] = this.written[to]!;
    Atomics.store(this.outgoing[to]!, IN, this.written[to]!);
    this.ring(to);
  }

  private ring(to: number): void {
    const bell = COMMON + to * LINE + BELL;
    Atomics.add(this.control, bell, 1);
    Atomics.notify(this.control, bell);
  }

  /** Everybody hears of everything that was sent. */
  flush(): void {
    for (let to = 0; to < this.shards; to++) if (this.told[to] !== this.written[to]) this.tell(to);
  }

  private waitForRoom(to: number, ring: Int32Array): void {
    this.tell(to);
    for (let spins = 0; ((this.written[to]! - Atomics.load(ring, OUT)) | 0) >= this.capacity; spins++) {
      const bell = Atomics.load(this.control, COMMON + this.me * LINE + BELL);
      if (!this.takeIn()) this.pause(spins, bell);
    }
  }

  /** Takes in all that has come; whether there was anything. HOT */
  takeIn(): boolean {
    let any = false;
    for (let from = 0; from < this.shards; from++) {
      if (from === this.me) continue;
      if (this.takeStates(from)) any = true;
      if (this.takeAnswers(from)) any = true;
    }
    return any;
  }

  /* HOT */
  private takeStates(from: number): boolean {
    const ring = this.incoming[from]!;
    const shard = this.shard!;
    let out = ring[OUT]!;
    const end = Atomics.load(ring, IN);
    if (out === end) return false;
    for (let n = 0; out !== end; n++) {
      const at = RING + ((out >>> 0) % this.capacity) * this.record;
      const parent = ring[at]!;
      const step = ring[at + 2]!;
      const earlier = shard.receive(parent, ring[at + 1]!, step & ~ASK, ring, at + RECORD);
      out = (out + 1) | 0;
      // an answer may have to wait for room, and what came meanwhile is taken in then: our place must be known
      Atomics.store(ring, OUT, out);
      if (step < 0 && earlier) this.answer(from, Math.floor(parent / this.shards));
      if (n >= this.capacity) break;
    }
    this.ring(from);
    return true;
  }

  private answer(to: number, state: number): void {
    const ring = this.outgoingAnswers[to]!;
    const written = ring[IN]!;
    for (let spins = 0; ((written - Atomics.load(ring, OUT)) | 0) >= ANSWERS; spins++) {
      const bell = Atomics.load(this.control, COMMON + this.me * LINE + BELL);
      this.ring(to);
      let any = false;
      for (let from = 0; from < this.shards; from++) if (from !== this.me && this.takeAnswers(from)) any = true;
      if (!any) this.pause(spins, bell);
    }
    ring[RING + (written & (ANSWERS - 1))] = state;
    Atomics.store(ring, IN, (written + 1) | 0);
  }

  private takeAnswers(from: number): boolean {
    const ring = this.incomingAnswers[from]!;
    let out = ring[OUT]!;
    const end = Atomics.load(ring, IN);
    if (out === end) return false;
    for (; out !== end; out = (out + 1) | 0) this.shard!.refuse(ring[RING + (out & (ANSWERS - 1))]!);
    Atomics.store(ring, OUT, out);
    return true;
  }

  /** Waits until all are here. `open`: what comes meanwhile is of this level and is taken in. @throws when another thread has failed */
  barrier(open: boolean): void {
    const { control } = this;
    this.flush();
    const generation = Atomics.load(control, GENERATION);
    if (Atomics.add(control, ARRIVED, 1) + 1 === this.shards) {
      Atomics.store(control, ARRIVED, 0);
      Atomics.add(control, GENERATION, 1);
      for (let to = 0; to < this.shards; to++) this.ring(to);
    } else
      for (let spins = 0; Atomics.load(control, GENERATION) === generation; spins++) {
        const bell = Atomics.load(control, COMMON + this.me * LINE + BELL);
        if (open && this.takeIn()) continue;
        if (Atomics.load(control, GENERATION) !== generation) break;
        this.pause(spins, bell);
      }
    if (open) while (this.takeIn());
  }

  /** A little while, or until the bell rings again. */
  private pause(spins: number, bell: number): void {
    if (Atomics.load(this.control, ABORT) !== 0) throw new Error('another thread of the search has failed');
    if (spins > SPINS) Atomics.wait(this.control, COMMON + this.me * LINE + BELL, bell, 2);
  }

  get stopRequested(): boolean {
    return Atomics.load(this.control, STOP) !== 0;
  }

  showStates(states: number): void {
    Atomics.store(this.control, COMMON + this.me * LINE + STATES, states);
  }

  /** Says how the level ended here and learns how it ended everywhere. */
  agree(mine: LevelReport): LevelReport {
    const { control } = this;
    const report = REPORT + (this.level++ & 1) * REPORT_WORDS;
    const own = COMMON + this.me * LINE + report;
    control[own] = mine.next;
    control[own + 1] = mine.total;
    control[own + 2] = (mine.found ? 1 : 0) | (mine.full ? 2 : 0) | (mine.interrupted ? 4 : 0);
    this.barrier(false);
    let next = 0;
    let total = 0;
    let flags = 0;
    for (let i = 0; i < this.shards; i++) {
      const line = COMMON + i * LINE + report;
      next += control[line]!;
      total += control[line + 1]!;
      flags |= control[line + 2]!;
    }
    return { next, total, found: (flags & 1) !== 0, full: (flags & 2) !== 0, interrupted: (flags & 4) !== 0 };
  }
}
