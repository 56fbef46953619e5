/** Replays one scenario: the set-up, then every step, each answer compared with the recorded one. */
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { UnsupportedError } from '../input-error.ts';
import {
  type Answer,
  type ChanceRegisters,
  contractDifference,
  type Difference,
  internalsDifference,
} from './compare.ts';
import type { FolderMachine } from './folders.ts';
import type { OpResult } from './host-objects.ts';
import { applyCpuid, attempt, recordRegs, replaceRegs, replaceSregs, ScenarioMachine } from './machine.ts';
import { normaliseTrace } from './normalise.ts';
import { int, type Op, type RecordedEvent, type Scenario, type Step } from './scenario.ts';
import { dropSignalExit, spinsPast, spinUntil } from './spinning-guest.ts';
import { statsChange } from './stats.ts';
import { runOp } from './vm-ops.ts';

export interface ReplayOptions {
  readonly machine: FolderMachine;
  readonly revision?: string | Revision;
  /** Compare the contract alone. */
  readonly contractOnly: boolean;
  /** Called with each answer, before it is compared. */
  readonly onStep?: (index: number, answer: Answer) => void;
}

/** A difference and the step that it is in; -1 is the set-up. */
export interface StepDifference extends Difference {
  readonly step: number;
  /** The operation of the step. */
  readonly op: Op | null;
  /** The answer of the step before, if it had registers. */
  readonly before: { readonly [field: string]: unknown } | null;
}

export interface Replayed {
  readonly status: 'passed' | 'failed' | 'unsupported' | 'crashed';
  /** The contract holds in every step. */
  readonly contract: boolean;
  /** Contract, trace and statistics hold in every step. */
  readonly full: boolean;
  /** The missing feature of an unsupported scenario, or what went wrong in a crash. */
  readonly reason?: string;
  readonly difference?: StepDifference;
}

/** Replays `scenario` on a machine of its own. */
export function replayScenario(scenario: Scenario, options: ReplayOptions): Replayed {
  let machine: ScenarioMachine | null = null;
  try {
    machine = new ScenarioMachine(scenario, options.machine, options.revision);
    return replayOn(machine, scenario, options);
  } catch (error) {
    if (error instanceof UnsupportedError)
      return { status: 'unsupported', contract: false, full: false, reason: error.feature };
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { status: 'crashed', contract: false, full: false, reason: text };
  } finally {
    machine?.close();
  }
}

/** A machine after the scenario's set-up, for tools that run the steps themselves; the caller closes it. @throws UnsupportedError */
export function setUpScenario(scenario: Scenario, options: ReplayOptions): ScenarioMachine {
  const machine = new ScenarioMachine(scenario, options.machine, options.revision);
  setUpDifference(machine, scenario, options);
  return machine;
}

function replayOn(machine: ScenarioMachine, scenario: Scenario, options: ReplayOptions): Replayed {
  const setUp = setUpDifference(machine, scenario, options);
  let contract: StepDifference | null = setUp?.part === 'trace' ? null : setUp;
  let internals: StepDifference | null = setUp?.part === 'trace' ? setUp : null;
  const chance: ChanceRegisters = new Set();
  let afterInterrupted = false;
  let before: StepDifference['before'] = null;
  for (let i = 0; i < scenario.steps.length; i++) {
    const step = scenario.steps[i]!;
    const answer = answerStep(machine, step, options, afterInterrupted);
    options.onStep?.(i, answer);
    const at = { step: i, op: step.do, before };
    const isStale = step.stale_completion_data === true;
    let difference = contractDifference(answer, step.expect, isStale, chance);
    if (difference?.part === 'regs' && step.expect.interrupted === true && spinsThere(machine, step)) difference = null;
    if (difference !== null && contract === null) contract = { ...difference, ...at };
    if (internals === null && !options.contractOnly) {
      const d = internalsDifference(answer, step.expect);
      if (d !== null) internals = { ...d, ...at };
    }
    if (answer.regs !== undefined) before = answer.regs;
    // After a wrong answer the steps that follow say nothing of their own.
    if (contract !== null) break;
    afterInterrupted = step.expect.interrupted === true;
  }
  const first = firstOf(contract, internals);
  return {
    status: first === null ? 'passed' : 'failed',
    contract: contract === null,
    full: first === null,
    ...(first === null ? {} : { difference: first }),
  };
}

/** The guest, which spins, comes to the recorded registers. */
function spinsThere(machine: ScenarioMachine, step: Step): boolean {
  const theirs = JSON.stringify(step.expect.regs);
  const there = (): boolean => JSON.stringify(recordRegs(machine)) === theirs;
  const found = spinUntil(machine.vcpu(step.do), there);
  machine.takeTrace();
  return found;
}

