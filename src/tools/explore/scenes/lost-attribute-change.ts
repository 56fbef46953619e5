import { setAttributes } from '../kernel-actors.ts';
import { scene, vcpu, write } from '../scene.ts';

export const lostAttributeChange = scene({
  name: 'lost-attribute-change',
  title: 'a shared fault against its frame becoming private',
  claim:
    'kvm_faultin_pfn: the sequence is read before the attribute, so that a change in between is seen under mmu_lock',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true }],
  actors: [vcpu([write(0x100)]), setAttributes(0x100, 1, 'private')],
  expect: 'safe',
});
