/** One described fault through the fault path of one revision, followed stage by stage. */
import { hex, join64 } from '../../arch/halves.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { inputImpossible } from '../fault-machine/constraints.ts';
import { codeImpossible } from '../fault-machine/fault-codes.ts';
import type { FaultInput } from '../fault-machine/fault-input.ts';
import { FaultMachine, INVALIDATION_KINDS, StageError } from '../fault-machine/fault-machine.ts';
import { names } from '../fault-machine/names.ts';
import type { Outcome } from '../fault-machine/outcome.ts';
import { outcomeOf } from '../fault-machine/outcome-words.ts';
import { InputError } from '../input-error.ts';
import { DEFAULT_GPA, DescribedPlace } from './described-place.ts';
import { type Explanation, explanationOf } from './explanation.ts';
import { HOST_BITS } from './fault-flags.ts';
import { FaultLog } from './fault-log.ts';
import type { LeftBy } from './left-by.ts';
import type { DescribedVm } from './vm-description.ts';

/** A fault to explain. */
export interface DescribedFault {
  readonly input: FaultInput;
  /** Null: wherever. */
  readonly gpa: bigint | null;
  /** Null: the VM has the one slot that the input names. */
  readonly vm: DescribedVm | null;
  /** The exit qualification that the code was made of, when one was given. */
  readonly qualification: bigint | null;
}

/** Runs and explains it. @throws InputError for a state that cannot be, or an address that the VM cannot have */
export function explainInput(described: DescribedFault, revision: Revision): Explanation {
  const { input } = described;
  const why = inputImpossible(input);
  if (why !== null) throw new InputError(`explain: no VM can be in this state: ${why}`);
  const gpa = described.gpa ?? (input.slot === 'none-beyond' ? 1n << HOST_BITS : BigInt(DEFAULT_GPA));
  if (gpa >> 52n !== 0n) throw new InputError(`--gpa ${hex(gpa)}: expected an address below 2^52`);
  const machine = new FaultMachine(input, (vm) => new DescribedPlace(vm, input, Number(gpa), described.vm));
  try {
    return explainOn(machine, described, gpa, revision);
  } finally {
    machine.close();
  }
}

function explainOn(machine: FaultMachine, described: DescribedFault, gpa: bigint, revision: Revision): Explanation {
  const { input } = described;
  const { moment, tapped } = momentOf(machine, input, revision);
  loadState(machine, input);
  const log = new FaultLog(machine.vm);
  machine.vm.trace.setSink((event) => {
    log.event(event);
  });
  try {
    machine.fire(
      input.entry,
      input.errorLo,
      input.errorHi,
      tapped,
      moment,
      INVALIDATION_KINDS[input.invalidation.kind],
    );
  } catch (error) {
    // A revision of the user's says what is wrong with it.
    throw error instanceof StageError && error.cause instanceof InputError ? error.cause : error;
  }
  log.finish();
  const outcome = outcomeOf(machine.words, 0, names);
  const record = log.faults.at(-1) ?? log.unseen(machine.vcpu, gpa, join64(input.errorLo, input.errorHi));
  const isFault = input.entry === 'fault';
  // The vendor's handler may have logged before there was a fault to record.
  const fault = {
    ...record,
    gpa: hex(gpa),
    log: [...machine.vm.log.entries],
    ...(input.paging === 'shadow' ? { translation: 'shadow' as const } : {}),
  };
  return explanationOf(fault, leftOf(outcome, input, gpa), {
    ...(isFault ? { reported: described.qualification ?? join64(input.errorLo, input.errorHi) } : {}),
    ...(described.qualification === null ? {} : { kind: 'ept' as const }),
    impossible: isFault
      ? codeImpossible(input.hardware, input.vmType, input.paging, input.errorLo, input.errorHi)
      : null,
    signals: outcome.signals,
    asyncPf: outcome.asyncPf,
    entry: input.entry,
    nested: input.nested,
  });
}

function momentOf(machine: FaultMachine, input: FaultInput, revision: Revision) {
  const tapped = machine.tap(revision);
  const { invalidation } = input;
  try {
    const moment = 'stage' in invalidation ? tapped.momentOf(invalidation.stage) : -1;
    if (moment >= 0) tapped.at(moment);
    return { tapped, moment };
  } catch (error) {
    if (error instanceof RangeError) throw new InputError(`--invalidation: ${error.message}`);
    throw error;
  }
}

function loadState(machine: FaultMachine, input: FaultInput): void {
  try {
    machine.load(input.slot, input.attribute, input.backing, input.spte);
  } catch (error) {
    if (error instanceof RangeError) throw new InputError(`--spte ${input.spte}: ${error.message}`);
    throw error;
  }
}

/** The outcome as a VMM sees it. */
function leftOf(outcome: Outcome, input: FaultInput, gpa: bigint): LeftBy | null {
  const { exit, verdict } = outcome;
  const ioctl = input.entry === 'pre-fault' ? { ioctl: 'KVM_PRE_FAULT_MEMORY' } : {};
  const run =
    exit === null
      ? null
      : exit.reason === 'KVM_EXIT_MEMORY_FAULT'
        ? {
            exit_name: 'MEMORY_FAULT',
            flags: exit.isPrivate ? '0x8' : '0x0',
            gpa: hex(gpa - (gpa % 4096n)),
            size: hex(exit.size),
          }
        : { exit_name: exit.reason.replace(/^KVM_EXIT_/, '') };
  switch (verdict) {
    case 'resume':
      return null;
    case 'mapped':
      return { ret: 0, errno: null, run: null, ...ioctl };
    case 'emulate':
      return { ret: 0, errno: null, run: null, emulated: outcome.emulated ?? '' };
    case 'bug':
      return { ret: 0, errno: null, run: null, bug: true };
    case 'userspace':
      return { ret: 0, errno: null, run };
    default:
      return {
        ret: -1,
        errno: verdict,
        run: run ?? (input.entry === 'pre-fault' ? null : { exit_name: 'UNKNOWN' }),
        ...ioctl,
      };
  }
}
