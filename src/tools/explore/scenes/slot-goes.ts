/** A slot is deleted or moved while a vCPU faults on it, or uses it. */
import { memslotInvalidateStages } from '../../../kvm/actors/memslot-update.ts';
import { deleteSlot, migratePage, moveSlot, withStage } from '../kernel-actors.ts';
import { read, type SceneSpec, scene, vcpu, withoutStage, write } from '../scene.ts';

const KVM_X86_QUIRK_SLOT_ZAP_ALL = 1 << 7;
const base: SceneSpec = {
  name: 'slot-deleted',
  title: 'a fault on a slot that is being deleted; every mapping of the VM goes with it',
  claim:
    'kvm_set_memslot: under the INVALID copy faults retry, so nothing of the slot is mapped once it has been zapped',
  slots: [{ id: 0, gfn: 0x100, pages: 1 }],
  actors: [vcpu([write(0x100)]), deleteSlot(0)],
  expect: 'safe',
};
const own: SceneSpec = {
  ...base,
  name: 'slot-deleted-alone',
  title: 'the same when only its own mappings go',
  vm: { quirks: KVM_X86_QUIRK_SLOT_ZAP_ALL },
};
const bad = { guardOf: own.name, expect: { violates: 'no mapping of a gfn that no slot has' } } as const;
const noGrace = withStage(memslotInvalidateStages, 'synchronize-srcu', { ready: () => true });
const noWait = withStage(memslotInvalidateStages, 'flushed', { ready: () => true });
const uncounted = withStage(memslotInvalidateStages, 'install-invalid', { ready: () => true });
const used = vcpu([read(0x100), read(0x100)], { before: [read(0x100)] });

export const slotGoes = [
  scene(base),
  scene(own),
  scene({
    ...own,
    name: 'slot-invalid-not-retried',
    title: 'the same without the retry on an INVALID slot',
    revision: withoutStage('linux-6.12', 'invalid-slot'),
    guardOf: own.name,
    expect: { violates: "KVM's own checks hold" },
  }),
  scene({
    ...own,
    ...bad,
    name: 'slot-deleted-no-grace',
    title: 'the same when nobody waits for those who looked the slot up before',
    actors: [own.actors[0]!, deleteSlot(0, noGrace)],
  }),
  scene({
    ...base,
    name: 'slot-deleted-in-use',
    title: 'a slot is deleted that a vCPU has in its TLB',
    actors: [used, deleteSlot(0)],
  }),
  scene({
    ...own,
    name: 'slot-deleted-alone-in-use',
    title: 'the same when only its own mappings go',
    actors: [used, deleteSlot(0)],
  }),
  scene({
    ...own,
    ...bad,
    name: 'slot-deleted-not-awaited',
    title: 'the same when nobody waits for the flush to arrive',
    actors: [used, deleteSlot(0, noWait)],
  }),
  scene({
    ...base,
    name: 'slot-moved',
    title: 'a fault on a slot that moves',
    actors: [vcpu([write(0x100), write(0x101)]), moveSlot(0, 0x101)],
  }),
  scene({
    ...own,
    name: 'slot-deleted-in-invalidation',
    title: 'a slot is deleted while the host moves its page',
    actors: [...own.actors, migratePage(0x100)],
  }),
  scene({
    ...own,
    name: 'invalidations-not-counted',
    title: 'the same when the slots do not wait for the end of invalidations',
    actors: [own.actors[0]!, deleteSlot(0, uncounted), migratePage(0x100)],
    guardOf: 'slot-deleted-in-invalidation',
    expect: { violates: "KVM's own checks hold" },
  }),
];
