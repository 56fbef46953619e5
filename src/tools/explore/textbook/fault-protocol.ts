/**
 * The protocol of docs/locking.md by itself, with nothing of the MMU: vCPUs fault pages in while invalidators take them away and give the
 * frames to somebody else. It says whether the rule (remember the sequence, fetch, look again under the lock) is right, not whether the
 * code follows it; that is what the other scenes are for. `fault-protocol-promela.ts` is the same for spin, and `softkvm bench explore` runs both.
 */
import type { Actor, Footprint, Model } from '../model.ts';

export interface FaultProtocolSize {
  readonly vcpus: number;
  readonly invalidators: number;
  readonly pages: number;
  /** Invalidations that each invalidator makes, each of a page that it chooses. */
  readonly rounds: number;
  /** Whether the sequence and the count are looked at again under the lock. */
  readonly guard: boolean;
}

// Program counters. A vCPU: choose a page, remember the sequence, fetch the frame, lock, look again, map (or retry), done.
const CHOOSE = 0;
const SNAPSHOT = 1;
const FETCH = 2;
const LOCK = 3;
const CHECK = 4;
const MAP = 5;
const RETRY = 6;
const UNLOCK = 7;
const DONE = 8;
const VCPU_STAGES = ['choose-page', 'snapshot', 'fetch', 'lock', 'stale-check', 'map', 'retry', 'unlock', 'finished'];
// An invalidator: choose a page, lock, begin, zap, unlock, take the frame away, lock, end, unlock; again or done.
const END_DONE = 9;
const END_STAGES = ['choose-page', 'lock', 'begin', 'zap', 'unlock', 'new-frame', 'lock', 'end', 'unlock', 'finished'];

// Resources.
const R_LOCK = 1;
const R_SEQUENCE = 2;
const R_FRAMES = 4;
const R_MAPPED = 8;

/** Words: lock, sequence, count, frame a page, mapped frame plus 1 a page; three words an actor: program counter, page, what it remembers. */
export class FaultProtocol implements Model {
  readonly actors: readonly Actor[];
  readonly stateWords: number;
  readonly observed = R_FRAMES | R_MAPPED | R_SEQUENCE;
  readonly invariants = ['no page is mapped to a frame that it no longer owns once its invalidation has ended'];
  private readonly size: FaultProtocolSize;
  private readonly s: Int32Array;
  private readonly frames = 3;
  private readonly mapped: number;
  private readonly own: number;

  constructor(size: FaultProtocolSize) {
    this.size = size;
    const { vcpus, invalidators, pages } = size;
    this.mapped = this.frames + pages;
    this.own = this.mapped + pages;
    this.actors = Array.from({ length: vcpus + invalidators }, (_, i) => ({
      name: i < vcpus ? `vcpu${i}` : `host${i - vcpus}`,
      cpu: `CPU${i}`,
    }));
    this.stateWords = this.own + 4 * (vcpus + invalidators);
    this.s = new Int32Array(this.stateWords);
  }

  capture(into: Int32Array, at: number): void {
    const { s } = this;
    for (let i = 0; i < s.length; i++) into[at + i] = s[i]!;
  }

  restore(from: Int32Array, at: number): void {
    const { s } = this;
    for (let i = 0; i < s.length; i++) s[i] = from[at + i]!;
  }

  private at(actor: number): number {
    return this.own + 4 * actor;
  }

  private locks(actor: number, pc: number): boolean {
    return actor < this.size.vcpus ? pc === LOCK : pc === 1 || pc === 6;
  }

  private last(actor: number): number {
    return actor < this.size.vcpus ? DONE : END_DONE;
  }

  enabled(): number {
    let mask = 0;
    for (let i = 0; i < this.actors.length; i++) {
      const pc = this.s[this.at(i)]!;
      if (pc === this.last(i) || (this.s[0] !== 0 && this.locks(i, pc))) continue;
      mask |= 1 << i;
    }
    return mask;
  }

  unfinished(): number {
    let mask = 0;
    for (let i = 0; i < this.actors.length; i++) if (this.s[this.at(i)] !== this.last(i)) mask |= 1 << i;
    return mask;
  }

  choices(actor: number): number {
    return this.s[this.at(actor)] === CHOOSE ? this.size.pages : 1;
  }

  step(actor: number, choice: number): void {
    if (actor < this.size.vcpus) this.fault(this.at(actor), choice);
    else this.invalidate(this.at(actor), choice);
  }

