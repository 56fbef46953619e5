/** A demonstration on the fault machine: one described fault, run under a revision with a recorder and a trace attached. */
import { join64 } from '../../arch/halves.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { decodeCode } from '../decode/decode.ts';
import { type FaultInput, ordinaryFault } from '../fault-machine/fault-input.ts';
import { FaultMachine } from '../fault-machine/fault-machine.ts';
import type { Outcome } from '../fault-machine/outcome.ts';
import type { DemonstrationCase, Side } from './demonstration.ts';
import { leftWords, outcomeFacts, seesWords } from './outcome-words.ts';
import { SideRecorder } from './side-recorder.ts';

export interface MachineCase {
  readonly setting: string;
  /** What differs from an ordinary first write. */
  readonly input: Partial<FaultInput>;
  readonly holds: (outcome: Outcome, side: Side) => boolean;
}

/** The case, to be run on a machine of its own each time: both sides start from the same state to the byte. */
export function machineCase(described: MachineCase): DemonstrationCase {
  const input: FaultInput = { ...ordinaryFault, ...described.input };
  return {
    setting: described.setting,
    input: inputWords(input),
    faultInput: input,
    run: (revision) => runSide(input, revision),
    holds: (side) => side.outcome !== null && described.holds(side.outcome, side),
  };
}

function runSide(input: FaultInput, revision: Revision): Side {
  const machine = new FaultMachine(input);
  const recorder = new SideRecorder(machine.vm);
  machine.vm.trace.setSink((event) => recorder.event(event));
  const outcome = machine.run(input, revision);
  machine.close();
  return {
    revision: revision.name,
    stages: recorder.faults.flatMap((fault) => fault.stages),
    trace: recorder.trace,
    log: outcome.log,
    left: leftWords(outcome),
    sees: seesWords(outcome),
    facts: outcomeFacts(outcome, recorder.faults),
    outcome,
  };
}

const HARDWARE_WORDS = {
  npt: 'AMD, nested paging',
  ept: 'Intel, EPT',
  'ept-no-ad': 'Intel, EPT without accessed and dirty bits',
} as const;

const VM_WORDS = {
  default: 'default VM',
  sev: 'SEV guest',
  'sw-protected': 'software-protected VM',
  snp: 'SNP guest',
} as const;

const SLOT_WORDS = {
  none: 'no slot at the gfn',
  'none-beyond': "no slot at the gfn, which is beyond the host's physical width",
  rw: 'an ordinary slot',
  ro: 'a read-only slot',
  invalid: 'a slot that is being deleted',
  apic: "KVM's APIC access page, APICv on",
  'apic-inhibited': "KVM's APIC access page, APICv inhibited",
  internal: "KVM's TSS slot",
  gmem: 'a slot with guest_memfd',
} as const;

const SPTE_WORDS = {
  absent: null,
  present: 'SPTE present',
  'write-protected': 'SPTE write-protected by dirty logging',
  'access-tracked': 'SPTE access-tracked',
  mmio: 'MMIO SPTE of the current generation',
  'mmio-stale': 'MMIO SPTE of an old generation',
} as const;

/** The input in one line: code, machine, slot, attribute, entry. */
function inputWords(input: FaultInput): string {
  const code = join64(input.errorLo, input.errorHi);
  const bits = decodeCode(code, 'npf').bits.filter((bit) => bit.set);
  const parts = [
    input.paging === 'shadow' ? 'shadow paging' : HARDWARE_WORDS[input.hardware],
    VM_WORDS[input.vmType],
    input.nested ? 'the vCPU runs L2' : null,
    SLOT_WORDS[input.slot],
    input.vmType === 'sw-protected' || input.vmType === 'snp' ? `gfn ${input.attribute}` : null,
    SPTE_WORDS[input.spte],
    input.invalidation.kind === 'in-progress' ? 'its range is being invalidated' : null,
    input.backing === 'noslot-pfn' ? 'page lookup answers KVM_PFN_NOSLOT' : null,
  ];
  const names = bits.map((bit) => bit.name).join('|');
  return `error code 0x${code.toString(16)} (${names}); ${parts.filter((part) => part !== null).join(', ')}`;
}
