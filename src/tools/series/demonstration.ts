/** What it takes to show one patch of the series at work: a setting, an input, and what must be so after the patch and was not before. */
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import type { FaultInput } from '../fault-machine/fault-input.ts';
import type { Outcome } from '../fault-machine/outcome.ts';
import type { EnumerateOptions } from '../range-diff/enumerate.ts';

/** One stage's answer. */
export interface StageView {
  readonly name: string;
  readonly kvmFunction: string;
  /** `RET_PF_CONTINUE` and so on, or the name of an errno. */
  readonly verdict: string;
  readonly reason: string;
}

/** One side of a change: what happened under one revision. */
export interface Side {
  readonly revision: string;
  /** What the stages answered, in order. */
  readonly stages: readonly StageView[];
  /** Trace events, a line each, page frames left out. */
  readonly trace: readonly string[];
  /** What the kernel logged. */
  readonly log: readonly string[];
  /** How the vCPU left, in a sentence. */
  readonly left: string;
  /** What guest and VMM see of it, in a sentence. */
  readonly sees: string;
  /** KVM's state and the fault object's fields afterwards, by name. */
  readonly facts: Readonly<Record<string, string>>;
  /** The machine's own answer, where the fault machine ran it. */
  readonly outcome: Outcome | null;
}

/** One input, shown on both sides. */
export interface DemonstrationCase {
  /** One or two sentences. */
  readonly setting: string;
  /** The input in words. */
  readonly input: string;
  /** What the fault machine was given; null where a VM of its own was run. */
  readonly faultInput: FaultInput | null;
  readonly run: (revision: Revision) => Side;
  /** What the patch brings: true under every revision that has it, false under the one before. */
  readonly holds: (side: Side) => boolean;
  /** Commit of the later fix that takes it away again: then it was a bug. */
  readonly fixedBy?: string;
}

/** What was compared over a whole space of inputs, nothing sampled. */
export interface EqualityResult {
  readonly inputs: number;
  /** Inputs that differ in exits or state. */
  readonly different: number;
  /** Of those, the ones that the patch's own message announces. */
  readonly announced: number;
  /** Whether only what was announced differs. */
  readonly equal: boolean;
  /** What was compared over what, and with what result. */
  readonly words: string;
}

/** How much of the space is compared, and who is told how far it is. */
export type SpaceOptions = EnumerateOptions;

/** The demonstration of one row. */
export interface Demonstration {
  readonly row: number;
  /** What differs, in a few words. */
  readonly differs: string;
  /** What the change is for, in one sentence. */
  readonly purpose: string;
  readonly cases: readonly DemonstrationCase[];
  /** For what changes nothing, or nothing but what the cases show. */
  readonly equality: ((before: Revision, after: Revision, options?: SpaceOptions) => EqualityResult) | null;
}
