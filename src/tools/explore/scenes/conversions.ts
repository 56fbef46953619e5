/** Conversions there and back, and of what no slot has. */
import { createSlot, inTurn, setAttributes } from '../kernel-actors.ts';
import { read, type SceneSpec, scene, vcpu, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'there-and-back',
  title: 'a frame becomes private and shared again while a vCPU faults on it',
  claim: 'kvm_faultin_pfn: that the attribute is as before does not mean that nothing happened',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true }],
  actors: [vcpu([write(0x100)]), inTurn(setAttributes(0x100, 1, 'private'), setAttributes(0x100, 1, 'shared'))],
  expect: 'safe',
};
const noSlot: SceneSpec = { ...base, slots: [], claim: 'kvm_mmu_page_fault: emulated MMIO is shared' };

export const conversions = [
  scene(base),
  scene({
    ...base,
    name: 'two-vcpus-convert',
    title: 'two vCPUs write while the frame becomes private',
    actors: [vcpu([write(0x100)]), vcpu([write(0x100)]), setAttributes(0x100, 1, 'private')],
  }),
  scene({
    ...noSlot,
    name: 'slot-made-in-conversion',
    title: 'a frame becomes private while a slot is made there',
    actors: [vcpu([read(0x100), read(0x100)]), setAttributes(0x100, 1, 'private'), createSlot(0, 0x100, 1)],
  }),
  scene({
    ...noSlot,
    name: 'mmio-of-a-private-frame',
    title: 'a frame without slot becomes private after an MMIO entry was made for it',
    actors: [vcpu([read(0x100)], { before: [read(0x100)] }), setAttributes(0x100, 1, 'private')],
    alsoForbids: ['private-emulation'],
    expect: { violates: 'no access to a private gfn is emulated' },
    judgement:
      'Intended: without a slot nothing is invalidated, and a reserved-bit fault is not asked for its attribute (kvm_mmu_page_fault). No memory is ' +
      'behind the frame, so nothing private is reached. SNP and TDX guests say themselves what is private: such an access is no MMIO there.',
  }),
];
