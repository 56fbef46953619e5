/** What `softkvm explain` answers: where the fault came from, its explanation, and as text, diagram or JSON. */
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { parseCode } from '../decode/decode.ts';
import type { FaultInput } from '../fault-machine/fault-input.ts';
import { parseInput } from '../fault-machine/input-text.ts';
import { InputError } from '../input-error.ts';
import { comparisonLines } from './compare-text.ts';
import { explainInput } from './explain-input.ts';
import { scenarioFaults } from './explain-scenario.ts';
import { textOf } from './explain-text.ts';
import { type Explanation, explanationOf, outcomeSentence } from './explanation.ts';
import {
  type FaultFlags,
  type FoundFlags,
  flagArguments,
  flagsOfTrace,
  flagsOfVm,
  HOST_BITS,
  refuseBeside,
} from './fault-flags.ts';
import type { LeftBy } from './left-by.ts';
import type { TracedFault } from './trace-line.ts';
import type { DescribedVm } from './vm-description.ts';
import { wrap } from './wrap.ts';

/** A step of a recorded scenario. */
export interface ScenarioSource {
  readonly kind: 'scenario';
  readonly scenario: string;
  readonly title: string;
  readonly step: number;
  readonly operation: unknown;
  /** Every fault of the step. */
  readonly faults: readonly {
    readonly gpa: string;
    readonly errorCode: string;
    readonly verdict: string | null;
    readonly outcome: string;
  }[];
  /** Which of them is explained; null when there is none. */
  readonly fault: number | null;
}

/** A described fault. */
export interface FlagsSource {
  readonly kind: 'flags';
  readonly input: FaultInput;
  /** The flags that describe it. */
  readonly flags: readonly string[];
  /** File of the described VM. */
  readonly vm: string | null;
}

/** A line of a trace, in a described VM. */
export interface TraceSource {
  readonly kind: 'trace-line';
  readonly line: string;
  readonly event: string;
  readonly input: FaultInput;
  readonly flags: readonly string[];
  readonly vm: string | null;
  /** What neither the line nor the description says: the flag that was taken, and why. */
  readonly assumed: readonly string[];
}

/** `softkvm explain --json`. */
export interface ExplainReport {
  readonly version: 2;
  readonly source: ScenarioSource | FlagsSource | TraceSource;
  /** Null when no fault reached KVM. */
  readonly explanation: Explanation | null;
  /** The same fault under the revision of `--compare`. */
  readonly compared: Explanation | null;
}

/** Explains fault `fault` (the last one when absent) of a step of a scenario. @throws InputError */
export function scenarioReport(options: {
  readonly path: string;
  readonly step?: number | undefined;
  readonly fault?: number | undefined;
  readonly revision?: Revision | undefined;
  readonly compare?: Revision | undefined;
}): ExplainReport {
  const found = scenarioFaults(options.path, options.step, options.revision);
  const { faults } = found;
  const k = options.fault ?? faults.length - 1;
  if (faults.length > 0 && faults[k] === undefined)
    throw new InputError(`--fault ${k}: step ${found.step} has faults 0 to ${faults.length - 1}`);
  const { compare } = options;
  const other = compare === undefined ? null : scenarioFaults(options.path, options.step, compare);
  if (other !== null && faults[k] !== undefined && other.faults[k] === undefined)
    throw new InputError(
      `--compare ${compare?.name}: step ${found.step} has no fault ${k} under it: expected another --fault`,
    );
  return {
    version: 2,
    source: {
      kind: 'scenario',
      scenario: found.scenario,
      title: found.title,
      step: found.step,
      operation: found.operation,
      faults: faults.map((f) => ({
        gpa: f.gpa,
        errorCode: f.errorCode,
        verdict: f.verdict,
        outcome: outcomeSentence(f),
      })),
      fault: faults.length === 0 ? null : k,
    },
    explanation: faultOfStep(found, k),
    compared: other === null ? null : faultOfStep(other, k),
  };
}

