/** Equality over the whole input space, for the patches that change no answer, or only the one that their message announces. */
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import type { FaultInput } from '../fault-machine/fault-input.ts';
import { FaultMachine } from '../fault-machine/fault-machine.ts';
import { type Outcome, outcomeDifferences } from '../fault-machine/outcome.ts';
import { enumerate } from '../range-diff/enumerate.ts';
import { type Dimension, EQUAL, INVALID_INPUT } from '../range-diff/space-result.ts';
import type { EqualityResult, SpaceOptions } from './demonstration.ts';
import { movedNames } from './side-differences.ts';

/** Of one class of outcomes: what of it guest or VMM can see, or KVM keeps. */
type Visible = 'nothing' | 'field' | 'entry' | 'more';

interface Comparison extends Omit<EqualityResult, 'words'> {
  /** Inputs that differ in fields of the fault object alone. */
  readonly fields: number;
  /** Inputs where the guest has to fault again on one side, because an invalidation was noticed, and then gets the other side's answer. */
  readonly retries: number;
  /** Stages that the patch moves: an invalidation just before one is another moment on either side, and is not compared. */
  readonly moved: ReadonlySet<string>;
}

/** Compares exits and KVM's state for every input; `announced` says which differences the patch's message speaks of. */
function compareSpace(
  before: Revision,
  after: Revision,
  announced: (input: FaultInput) => boolean,
  options: SpaceOptions,
): Comparison {
  const space = enumerate(before, after, options);
  const visible = space.classes.map((found, c) => (c === EQUAL ? 'nothing' : visibleOf(found.before, found.after)));
  const stagesBefore = before.stages.map((s) => s.name);
  const stagesAfter = after.stages.map((s) => s.name);
  const moved = movedNames(stagesBefore, stagesAfter);
  const { moments, stride } = momentsOf(space.dims);
  const counts = { inputs: 0, different: 0, announced: 0, fields: 0, retries: 0 };
  const settled = new SettledAnswers();
  space.classOf.forEach((c, index) => {
    if (c === INVALID_INPUT) return;
    const stage = moments[Math.floor(index / stride) % moments.length]!;
    if (stage !== null && moved.has(stage)) return;
    counts.inputs++;
    if (c === EQUAL) return;
    const input = space.inputAt(index);
    const found = space.classes[c]!;
    const what = visible[c]!;
    if (what === 'nothing') return;
    const comesLater =
      what === 'entry' &&
      stage !== null &&
      reaches(found.before, stagesBefore, stage) !== reaches(found.after, stagesAfter, stage);
    if (what === 'field' || comesLater) counts.fields++;
    else if (announced(input)) counts.announced++;
    else if (stage !== null && settled.areEqual(input, found.before, before, found.after, after)) counts.retries++;
    else counts.different++;
  });
  const { different } = counts;
  return { ...counts, different: different + counts.announced, equal: different === 0, moved };
}

/** Stages that send the guest back because of an invalidation. */
const INVALIDATION_CHECKS: ReadonlySet<string> = new Set([
  'invalidation-precheck',
  'invalidation-recheck',
  'stale-check',
]);

function isSentBack({ decidedBy, ret }: Outcome): boolean {
  return ret === 'RET_PF_RETRY' && INVALIDATION_CHECKS.has(decidedBy);
}

/** What a guest that is sent back gets when it faults again: nothing is invalidated any more, and what was mapped is gone. */
class SettledAnswers {
  private readonly machines = new Map<string, FaultMachine>();
  private readonly answers = new Map<string, string>();

  /** One side sends the guest back, and its next try leaves as the other side does at once. */
  areEqual(input: FaultInput, a: Outcome, before: Revision, b: Outcome, after: Revision): boolean {
    if (isSentBack(a) === isSentBack(b)) return false;
    return isSentBack(a) ? this.answer(input, before) === exitText(b) : this.answer(input, after) === exitText(a);
  }

