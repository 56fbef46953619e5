/** A guest that decides itself what is private, as under SNP, and KVM's attribute says otherwise. */
import { setAttributes } from '../kernel-actors.ts';
import { privately, type SceneSpec, scene, vcpu, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'wrongly-private',
  title: 'a guest writes privately to a frame that is shared and mapped so',
  claim:
    'page_fault_can_be_fast: a fault whose privacy is not the attribute goes the slow way, to a memory fault (b74d002d3d58)',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true }],
  actors: [vcpu([privately(write(0x100))], { before: [write(0x100)] })],
  expect: 'safe',
};

export const privateByGuest = [
  scene(base),
  scene({
    ...base,
    name: 'wrongly-private-spurious',
    title: 'the same before Linux 6.11: the fast path calls the fault spurious, for ever',
    revision: 'linux-6.10',
    guardOf: base.name,
    expect: 'livelock',
  }),
  scene({
    ...base,
    name: 'privately-and-converted',
    title: 'the same while the frame becomes private',
    actors: [...base.actors, setAttributes(0x100, 1, 'private')],
  }),
];
