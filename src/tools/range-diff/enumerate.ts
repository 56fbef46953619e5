/** Runs two revisions on every input of the fault path and sorts the inputs by difference and cause. Nothing is sampled. */
import { historyBetween } from '../../kvm/mmu/revisions/index.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import type { EntryName } from '../fault-machine/fault-input.ts';
import {
  FaultMachine,
  INVALIDATION_BEGUN_AT,
  INVALIDATION_DONE_AT,
  INVALIDATION_IN_PROGRESS,
  INVALIDATION_NONE,
} from '../fault-machine/fault-machine.ts';
import type { FaultContext } from '../fault-machine/machine-vm.ts';
import { names } from '../fault-machine/names.ts';
import type { Outcome } from '../fault-machine/outcome.ts';
import type { TappedRevision } from '../fault-machine/tapped-revision.ts';
import { OutcomeTable } from './outcome-table.ts';
import { Space, type SpaceContext, type SpacePlace } from './space.ts';
import { type DifferenceClass, EQUAL, INVALID_INPUT, type SpaceResult } from './space-result.ts';

export interface EnumerateOptions {
  /** Told now and then how many inputs of how many are done. */
  readonly onProgress?: (done: number, all: number) => void;
  /** Leaves out the other contexts. */
  readonly only?: (context: FaultContext) => boolean;
}

/** Both revisions on all inputs. @throws StageError when a stage throws */
export function enumerate(a: Revision, b: Revision, options: EnumerateOptions = {}): SpaceResult<Outcome> {
  return new Enumeration(a, b, options).result();
}

/** A revision on the way from one to the other, and what changed to get there. */
interface ChainLink {
  readonly revision: Revision;
  readonly label: string;
}

const KINDS = {
  none: INVALIDATION_NONE,
  'in-progress': INVALIDATION_IN_PROGRESS,
  'done-at': INVALIDATION_DONE_AT,
  'begun-at': INVALIDATION_BEGUN_AT,
} as const;

class Enumeration {
  private readonly a: Revision;
  private readonly b: Revision;
  private readonly options: EnumerateOptions;
  private readonly space: Space;
  private readonly table = new OutcomeTable();
  private readonly classOf: Uint16Array;
  private readonly classes: DifferenceClass<Outcome>[] = [];
  private readonly classNumbers = new Map<number, number>();
  private readonly causes: Cause[] = [];
  private readonly causeNumbers = new Map<string, number>();
  private readonly chain: readonly ChainLink[] | null;
  private runs = 0;
  private done = 0;

  // By position in space.invalidations: kind, and position in either list of stages (-1: no stage).
  private readonly kinds: Int32Array;
  private readonly momentsA: Int32Array;
  private readonly momentsB: Int32Array;

  // Of one place and code: what was decided for a pair of outcomes.
  private readonly pairA: number[] = [];
  private readonly pairB: number[] = [];
  private readonly pairClass: number[] = [];

  constructor(a: Revision, b: Revision, options: EnumerateOptions) {
    this.a = a;
    this.b = b;
    this.options = options;
    this.space = new Space(a, b, options.only);
    this.classOf = new Uint16Array(this.space.size).fill(INVALID_INPUT);
    const history = historyBetween(a, b);
    this.chain = history === null ? null : history.map(({ revision, label }) => ({ revision, label }));
    const { invalidations } = this.space;
    const at = (revision: Revision): number[] =>
      invalidations.map((i) => ('stage' in i ? revision.stages.findIndex((s) => s.name === i.stage) : -1));
    this.kinds = Int32Array.from(invalidations.map((i) => KINDS[i.kind]));
    this.momentsA = Int32Array.from(at(a));
    this.momentsB = Int32Array.from(at(b));
    const nobody = { cause: '', steps: [], before: null as never, after: null as never };
    this.classes.push(nobody);
  }