  /** Own words: program counter, page, sequence, frame. */
  private fault(own: number, choice: number): void {
    const { s } = this;
    const page = s[own + 1]!;
    let next = s[own]! + 1;
    switch (s[own]) {
      case CHOOSE:
        s[own + 1] = choice;
        break;
      case SNAPSHOT:
        s[own + 2] = s[1]!;
        break;
      case FETCH:
        s[own + 3] = s[this.frames + page]!;
        break;
      case LOCK:
        s[0] = 1;
        break;
      case CHECK:
        if (this.size.guard && (s[2] !== 0 || s[1] !== s[own + 2])) next = RETRY;
        break;
      case MAP:
        s[this.mapped + page] = s[own + 3]! + 1;
        next = UNLOCK;
        break;
      case RETRY:
        s[0] = 0;
        s[own + 2] = 0;
        s[own + 3] = 0;
        next = SNAPSHOT;
        break;
      default:
        s[0] = 0;
        s[own + 1] = 0;
        s[own + 2] = 0;
        s[own + 3] = 0;
    }
    s[own] = next;
  }

  /** Own words: program counter, page, rounds done. */
  private invalidate(own: number, choice: number): void {
    const { s } = this;
    const page = s[own + 1]!;
    let next = s[own]! + 1;
    switch (s[own]) {
      case 0:
        s[own + 1] = choice;
        break;
      case 1:
      case 6:
        s[0] = 1;
        break;
      case 2:
        s[2] = s[2]! + 1;
        break;
      case 3:
        s[this.mapped + page] = 0;
        break;
      case 5:
        s[this.frames + page] = s[this.frames + page]! + 1;
        break;
      case 7:
        s[1] = s[1]! + 1;
        s[2] = s[2]! - 1;
        break;
      case 8:
        s[0] = 0;
        s[own + 1] = 0;
        s[own + 2] = s[own + 2]! + 1;
        if (s[own + 2]! < this.size.rounds) next = 0;
        break;
      default:
        s[0] = 0;
    }
    s[own] = next;
  }

  /** While an invalidation runs a stale mapping may be on its way out; with none running there is none. */
  violation(): number {
    const { s } = this;
    if (s[2] !== 0) return 0;
    for (let page = 0; page < this.size.pages; page++) {
      const frame = s[this.mapped + page]!;
      if (frame !== 0 && frame !== s[this.frames + page]! + 1) return 1;
    }
    return 0;
  }

  footprint(actor: number, out: Footprint): void {
    const pc = this.s[this.at(actor)]!;
    out.reads = 0;
    out.writes = 0;
    if (actor < this.size.vcpus) {
      if (pc === SNAPSHOT || pc === CHECK) out.reads = R_SEQUENCE;
      else if (pc === FETCH) out.reads = R_FRAMES;
      else if (pc === MAP) out.writes = R_MAPPED;
      else if (pc !== CHOOSE && pc !== DONE) lock(out);
    } else if (pc === 2 || pc === 7) {
      out.reads = R_SEQUENCE;
      out.writes = R_SEQUENCE;
    } else if (pc === 3) out.writes = R_MAPPED;
    else if (pc === 5) {
      out.reads = R_FRAMES;
      out.writes = R_FRAMES;
    } else if (pc !== 0 && pc !== END_DONE) lock(out);
  }

  restFootprint(actor: number, out: Footprint): void {
    const pc = this.s[this.at(actor)]!;
    out.reads = 0;
    out.writes = 0;
    if (pc === this.last(actor)) return;
    lock(out);
    if (actor < this.size.vcpus) {
      if (pc === UNLOCK) return;
      out.reads |= R_SEQUENCE | R_FRAMES;
      out.writes |= R_MAPPED;
    } else {
      out.reads |= R_SEQUENCE | R_FRAMES;
      out.writes |= R_SEQUENCE | R_FRAMES | R_MAPPED;
    }
  }

  stageName(actor: number): string {
    return (actor < this.size.vcpus ? VCPU_STAGES : END_STAGES)[this.s[this.at(actor)]!]!;
  }

  violationText(n: number): string {
    return this.invariants[n - 1]!;
  }

  describe(): readonly string[] {
    const { s } = this;
    const lines = [`lock ${s[0] === 0 ? 'free' : 'held'}`, `sequence ${s[1]}`, `invalidations in progress ${s[2]}`];
    for (let page = 0; page < this.size.pages; page++) {
      const frame = s[this.mapped + page]!;
      lines.push(
        `page ${page}: owns frame ${s[this.frames + page]}, ${frame === 0 ? 'not mapped' : `mapped to frame ${frame - 1}`}`,
      );
    }
    return lines;
  }
}

function lock(out: Footprint): void {
  out.reads |= R_LOCK;
  out.writes |= R_LOCK;
}
