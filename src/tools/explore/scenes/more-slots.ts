/** More that happens to slots: both address spaces, slots that come back, and slots with private memory. */
import { createSlot, deleteSlot, inTurn, migratePage, moveSlot, setAttributes } from '../kernel-actors.ts';
import { read, type SceneSpec, scene, vcpu, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'slot-comes-back',
  title: 'a slot is deleted and made again over other memory while a vCPU writes to it',
  claim: 'kvm_set_memslot: nothing that was looked up in the old slots is mapped under the new ones',
  slots: [{ id: 0, gfn: 0x100, pages: 1 }],
  actors: [vcpu([write(0x100), write(0x100)]), inTurn(deleteSlot(0), createSlot(0, 0x100, 1))],
  expect: 'safe',
};
const smm = [
  { id: 0, gfn: 0x100, pages: 1 },
  { id: 0, gfn: 0x100, pages: 1, asId: 1 },
] as const;
const isPrivate: SceneSpec = {
  ...base,
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true }],
  private: [[0x100, 1]],
  name: 'private-slot-deleted',
  title: 'a slot with guest_memfd is deleted while a vCPU faults on its private page',
  actors: [vcpu([write(0x100)]), deleteSlot(0)],
};

export const moreSlots = [
  scene(base),
  scene({
    ...base,
    name: 'two-slot-changes',
    title: 'one slot is deleted and another one moves',
    slots: [...base.slots, { id: 1, gfn: 0x104, pages: 1 }],
    actors: [vcpu([write(0x100)]), deleteSlot(0), moveSlot(1, 0x100)],
  }),
  scene({
    ...base,
    name: 'smm',
    title: 'a vCPU in system management mode, one outside, and a slot that goes',
    slots: smm,
    actors: [vcpu([write(0x100)]), vcpu([read(0x100)], { smm: true }), deleteSlot(0)],
  }),
  scene({
    ...base,
    name: 'smm-page-moves',
    title: 'the same while the host moves a page',
    slots: smm,
    actors: [vcpu([write(0x100)]), vcpu([read(0x100)], { smm: true }), migratePage(0x100)],
  }),
  scene(isPrivate),
  scene({
    ...isPrivate,
    name: 'private-slot-deleted-and-converted',
    title: 'the same while the frame becomes shared',
    actors: [...isPrivate.actors, setAttributes(0x100, 1, 'shared')],
  }),
];
