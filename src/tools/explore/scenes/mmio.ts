/** What was MMIO gets a slot. */
import { memslotReplaceStages } from '../../../kvm/actors/memslot-update.ts';
import { createSlot, withStage } from '../kernel-actors.ts';
import { read, type SceneSpec, scene, vcpu } from '../scene.ts';

const base: SceneSpec = {
  name: 'mmio-gets-a-slot',
  title: 'a vCPU reads where there is no slot while one is made there',
  claim: 'check_mmio_spte: an MMIO entry made for other slots than the present ones does not count',
  slots: [],
  actors: [vcpu([read(0x100), read(0x100)]), createSlot(0, 0x100, 1)],
  expect: 'safe',
};
/** The update ends and the generation stays. */
const sameGeneration = withStage(memslotReplaceStages, 'generation', {
  run({ vm, asId }) {
    vm.slots.sets[asId]!.updateInProgress = false;
    return 0;
  },
});

export const mmio = [
  scene(base),
  scene({
    ...base,
    name: 'mmio-same-generation',
    title: 'the same when the generation stays',
    actors: [base.actors[0]!, createSlot(0, 0x100, 1, sameGeneration)],
    guardOf: base.name,
    expect: { violates: 'no MMIO entry that counts' },
  }),
  scene({
    ...base,
    name: 'mmio-not-cached',
    title: 'the same without MMIO entries',
    vm: { params: { mmioCaching: false } },
  }),
];
