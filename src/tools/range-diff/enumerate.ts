/** Runs two revisions on every input of the fault path and sorts the inputs by difference and cause. Nothing is sampled. */
import { historyBetween } from '../../kvm/mmu/revisions/index.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import type { EntryName } from '../fault-machine/fault-input.ts';
import { FaultMachine, INVALIDATION_KINDS, INVALIDATION_NONE } from '../fault-machine/fault-machine.ts';
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

  /** Steps of the difference that is being looked at. */
  private readonly steps: { link: number; before: number; after: number }[] = [];
  private readonly nodes = new Map<number, number>();
  private readonly causeOfNode = new Map<number, number>();

  /**
   * The class of a pair of outcomes, at one place and for codes of one kind: inputs there that begin and end alike have one cause, that of
   * the first of them, which is the one without an invalidation where that is among them.
   */
  private readonly classOfPair = new Map<number, number>();

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
    this.kinds = Int32Array.from(invalidations.map((i) => INVALIDATION_KINDS[i.kind]));
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
      let kind = '';
      for (const fault of context.faults) {
        if (fault.kind !== kind) this.classOfPair.clear();
        kind = fault.kind;
        this.runFault(
          runner,
          place,
          fault.entry,
          fault.code.lo,
          fault.code.hi,
          context.offset + place.offset + fault.offset,
        );
      }
      this.classOfPair.clear();
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
    machine.fire(entry, lo, hi, tappedA, -1, INVALIDATION_NONE, true);
    const plainA = table.number(machine.words);
    const furthestA = machine.taps.furthest;
    machine.fire(entry, lo, hi, tappedB, -1, INVALIDATION_NONE, true);
    const plainB = table.number(machine.words);
    const furthestB = machine.taps.furthest;
    let afterA = -1;
    let afterB = -1;
    let runs = 2;
    for (let n = 0; n < invalidations.length; n++) {
      const i = invalidations[n]!;
      const kind = kinds[i]!;
      let outA = plainA;
      let outB = plainB;
      if (kind !== INVALIDATION_NONE) {
        // An invalidation that the fault does not reach comes after it: the same one for all such moments.
        const lateA = momentsA[i]! > furthestA;
        if (lateA && afterA >= 0) outA = afterA;
        else {
          machine.fire(entry, lo, hi, tappedA, momentsA[i]!, kind, true);
          outA = table.number(machine.words);
          runs++;
          if (lateA) afterA = outA;
        }
        const lateB = momentsB[i]! > furthestB;
        if (lateB && afterB >= 0) outB = afterB;
        else {
          machine.fire(entry, lo, hi, tappedB, momentsB[i]!, kind, true);
          outB = table.number(machine.words);
          runs++;
          if (lateB) afterB = outB;
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
    const pair = outA * 0x1_0000 + outB;
    let found = this.classOfPair.get(pair);
    if (found === undefined) {
      found = this.classNumber(this.causeOf(runner, entry, lo, hi, i, outA, outB, level), outA, outB);
      this.classOfPair.set(pair, found);
    }
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
      machine.fire(entry, lo, hi, tapped, moment, stage !== null && moment < 0 ? INVALIDATION_NONE : kind, true);
      this.runs++;
      return table.number(machine.words);
    };
    const { steps } = this;
    steps.length = 0;
    const bisect = (low: number, before: number, high: number, after: number): void => {
      if (table.differAt(before, after) < 0) return;
      if (high === low + 1) {
        steps.push({ link: high, before, after });
        return;
      }
      const mid = (low + high) >> 1;
      const between = outcomeAt(mid);
      bisect(low, before, mid, between);
      bisect(mid, between, high, after);
    };
    bisect(-1, outA, chain.length - 1, outB);
    return this.causeOfSteps(level);
  }

  /** Number of the cause that the steps found last are. */
  private causeOfSteps(level: number): number {
    // A path through a tree of links and outcomes, from the level on: one number a node.
    let node = level;
    for (const { link, before, after } of this.steps) {
      node = this.childNode(node, link * 0x1_0000 + before);
      node = this.childNode(node, after);
    }
    const known = this.causeOfNode.get(node);
    if (known !== undefined) return known;
    const { chain, table } = this;
    const labelled = this.steps.map(({ link, before, after }) => ({ label: chain![link]!.label, before, after }));
    const main = labelled.filter((s) => table.differAt(s.before, s.after) <= level).map((s) => s.label);
    const also = labelled.map((s) => s.label).filter((label) => !main.includes(label));
    const cause = this.causeNumber({ cause: joined(main), also: joined(also), steps: labelled });
    this.causeOfNode.set(node, cause);
    return cause;
  }

  private childNode(node: number, edge: number): number {
    const key = node * 0x100_0000 + edge;
    let child = this.nodes.get(key);
    if (child === undefined) {
      child = this.nodes.size + 3;
      this.nodes.set(key, child);
    }
    return child;
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