  result(): SpaceResult<Outcome> {
    const start = performance.now();
    for (const context of this.space.contexts) this.runContext(context);
    return {
      dims: this.space.dims,
      classOf: this.classOf,
      classes: this.classes,
      inputs: this.done,
      runs: this.runs,
      seconds: (performance.now() - start) / 1000,
      excluded: this.space.excluded,
      inputAt: (index) => this.space.inputAt(index),
    };
  }

  private runContext(context: SpaceContext): void {
    const machine = new FaultMachine(context.context);
    const runner = new ContextRunner(machine, this.a, this.b, this.chain);
    for (const place of context.places) {
      machine.load(place.slot, place.attribute, place.backing, place.spte);
      for (const fault of context.faults) {
        this.runFault(
          runner,
          place,
          fault.entry,
          fault.code.lo,
          fault.code.hi,
          context.offset + place.offset + fault.offset,
        );
      }
      this.options.onProgress?.(this.done, this.space.inputs);
    }
    machine.close();
  }

  /** One code at one place, with every invalidation. HOT */
  private runFault(
    runner: ContextRunner,
    place: SpacePlace,
    entry: EntryName,
    lo: number,
    hi: number,
    offset: number,
  ): void {
    const { machine, tappedA, tappedB } = runner;
    const { table, classOf, kinds, momentsA, momentsB } = this;
    const { invalidations } = place;
    this.pairA.length = 0;
    this.pairB.length = 0;
    this.pairClass.length = 0;
    machine.fire(entry, lo, hi, tappedA, -1, INVALIDATION_NONE);
    const plainA = table.number(machine.words);
    const furthestA = machine.taps.furthest;
    machine.fire(entry, lo, hi, tappedB, -1, INVALIDATION_NONE);
    const plainB = table.number(machine.words);
    const furthestB = machine.taps.furthest;
    let runs = 2;
    for (let n = 0; n < invalidations.length; n++) {
      const i = invalidations[n]!;
      const kind = kinds[i]!;
      let outA = plainA;
      let outB = plainB;
      if (kind !== INVALIDATION_NONE) {
        // A moment that the fault does not reach changes nothing: the run would be the same.
        if (momentsA[i]! <= furthestA) {
          machine.fire(entry, lo, hi, tappedA, momentsA[i]!, kind);
          outA = table.number(machine.words);
          runs++;
        }
        if (momentsB[i]! <= furthestB) {
          machine.fire(entry, lo, hi, tappedB, momentsB[i]!, kind);
          outB = table.number(machine.words);
          runs++;
        }
      }
      classOf[offset + i] = outA === outB ? EQUAL : this.classFor(runner, entry, lo, hi, i, outA, outB);
    }
    this.runs += runs;
    this.done += invalidations.length;
  }

  private classFor(
    runner: ContextRunner,
    entry: EntryName,
    lo: number,
    hi: number,
    i: number,
    outA: number,
    outB: number,
  ): number {
    const level = this.table.differAt(outA, outB);
    if (level < 0) return EQUAL;
    const { pairA, pairB, pairClass } = this;
    for (let k = 0; k < pairA.length; k++) if (pairA[k] === outA && pairB[k] === outB) return pairClass[k]!;
    const cause = this.causeOf(runner, entry, lo, hi, i, outA, outB, level);
    const found = this.classNumber(cause, outA, outB);
    pairA.push(outA);
    pairB.push(outB);
    pairClass.push(found);
    return found;
  }

  private classNumber(cause: number, outA: number, outB: number): number {
    const key = (cause * 0x10000 + outA) * 0x10000 + outB;
    const known = this.classNumbers.get(key);
    if (known !== undefined) return known;
    const { steps, ...labels } = this.causes[cause]!;
    const made = this.classes.push({
      ...labels,
      steps: steps.map((s) => ({
        label: s.label,
        before: this.table.outcome(s.before),
        after: this.table.outcome(s.after),
      })),
      before: this.table.outcome(outA),
      after: this.table.outcome(outB),
    });
    if (made >= INVALID_INPUT) throw new Error('more kinds of differences than can be numbered');
    this.classNumbers.set(key, made - 1);
    return made - 1;
  }