/** The answer of a step is that of its last fault. */
function faultOfStep(found: ReturnType<typeof scenarioFaults>, k: number): Explanation | null {
  const { answer, faults } = found;
  const fault = faults[k];
  if (fault === undefined) return null;
  const last = k === faults.length - 1;
  const left: LeftBy | null =
    last && answer.run !== undefined ? { ret: answer.ret, errno: answer.errno, run: answer.run } : null;
  return explanationOf(fault, left);
}

/** Explains a fault that flags describe, or a line of a trace, with or without a described VM. @throws InputError */
export function describedReport(options: {
  readonly flags: FaultFlags;
  readonly vm: DescribedVm | null;
  readonly traced: TracedFault | null;
  readonly revision: Revision;
  readonly compare: Revision | null;
}): ExplainReport {
  const { vm, traced, revision, compare } = options;
  if (vm !== null) refuseBeside(vm, options.flags);
  const found = complete(options.flags, vm, traced);
  const gpa = found.flags.gpa === undefined ? null : parseGpa(found.flags.gpa);
  if (vm !== null && gpa === null) throw new InputError(`--vm ${vm.name}: expected --gpa or --trace-line beside it`);
  const { gpa: _gpa, ...inputFlags } = found.flags;
  const input = parseInput(inputFlags);
  const described = { input, gpa, vm, qualification: found.qualification };
  const common = { input, flags: flagArguments(found.flags), vm: vm?.name ?? null };
  return {
    version: 2,
    source:
      traced === null
        ? { kind: 'flags', ...common }
        : { kind: 'trace-line', line: traced.line, event: traced.event, ...common, assumed: found.assumed },
    explanation: explainInput(described, revision),
    compared: compare === null ? null : explainInput(described, compare),
  };
}

/** Flags that were typed, that the VM and the line give, and that follow from the address. */
function complete(typed: FaultFlags, vm: DescribedVm | null, traced: TracedFault | null): FoundFlags {
  const gpa = traced?.address ?? (typed.gpa === undefined ? null : parseGpa(typed.gpa));
  const known = { ...(vm === null || gpa === null ? {} : flagsOfVm(vm, gpa)), ...typed };
  if (traced === null) return { flags: known, assumed: [], qualification: null };
  const found = flagsOfTrace(traced, known);
  const flags = { ...found.flags, ...known };
  if (flags.slot === 'none' && traced.address >> HOST_BITS !== 0n) flags.slot = 'none-beyond';
  return { ...found, flags };
}

function parseGpa(text: string): bigint {
  const gpa = parseCode(text);
  if (gpa >> 52n !== 0n) throw new InputError(`--gpa ${text}: expected an address below 2^52`);
  return gpa;
}

/** The report as lines of text, without colour; the first is a heading where there is one. */
export function reportLines(report: ExplainReport): string[] {
  const { source, explanation, compared } = report;
  const about = sourceLines(report);
  if (explanation === null) return about;
  const lines = compared === null ? textOf(explanation) : comparisonLines(explanation, compared);
  return source.kind === 'flags' ? lines : [...about, '', ...lines];
}

function sourceLines(report: ExplainReport): string[] {
  const { source } = report;
  if (source.kind === 'flags') return [];
  if (source.kind === 'trace-line')
    return [
      source.line,
      ...(source.vm === null ? [] : [`in the VM of ${source.vm}`]),
      ...source.assumed.flatMap((a) => wrap(`taken for granted: ${a}`, 110)),
    ];
  const { scenario, title, step, operation, faults, fault } = source;
  if (fault === null) return [`${scenario}, step ${step}: no fault reached KVM in this step.`];
  return [
    `${scenario}: ${title}`,
    `step ${step} ${JSON.stringify(operation)}, fault ${fault} of ${faults.length}`,
    ...(faults.length < 2
      ? []
      : faults.map((f, i) => `  ${i === fault ? '>' : ' '} ${i}  ${f.gpa}  ${f.errorCode}  ${f.verdict ?? f.outcome}`)),
  ];
}
