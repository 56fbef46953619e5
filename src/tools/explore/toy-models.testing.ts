/** Small models to explore: programs over shared variables, from a list of instructions, and the well-known ones written in it. */
import type { Actor, Footprint, Model } from './model.ts';

/** One atomic step of a program. Variables are numbers; `to` is where it goes on, the next instruction when absent. */
export type Op =
  | { readonly op: 'set'; readonly v: number; readonly to?: number; readonly value: number }
  | { readonly op: 'add'; readonly v: number; readonly to?: number; readonly value: number; readonly mod?: number }
  /** Remembers a variable in the actor's own register. */
  | { readonly op: 'load'; readonly v: number; readonly to?: number }
  /** Stores the register plus `value`. */
  | { readonly op: 'store'; readonly v: number; readonly to?: number; readonly value: number }
  /** Waits until a variable has a value, then sets it to another. */
  | {
      readonly op: 'await';
      readonly v: number;
      readonly value: number;
      readonly becomes?: number;
      readonly to?: number;
    }
  /** Waits until one of two variables has its value. */
  | {
      readonly op: 'either';
      readonly v: number;
      readonly value: number;
      readonly w: number;
      readonly other: number;
      readonly to?: number;
    }
  /** Goes to `to` when the variable has the value, on otherwise. */
  | { readonly op: 'branch'; readonly v: number; readonly value: number; readonly to: number }
  /** Sets the variable to any of 0 to value - 1. */
  | { readonly op: 'any'; readonly v: number; readonly value: number; readonly to?: number }
  | { readonly op: 'skip'; readonly to?: number };

export interface Toy {
  readonly programs: readonly (readonly Op[])[];
  readonly variables: readonly number[];
  /** The invariants: a number of the violated one, 0 for none, from the variables. */
  readonly violation: (variables: Int32Array) => number;
  /** Bits of the variables that `violation` looks at. */
  readonly observed: number;
  readonly invariants: readonly string[];
  readonly names?: readonly string[];
}

/** Words: the variables, then a program counter and a register an actor. */
export class ToyModel implements Model {
  readonly actors: readonly Actor[];
  readonly stateWords: number;
  readonly observed: number;
  readonly invariants: readonly string[];
  private readonly toy: Toy;
  private readonly state: Int32Array;
  private readonly nv: number;

  constructor(toy: Toy) {
    this.toy = toy;
    this.nv = toy.variables.length;
    this.actors = toy.programs.map((_, i) => ({ name: toy.names?.[i] ?? `actor${i}`, cpu: `CPU${i}` }));
    this.stateWords = this.nv + 2 * toy.programs.length;
    this.observed = toy.observed;
    this.invariants = toy.invariants;
    this.state = new Int32Array(this.stateWords);
    this.reset();
  }

  reset(): void {
    this.state.fill(0);
    this.state.set(this.toy.variables);
  }

  capture(into: Int32Array, at: number): void {
    for (let i = 0; i < this.stateWords; i++) into[at + i] = this.state[i]!;
  }

  restore(from: Int32Array, at: number): void {
    for (let i = 0; i < this.stateWords; i++) this.state[i] = from[at + i]!;
  }

  private next(actor: number): Op | undefined {
    return this.toy.programs[actor]![this.state[this.nv + 2 * actor]!];
  }

  enabled(): number {
    let mask = 0;
    for (let i = 0; i < this.actors.length; i++) {
      const op = this.next(i);
      if (op === undefined) continue;
      if (op.op === 'await' && this.state[op.v] !== op.value) continue;
      if (op.op === 'either' && this.state[op.v] !== op.value && this.state[op.w] !== op.other) continue;
      mask |= 1 << i;
    }
    return mask;
  }

  unfinished(): number {
    let mask = 0;
    for (let i = 0; i < this.actors.length; i++) if (this.next(i) !== undefined) mask |= 1 << i;
    return mask;
  }

  choices(actor: number): number {
    const op = this.next(actor)!;
    return op.op === 'any' ? op.value : 1;
  }

  step(actor: number, choice: number): void {
    const { state } = this;
    const pc = this.nv + 2 * actor;
    const op = this.next(actor)!;
    let to = op.op === 'branch' ? state[pc]! + 1 : (op.to ?? state[pc]! + 1);
    if (op.op === 'set') state[op.v] = op.value;
    else if (op.op === 'add') state[op.v] = (state[op.v]! + op.value) % (op.mod ?? 1 << 30);
    else if (op.op === 'load') state[pc + 1] = state[op.v]!;
    else if (op.op === 'store') {
      state[op.v] = state[pc + 1]! + op.value;
      state[pc + 1] = 0;
    } else if (op.op === 'await') state[op.v] = op.becomes ?? op.value;
    else if (op.op === 'any') state[op.v] = choice;
    else if (op.op === 'branch' && state[op.v] === op.value) to = op.to;
    state[pc] = to;
    if (to >= this.toy.programs[actor]!.length) state[pc + 1] = 0;
  }

  violation(): number {
    return this.toy.violation(this.state);
  }

