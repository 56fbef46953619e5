/** Row 5: a legacy #PF that KVM intercepts, with bits in its error code that no #PF has. */
import { loOf } from '../../arch/halves.ts';
import { handlePageFault } from '../../kvm/mmu/handle-page-fault.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { ordinaryFault } from '../fault-machine/fault-input.ts';
import { FaultMachine } from '../fault-machine/fault-machine.ts';
import type { Demonstration, Side } from './demonstration.ts';
import { SideRecorder } from './side-recorder.ts';

/** W|U, with the bit that an #NPF calls GUEST_FINAL. */
const CODE_LO = 0x6;
const CODE_HI = 0x1;

function interceptedSide(revision: Revision): Side {
  const machine = new FaultMachine(ordinaryFault);
  const { vm, vcpu } = machine;
  machine.load('rw', 'shared', 'present', 'absent');
  (vm as { revision: Revision }).revision = revision;
  const recorder = new SideRecorder(vm);
  vm.trace.setSink((event) => recorder.event(event));
  const gpa = machine.place.gfn * 4096;
  const answer = handlePageFault(vcpu, CODE_LO, CODE_HI, loOf(gpa), Math.floor(gpa / 0x1_0000_0000));
  const fault = recorder.faults.at(-1);
  const log = vm.log.entries.map((entry) => `${entry.where}: ${entry.message}`);
  machine.close();
  return {
    revision: revision.name,
    stages: fault?.stages ?? [],
    trace: recorder.trace,
    log,
    left: answer === 1 ? `the guest resumes, ${fault?.verdict}` : `KVM_RUN returns ${answer}`,
    sees: 'guest: the access is done again and succeeds; VMM: nothing',
    facts: { 'fault->error_code': fault?.code ?? 'none' },
    outcome: null,
  };
}

export const interceptedPfRow: Demonstration = {
  row: 5,
  differs: 'legacy #PF with bits 63:32: WARN once and drop them; before: they went into the MMU',
  purpose:
    'A #PF pushes 32 bits, and KVM keeps its own flags above them: upper bits that come with one are a bug elsewhere and must not be taken for flags.',
  cases: [
    {
      setting:
        'Without two-dimensional paging KVM intercepts #PF. One arrives with bit 32 set, which no processor pushes: only a bug in KVM could put it there.',
      input:
        'error code 0x100000006 (W|U, and bit 32) into kvm_handle_page_fault; an ordinary slot, the guest not paging',
      faultInput: null,
      run: interceptedSide,
      holds: (side) =>
        side.facts['fault->error_code'] === '0x6' && side.log.some((line) => line.startsWith('kvm_handle_page_fault:')),
    },
  ],
  equality: null,
};
