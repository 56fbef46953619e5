/** Shared becomes private, and back, while a vCPU faults. */
import { move } from '../../../kvm/mmu/revisions/edit.ts';
import { setAttributes } from '../kernel-actors.ts';
import { edited, type SceneSpec, scene, vcpu, withoutStage, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'lost-attribute-change',
  title: 'a shared fault while its frame becomes private',
  claim:
    'kvm_faultin_pfn: the sequence is read before the attribute, so that a change in between is seen under mmu_lock',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true }],
  actors: [vcpu([write(0x100)]), setAttributes(0x100, 1, 'private')],
  expect: 'safe',
};
const bad = { guardOf: base.name, expect: { violates: 'a private gfn is not mapped' } } as const;
const late = edited('linux-6.12', 'with a late snapshot', (s) => move(s, 'snapshot-sequence', 'no-slot'));
const unchecked = withoutStage('linux-6.12', 'stale-check');

export const attributeChange = [
  scene(base),
  scene({
    ...base,
    ...bad,
    name: 'second-snapshot',
    title: 'the same with the second snapshot of the series as posted',
    revision: 'series-v2',
  }),
  scene({
    ...base,
    ...bad,
    name: 'snapshot-after-check',
    title: 'the same with the snapshot after the private/shared check',
    revision: late,
  }),
  scene({
    ...base,
    ...bad,
    name: 'attribute-no-stale-check',
    title: 'the same without the check under mmu_lock',
    revision: unchecked,
  }),
];