  private answer(input: FaultInput, revision: Revision): string {
    const isMmio = input.spte === 'mmio' || input.spte === 'mmio-stale';
    const spte = isMmio ? input.spte : 'absent';
    const again: FaultInput = { ...input, spte, invalidation: { kind: 'none' } };
    const key = `${revision.name} ${Object.values(again).slice(0, -1).join(' ')}`;
    let answer = this.answers.get(key);
    if (answer === undefined) {
      answer = exitText(this.machineFor(again).run(again, revision));
      this.answers.set(key, answer);
    }
    return answer;
  }

  private machineFor(input: FaultInput): FaultMachine {
    const { hardware, vmType, paging, nested, mmioCaching } = input;
    const key = [hardware, vmType, paging, nested, mmioCaching].join(' ');
    let machine = this.machines.get(key);
    if (machine === undefined) {
      machine = new FaultMachine(input);
      this.machines.set(key, machine);
    }
    return machine;
  }
}

/** What userspace and guest see of an outcome. */
function exitText({ verdict, exit, emulated, signals }: Outcome): string {
  return JSON.stringify([verdict, exit, emulated, signals]);
}

/** Stages before which each value of the space's invalidation dimension puts an invalidation, null for none; and that dimension's stride. */
function momentsOf(dims: readonly Dimension[]): { moments: (string | null)[]; stride: number } {
  const at = dims.findIndex((dim) => dim.name === 'invalidation');
  const moments = dims[at]!.values.map((value) => value.split('=')[1] ?? null);
  return { moments, stride: dims.slice(at + 1).reduce((product, dim) => product * dim.values.length, 1) };
}

function visibleOf(before: Outcome, after: Outcome): Visible {
  const differences = outcomeDifferences(before, after);
  const seen = differences.filter(({ level }) => level === 'exit' || level === 'state');
  if (seen.some(({ field }) => field !== 'spteAfter')) return 'more';
  if (seen.length > 0) return 'entry';
  return differences.some(({ level }) => level === 'field') ? 'field' : 'nothing';
}

/** A fault that has left before `stage` leaves the entry to an invalidation that comes after it: the entry goes all the same. */
function reaches(outcome: Outcome, stages: readonly string[], stage: string): boolean {
  const decided = stages.indexOf(outcome.decidedBy);
  return decided >= stages.indexOf(stage);
}

function count(n: number): string {
  return n.toLocaleString('en-US');
}

function scopeWords(moved: ReadonlySet<string>): string {
  const left = [...moved].join(', ');
  return `the whole input space of the fault path, nothing sampled${left === '' ? '' : ` (but for invalidations just before ${left}, which the patch moves)`}`;
}

/** Row 14: every input leaves the same way and leaves the same state behind. */
export function onlyFieldsDiffer(before: Revision, after: Revision, options: SpaceOptions = {}): EqualityResult {
  const { fields, retries, moved, ...result } = compareSpace(before, after, () => false, options);
  return {
    ...result,
    words: `${scopeWords(moved)}: exits and state are the same; ${count(fields)} differ in fields of the fault object that nothing reads, and ${count(retries)} in whether the guest faults once more because of an invalidation (the second snapshot)`,
  };
}

/** KVM's APIC access page while something of its range is being invalidated, where no page of the host is needed. */
function isApicPageUnderInvalidation(input: FaultInput): boolean {
  const hidden = input.slot === 'apic-inhibited' || (input.slot === 'apic' && input.nested);
  return hidden && input.invalidation.kind !== 'none';
}

/** Row 13: the only difference is the one that its message announces. */
export function onlyTheApicPageDiffers(before: Revision, after: Revision, options: SpaceOptions = {}): EqualityResult {
  const { retries, moved, ...result } = compareSpace(before, after, isApicPageUnderInvalidation, options);
  return {
    inputs: result.inputs,
    different: result.different,
    announced: result.announced,
    equal: result.equal,
    words: `${scopeWords(moved)}: what differs is the APIC access page during an invalidation of its range, which the message of the patch announces; ${count(retries)} differ in whether the guest faults once more because of an invalidation (the pre-check comes later)`,
  };
}
