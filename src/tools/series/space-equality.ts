/** Equality over the whole input space, for the patches that change no answer, or only the one that their message announces. */
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import type { FaultInput } from '../fault-machine/fault-input.ts';
import { FaultMachine } from '../fault-machine/fault-machine.ts';
import type { Outcome } from '../fault-machine/outcome.ts';
import { INVALIDATION_CHECKS } from '../fault-machine/tapped-revision.ts';
import { enumerate } from '../range-diff/enumerate.ts';
import { countClasses, levelOf } from '../range-diff/group.ts';
import { EQUAL, INVALID_INPUT, type SpaceResult } from '../range-diff/space-result.ts';
import type { EqualityResult, SpaceOptions } from './demonstration.ts';

const SCOPE =
  'the whole input space of the fault path, nothing sampled, with invalidations at every moment that both sides have';

/** By class: its outcomes differ in more than fields of the fault object. */
function visibleClasses({ classes }: SpaceResult<Outcome>): Uint8Array {
  const visible = new Uint8Array(INVALID_INPUT + 1);
  for (const [n, c] of classes.entries()) if (n !== EQUAL && levelOf(c.before, c.after) !== 'field') visible[n] = 1;
  return visible;
}

function count(n: number): string {
  return n.toLocaleString('en-US');
}

/** Row 14: every input leaves the same way and leaves the same state behind. */
export function onlyFieldsDiffer(before: Revision, after: Revision, options: SpaceOptions = {}): EqualityResult {
  const space = enumerate(before, after, options);
  const visible = visibleClasses(space);
  let fields = 0;
  let different = 0;
  for (const [n, inputs] of countClasses(space.classOf, [false]).counts.entries()) {
    if (visible[n] === 1) different += inputs;
    else if (n !== EQUAL) fields += inputs;
  }
  return {
    inputs: space.inputs,
    different,
    announced: 0,
    equal: different === 0,
    words: `${SCOPE}: exits and state are the same; ${count(fields)} differ in fields of the fault object that nothing reads`,
  };
}

/** Row 13: the only difference is the one that its message announces. */
export function onlyTheApicPageDiffers(before: Revision, after: Revision, options: SpaceOptions = {}): EqualityResult {
  const space = enumerate(before, after, options);
  const visible = visibleClasses(space);
  const { classOf, classes } = space;
  const settled = new SettledAnswers();
  let announced = 0;
  let retries = 0;
  let others = 0;
  for (let index = 0; index < classOf.length; index++) {
    const c = classOf[index]!;
    if (visible[c] === 0) continue;
    const found = classes[c]!;
    const input = space.inputAt(index);
    if (isApicPageUnderInvalidation(input)) announced++;
    else if (settled.areEqual(input, found.before, before, found.after, after)) retries++;
    else others++;
  }
  settled.close();
  return {
    inputs: space.inputs,
    different: announced + others,
    announced,
    equal: others === 0,
    words: `${SCOPE}: what differs is the APIC access page during an invalidation of its range, which the message of the patch announces; for ${count(retries)} the pre-check, which comes later, notices an invalidation that has begun, and the guest gets the same answer when that has ended`,
  };
}

/** KVM's APIC access page while something of its range is being invalidated, where no page of the host is needed. */
function isApicPageUnderInvalidation(input: FaultInput): boolean {
  const hidden = input.slot === 'apic-inhibited' || (input.slot === 'apic' && input.nested);
  return hidden && input.invalidation.kind !== 'none';
}

function isSentBack({ decidedBy, ret }: Outcome): boolean {
  return ret === 'RET_PF_RETRY' && INVALIDATION_CHECKS.has(decidedBy);
}

/** What a guest gets that is sent back until an invalidation has ended: the enumeration leaves it in progress. */
class SettledAnswers {
  /** Of the context that was asked for last: inputs come context by context. */
  private machine: FaultMachine | null = null;
  private context = '';
  private readonly answers = new Map<string, string>();

  /** One side sends the guest back, and leaves in the end as the other does at once. */
  areEqual(input: FaultInput, a: Outcome, before: Revision, b: Outcome, after: Revision): boolean {
    if (input.invalidation.kind !== 'begun-at' || isSentBack(a) === isSentBack(b)) return false;
    return isSentBack(a) ? this.answer(input, before) === exitText(b) : this.answer(input, after) === exitText(a);
  }

  close(): void {
    this.machine?.close();
  }

  private answer(input: FaultInput, revision: Revision): string {
    const isMmio = input.spte === 'mmio' || input.spte === 'mmio-stale';
    const again: FaultInput = { ...input, spte: isMmio ? input.spte : 'absent', invalidation: { kind: 'none' } };
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
    const context = [hardware, vmType, paging, nested, mmioCaching].join(' ');
    if (this.machine === null || context !== this.context) {
      this.machine?.close();
      this.machine = new FaultMachine(input);
      this.context = context;
      this.answers.clear();
    }
    return this.machine;
  }
}

/** What userspace and guest see of an outcome. */
function exitText({ verdict, exit, emulated, signals }: Outcome): string {
  return JSON.stringify([verdict, exit, emulated, signals]);
}
