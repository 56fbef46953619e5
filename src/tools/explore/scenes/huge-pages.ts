/** One frame of a huge page becomes private while a vCPU faults on another one. */
import { setAttributes } from '../kernel-actors.ts';
import { read, type SceneSpec, scene, vcpu } from '../scene.ts';

const base: SceneSpec = {
  name: 'attributes-cut-a-huge-page',
  title: 'a fault on a huge page of which another frame becomes private',
  claim: 'kvm_arch_pre_set_memory_attributes: huge pages that the range cuts are invalidated as a whole',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x200, pages: 512, gmem: true, host: 'huge' }],
  actors: [vcpu([read(0x200)]), setAttributes(0x201, 1, 'private')],
  expect: 'safe',
};

export const hugePages = [
  scene(base),
  scene({
    ...base,
    name: 'attributes-range-not-widened',
    title: 'the same when only the changed frames are invalidated, as until Linux 6.14',
    revision: 'linux-6.10',
    guardOf: base.name,
    expect: { violates: 'every huge entry covers one attribute' },
  }),
];
