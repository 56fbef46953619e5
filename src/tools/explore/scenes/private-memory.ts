/** guest_memfd, pre-fault and page-ready against those who take memory away or convert it. */
import { punchHole, setAttributes } from '../kernel-actors.ts';
import { pageReady, preFault, read, type SceneSpec, scene, vcpu, withoutStage, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'punch-hole',
  title: 'a private fault while its page is taken from the guest_memfd',
  claim: 'kvm_gmem_punch_hole: a page that is freed is not mapped, and does not come to be mapped',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true }],
  private: [[0x100, 1]],
  actors: [vcpu([write(0x100)]), punchHole(0x100)],
  expect: 'safe',
};

export const privateMemory = [
  scene(base),
  scene({
    ...base,
    name: 'punch-hole-in-use',
    title: 'the same while a vCPU has the page in its TLB',
    actors: [vcpu([write(0x100), write(0x100)], { before: [write(0x100)] }), punchHole(0x100)],
  }),
  scene({
    ...base,
    name: 'punch-hole-no-stale-check',
    title: 'the same without the check under mmu_lock',
    revision: withoutStage('linux-6.12', 'stale-check'),
    guardOf: base.name,
    expect: { violates: 'no entry maps a frame that' },
  }),
  scene({
    ...base,
    name: 'pre-fault-against-conversion',
    title: 'KVM_PRE_FAULT_MEMORY while the frame becomes shared',
    actors: [vcpu([preFault(0x100)]), setAttributes(0x100, 1, 'shared')],
  }),
  scene({
    ...base,
    name: 'page-ready-against-conversion',
    title: 'an asynchronous page is ready while the frame becomes private',
    private: [],
    actors: [vcpu([pageReady(0x100), read(0x100)]), setAttributes(0x100, 1, 'private')],
  }),
  scene({
    ...base,
    name: 'attributes-without-slot',
    title: 'a frame without slot becomes private while a vCPU reads it',
    slots: [],
    private: [],
    actors: [vcpu([read(0x100), read(0x100)]), setAttributes(0x100, 1, 'private')],
  }),
];