  footprint(actor: number, out: Footprint): void {
    out.reads = 0;
    out.writes = 0;
    const op = this.next(actor);
    if (op !== undefined) touch(op, out);
  }

  restFootprint(actor: number, out: Footprint): void {
    out.reads = 0;
    out.writes = 0;
    const program = this.toy.programs[actor]!;
    const seen = new Set<number>();
    const todo = [this.state[this.nv + 2 * actor]!];
    for (let pc = todo.pop(); pc !== undefined; pc = todo.pop()) {
      const op = program[pc];
      if (op === undefined || seen.has(pc)) continue;
      seen.add(pc);
      touch(op, out);
      if (op.op === 'branch') todo.push(op.to, pc + 1);
      else todo.push(op.to ?? pc + 1);
    }
  }

  stageName(actor: number): string {
    const op = this.next(actor);
    return op === undefined ? 'finished' : `${op.op}${'v' in op ? ` v${op.v}` : ''}`;
  }

  violationText(n: number): string {
    return this.invariants[n - 1]!;
  }

  describe(): readonly string[] {
    return Array.from(this.state, (value, i) => (i < this.nv ? `v${i} = ${value}` : `word ${i} = ${value}`));
  }
}

function touch(op: Op, out: Footprint): void {
  if (op.op === 'skip') return;
  const bit = 1 << op.v;
  if (op.op === 'set' || op.op === 'any' || op.op === 'store') out.writes |= bit;
  else if (op.op === 'add') {
    out.reads |= bit;
    out.writes |= bit;
  } else {
    out.reads |= bit;
    if (op.op === 'either') out.reads |= 1 << op.w;
    if (op.op === 'await' && op.becomes !== undefined) out.writes |= bit;
  }
}

const none = { observed: 0, violation: () => 0, invariants: ['nothing is checked'] };

/** Two processes, one critical section: variables flag0, flag1, turn, inside. Without the guard nobody looks at the other's flag. */
export function peterson(guard: boolean, rounds = 1): Toy {
  const program = (me: number): Op[] => {
    const ops: Op[] = [];
    for (let r = 0; r < rounds; r++)
      ops.push(
        { op: 'set', v: me, value: 1 },
        { op: 'set', v: 2, value: 1 - me },
        ...(guard ? [{ op: 'either', v: 1 - me, value: 0, w: 2, other: me } as const] : []),
        { op: 'add', v: 3, value: 1 },
        { op: 'add', v: 3, value: -1 },
        { op: 'set', v: me, value: 0 },
      );
    return ops;
  };
  return {
    programs: [program(0), program(1)],
    variables: [0, 0, 0, 0],
    violation: (v) => (v[3]! > 1 ? 1 : 0),
    observed: 8,
    invariants: ['at most one is inside'],
    names: ['left', 'right'],
  };
}

/** `n` philosophers; the last takes the other fork first when `polite`. */
export function philosophers(n: number, polite: boolean, rounds = 1): Toy {
  const programs = Array.from({ length: n }, (_, i) => {
    const forks = polite && i === n - 1 ? [0, i] : [i, (i + 1) % n];
    const ops: Op[] = [];
    for (let r = 0; r < rounds; r++)
      ops.push(
        { op: 'await', v: forks[0]!, value: 0, becomes: 1 },
        { op: 'await', v: forks[1]!, value: 0, becomes: 1 },
        { op: 'set', v: forks[0]!, value: 0 },
        { op: 'set', v: forks[1]!, value: 0 },
      );
    return ops;
  });
  return { ...none, programs, variables: Array.from({ length: n }, () => 0) };
}

/** `n` actors add 1 each, `times` times, in two steps: an update gets lost. The last variable counts who is ready. */
export function lostUpdate(n: number, times = 1): Toy {
  const ops: Op[] = [];
  for (let t = 0; t < times; t++)
    ops.push({ op: 'load', v: 0 }, { op: 'store', v: 0, value: 1 }, { op: 'add', v: 1, value: 1 });
  return {
    programs: Array.from({ length: n }, () => ops),
    variables: [0, 0],
    violation: (v) => (v[1] === n * times && v[0] !== n * times ? 1 : 0),
    observed: 3,
    invariants: ['no update is lost'],
  };
}

/** One retries until the other has set a flag; when the other may give up instead, it retries for ever. */
export function retryForever(givesUp: boolean): Toy {
  return {
    ...none,
    programs: [
      [
        { op: 'load', v: 1 },
        { op: 'branch', v: 0, value: 0, to: 0 },
      ],
      [
        { op: 'any', v: 2, value: givesUp ? 2 : 1 },
        { op: 'branch', v: 2, value: 1, to: 3 },
        { op: 'set', v: 0, value: 1 },
      ],
    ],
    variables: [0, 0, 0],
  };
}

/** `n` actors count to `m` each, in variables of their own: (m + 1)^n states, one way each with the reduction. */
export function counters(n: number, m: number): Toy {
  return {
    ...none,
    programs: Array.from({ length: n }, (_, i) =>
      Array.from({ length: m }, () => ({ op: 'add', v: i, value: 1 }) as const),
    ),
    variables: Array.from({ length: n }, () => 0),
  };
}
