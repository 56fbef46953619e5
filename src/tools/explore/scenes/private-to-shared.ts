/** Private becomes shared while a vCPU faults on the private page. */
import { setAttributes } from '../kernel-actors.ts';
import { read, type SceneSpec, scene, vcpu, withoutStage } from '../scene.ts';

const base: SceneSpec = {
  name: 'private-to-shared',
  title: 'a private fault while its frame becomes shared',
  claim: 'kvm_vm_set_mem_attributes: mappings go before the attribute changes, and none is made until the end',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true }],
  private: [[0x100, 1]],
  actors: [vcpu([read(0x100)]), setAttributes(0x100, 1, 'shared')],
  expect: 'safe',
};

export const privateToShared = [
  scene(base),
  scene({
    ...base,
    name: 'private-to-shared-no-stale-check',
    title: 'the same without the check under mmu_lock',
    revision: withoutStage('linux-6.12', 'stale-check'),
    guardOf: base.name,
    expect: { violates: 'a shared gfn is not mapped' },
  }),
];
