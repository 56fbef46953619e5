/** What row 14 brings with it: the sequence is read a second time, and an attribute change between the two reads is forgotten. */
import { loOf } from '../../arch/halves.ts';
import { memIsPrivate } from '../../kvm/attributes.ts';
import { RET_PF_CONTINUE } from '../../kvm/mmu/ret-pf.ts';
import { insertBefore } from '../../kvm/mmu/revisions/edit.ts';
import type { FaultStage, Revision } from '../../kvm/mmu/revisions/revision.ts';
import { setMemoryAttributes } from '../../kvm/set-memory-attributes.ts';
import { handleNpf } from '../../kvm/svm/npf.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import { ordinaryFault } from '../fault-machine/fault-input.ts';
import { FaultMachine } from '../fault-machine/fault-machine.ts';
import type { DemonstrationCase, Side } from './demonstration.ts';
import { SideRecorder } from './side-recorder.ts';

const PRIVATE = 8n;
const { errorLo, errorHi } = ordinaryFault;

/** Stands in the list where another thread changes the attribute. */
function attributeChange(vm: VmState): FaultStage {
  return {
    name: 'another-thread',
    kvmFunction: 'kvm_vm_set_mem_attributes',
    underMmuLock: false,
    run(_vcpu, fault) {
      // The other thread holds its own locks; that this one is in the middle of a fault is the point.
      const depth = vm.locks.srcuDepth;
      vm.locks.srcuDepth = 0;
      setMemoryAttributes(vm, BigInt(fault.gfn) * 4096n, 4096n, PRIVATE, 0n);
      vm.locks.srcuDepth = depth;
      return RET_PF_CONTINUE;
    },
    explain: () => 'KVM_SET_MEMORY_ATTRIBUTES makes the gfn private here, from begin to end',
  };
}

function changedMeanwhile(revision: Revision): Side {
  const machine = new FaultMachine({ ...ordinaryFault, vmType: 'sw-protected' });
  const { vm, vcpu } = machine;
  machine.load('gmem', 'shared', 'present', 'absent');
  const stages = insertBefore(revision.stages, 'invalid-slot', attributeChange(vm));
  (vm as { revision: Revision }).revision = { ...revision, stages };
  const recorder = new SideRecorder(vm);
  vm.trace.setSink((event) => recorder.event(event));
  const { gfn } = machine.place;
  handleNpf(vcpu, loOf(gfn * 4096), Math.floor(gfn / 0x10_0000), errorLo, errorHi);
  vm.trace.setSink(null);
  const isPrivate = memIsPrivate(vm, gfn);
  machine.close();
  const verdict = recorder.faults.at(-1)?.verdict ?? 'none';
  const mapped = verdict === 'RET_PF_FIXED' && isPrivate;
  return {
    revision: revision.name,
    stages: recorder.faults.flatMap((fault) => fault.stages),
    trace: recorder.trace,
    log: [],
    left: `the guest resumes, ${verdict}`,
    sees: mapped
      ? 'guest: goes on with the shared page of a gfn that is private; VMM: believes that page out of use'
      : 'guest: the same access faults again, and leaves with a memory fault; VMM: is asked to convert',
    facts: { 'attribute and mapping': mapped ? 'private gfn, shared page mapped' : 'private gfn, nothing mapped' },
    outcome: null,
  };
}

export const secondSnapshotCase: DemonstrationCase = {
  setting:
    'The bug that comes with the patch: the guest makes a shared access, and after its privacy was checked another thread makes the gfn private. The sequence number says so, unless it is read anew.',
  input:
    'error code 0x100000006 (W|U|GUEST_FINAL); software-protected VM, a slot with guest_memfd, gfn shared, then private',
  faultInput: null,
  run: changedMeanwhile,
  holds: (side) => side.facts['attribute and mapping'] === 'private gfn, shared page mapped',
  fixedBy: 'db574f2f96d0',
};