  /** Number of the cause: the steps at which the outcome changes, or the stage at which the two part. */
  private causeOf(
    runner: ContextRunner,
    entry: EntryName,
    lo: number,
    hi: number,
    i: number,
    outA: number,
    outB: number,
    level: number,
  ): number {
    const { chain, table } = this;
    if (chain === null) return this.causeNumber({ cause: this.stageOf(runner, outA, outB), also: '', steps: [] });
    const invalidation = this.space.invalidations[i]!;
    const stage = 'stage' in invalidation ? invalidation.stage : null;
    const kind = this.kinds[i]!;
    const outcomeAt = (n: number): number => {
      const tapped = runner.link(n);
      const moment = stage === null ? -1 : tapped.names.indexOf(stage);
      const { machine } = runner;
      machine.fire(entry, lo, hi, tapped, moment, stage !== null && moment < 0 ? INVALIDATION_NONE : kind);
      this.runs++;
      return table.number(machine.words);
    };
    const main: string[] = [];
    const also: string[] = [];
    const steps: CauseStep[] = [];
    const bisect = (low: number, before: number, high: number, after: number): void => {
      const differs = table.differAt(before, after);
      if (differs < 0) return;
      if (high === low + 1) {
        const { label } = chain[high]!;
        (differs <= level ? main : also).push(label);
        steps.push({ label, before, after });
        return;
      }
      const mid = (low + high) >> 1;
      const between = outcomeAt(mid);
      bisect(low, before, mid, between);
      bisect(mid, between, high, after);
    };
    bisect(-1, outA, chain.length - 1, outB);
    return this.causeNumber({
      cause: joined(main),
      also: joined(also.filter((label) => !main.includes(label))),
      steps,
    });
  }

  /** The stage in which the two disagree first: what decided one of them and was passed by the other. */
  private stageOf(runner: ContextRunner, outA: number, outB: number): string {
    const a = this.table.decidedBy(outA);
    const b = this.table.decidedBy(outB);
    if (a < 0 || b < 0) return 'stage reserved-bits';
    const { names: inB } = runner.tappedB;
    const at = inB.indexOf(names.stageName(a));
    const passed = at >= 0 && at < inB.indexOf(names.stageName(b));
    return `stage ${names.stageName(passed ? a : b)}`;
  }

  private causeNumber(cause: Cause): number {
    const key = `${cause.cause};${cause.also};${cause.steps.map((s) => `${s.before} ${s.after}`).join()}`;
    const known = this.causeNumbers.get(key);
    if (known !== undefined) return known;
    this.causeNumbers.set(key, this.causes.length);
    return this.causes.push(cause) - 1;
  }
}

/** A step at which the outcome changes: outcomes by number. */
interface CauseStep {
  readonly label: string;
  readonly before: number;
  readonly after: number;
}

interface Cause {
  readonly cause: string;
  readonly also: string;
  readonly steps: readonly CauseStep[];
}

function joined(labels: readonly string[]): string {
  return [...new Set(labels)].join(', ');
}

/** One machine and the revisions as it runs them. */
class ContextRunner {
  readonly machine: FaultMachine;
  readonly tappedA: TappedRevision;
  readonly tappedB: TappedRevision;
  private readonly chain: readonly ChainLink[] | null;

  constructor(machine: FaultMachine, a: Revision, b: Revision, chain: readonly ChainLink[] | null) {
    this.machine = machine;
    this.tappedA = machine.tap(a);
    this.tappedB = machine.tap(b);
    this.chain = chain;
  }

  link(n: number): TappedRevision {
    return this.machine.tap(this.chain![n]!.revision);
  }
}
