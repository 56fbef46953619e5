/** KVM_PRE_FAULT_MEMORY, which tries again for ever and keeps kvm->srcu all the while, against those who wait for it. */
import { EAGAIN } from '../../../host/errno.ts';
import { invalidSlot } from '../../../kvm/mmu/stages/invalid-slot.ts';
import { deleteSlot } from '../kernel-actors.ts';
import { edited, preFault, type SceneSpec, scene, vcpu } from '../scene.ts';

const base: SceneSpec = {
  name: 'pre-fault-against-deletion',
  title:
    'KVM_PRE_FAULT_MEMORY on a slot that goes: it retries while the slot is INVALID, and the deletion waits for it',
  claim: 'kvm_tdp_map_page: RET_PF_RETRY passes (3ccbf6f47098 in Linux 6.18: it does not, -EAGAIN)',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1 }],
  actors: [vcpu([preFault(0x100)]), deleteSlot(0)],
  expect: 'livelock',
};
const answersAgain = edited('linux-6.12', 'with 3ccbf6f47098', (stages) =>
  stages.map((s) =>
    s.name !== 'invalid-slot'
      ? s
      : { ...s, run: (v, f) => (invalidSlot.run(v, f) !== 0 && f.prefetch ? -EAGAIN : invalidSlot.run(v, f)) },
  ),
);

export const preFaults = [
  scene(base),
  scene({
    ...base,
    name: 'pre-fault-answers-again',
    title: 'the same where it fails with EAGAIN',
    revision: answersAgain,
    expect: 'safe',
  }),
  scene({
    ...base,
    name: 'pre-fault-obsolete-root',
    title:
      'KVM_PRE_FAULT_MEMORY while another slot goes, and every root with it: it retries with a root that stays obsolete',
    claim: 'kvm_tdp_map_page: RET_PF_RETRY passes, although the loop never takes a new root',
    vm: {},
    slots: [...base.slots, { id: 1, gfn: 0x300, pages: 1 }],
    actors: [vcpu([preFault(0x100)]), deleteSlot(1)],
    revision: answersAgain,
  }),
];