/** The contract's difference counts first within one step. */
function firstOf(contract: StepDifference | null, internals: StepDifference | null): StepDifference | null {
  if (contract === null || internals === null) return contract ?? internals;
  return internals.step < contract.step ? internals : contract;
}

function answerStep(machine: ScenarioMachine, step: Step, options: ReplayOptions, afterInterrupted: boolean): Answer {
  const before = machine.stats();
  machine.takeTrace();
  const { processor } = machine.vm.state;
  const start = processor.insns;
  const answer = runOp(machine, step.do);
  const interrupted = step.expect.interrupted === true;
  const trace = recordedTrace(machine, options, { afterInterrupted, interrupted });
  if (interrupted && spinsPast(processor.insns - start, options.machine.interruptedEvents)) dropSignalExit(trace);
  const out = afterInterrupted && step.do.op === 'events' ? withoutChance(answer.out) : answer.out;
  return { ...answer, ...(out === undefined ? {} : { out }), trace, stats: statsChange(before, machine.stats()) };
}

function recordedTrace(
  machine: ScenarioMachine,
  options: ReplayOptions,
  { afterInterrupted, interrupted }: { afterInterrupted: boolean; interrupted: boolean },
): RecordedEvent[] {
  if (options.contractOnly) {
    machine.takeTrace();
    return [];
  }
  return normaliseTrace(machine.takeTrace(), {
    places: machine.host,
    vendor: machine.kvm.profile.vendor,
    events: options.machine.events,
    afterInterrupted,
    limit: interrupted ? options.machine.interruptedEvents : Number.POSITIVE_INFINITY,
  });
}

function withoutChance(out: OpResult['out']): OpResult['out'] {
  if (out === undefined) return out;
  const { exc_pending: _pending, exc_injected: _injected, ...rest } = out;
  return rest;
}

/** Runs the set-up in the recorded order; the first operation whose result is not the recorded one. */
function setUpDifference(machine: ScenarioMachine, scenario: Scenario, options: ReplayOptions): StepDifference | null {
  const failures: { op: string; ret: number; errno: string | null }[] = [];
  const traces: { op: string; trace: RecordedEvent[] }[] = [];
  const perform = (op: Op, run: () => OpResult = () => runOp(machine, op)): void => {
    machine.takeTrace();
    const { ret, errno } = run();
    if (ret !== null && ret < 0) failures.push({ op: op.op, ret, errno });
    const trace = recordedTrace(machine, options, { afterInterrupted: false, interrupted: false });
    if (trace.length > 0) traces.push({ op: op.op, trace });
  };
  for (const op of scenario.vm.setup) perform(op);
  for (const op of scenario.mems) perform(op);
  for (const image of [...scenario.memory, ...scenario.guest.code]) machine.host.load(image);
  for (const op of [...scenario.guest_memfds, ...scenario.slots, ...scenario.attributes]) perform(op);
  for (let id = 0; id < scenario.guest.vcpus; id++) setUpVcpu(machine, scenario, id, perform);
  for (const op of scenario.after_vcpu) perform(op);
  const expected = {
    failures: (scenario.setup_failures ?? []).map((f) => ({ op: f.op.op, ret: f.ret, errno: f.errno })),
    traces: (scenario.setup_trace ?? []).map((t) => ({ op: t.op.op, trace: t.trace })),
  };
  const at = { step: -1, op: null, before: null };
  if (JSON.stringify(failures) !== JSON.stringify(expected.failures))
    return { part: 'ret', path: 'setup_failures', ours: failures, theirs: expected.failures, ...at };
  if (!options.contractOnly && JSON.stringify(traces) !== JSON.stringify(expected.traces))
    return { part: 'trace', path: 'setup_trace', ours: traces, theirs: expected.traces, ...at };
  return null;
}

function setUpVcpu(
  machine: ScenarioMachine,
  scenario: Scenario,
  id: number,
  perform: (op: Op, run?: () => OpResult) => void,
): void {
  perform({ op: 'vcpu', id });
  const vcpu = machine.vcpus.get(id);
  // The recorder's file descriptor is another file's then.
  const missing = (): OpResult => ({ ret: -1, errno: 'ENOTTY' });
  if (vcpu !== undefined)
    perform({ op: 'cpuid' }, () => attempt(() => applyCpuid(machine, vcpu, scenario.guest.cpuid)));
  const own = <T extends { readonly [field: string]: unknown }>(all: readonly T[]): T | undefined =>
    all.find((r) => int(r['vcpu']) === id);
  const sregs = own(scenario.guest.sregs);
  if (sregs !== undefined)
    perform({ op: 'sregs', ...sregs }, () => (vcpu === undefined ? missing() : replaceSregs(vcpu, sregs)));
  const regs = own(scenario.guest.regs);
  if (regs !== undefined)
    perform({ op: 'regs', ...regs }, () => (vcpu === undefined ? missing() : replaceRegs(vcpu, regs)));
}
