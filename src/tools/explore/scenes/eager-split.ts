/** Huge pages of a slot that is to be logged are split at once, while vCPUs use them. */
import { memslotReplaceStages } from '../../../kvm/actors/memslot-update.ts';
import { KVM_MEM_LOG_DIRTY_PAGES } from '../../../kvm/memslots/memslot.ts';
import { inTurn, invalidateRange, setFlags, without } from '../kernel-actors.ts';
import { read, type SceneSpec, scene, vcpu, write } from '../scene.ts';

const uses = vcpu([write(0x200), write(0x201)], { before: [write(0x200)] });
const base: SceneSpec = {
  name: 'huge-page-split-for-log',
  title: 'dirty logging begins on a huge page that one vCPU writes and another one reads',
  claim:
    'kvm_mmu_slot_try_split_huge_pages: small pages take the place of a huge one at once, and lose nothing but write access',
  slots: [{ id: 0, gfn: 0x200, pages: 512, host: 'huge' }],
  actors: [uses, vcpu([read(0x201)]), setFlags(0, KVM_MEM_LOG_DIRTY_PAGES)],
  expect: 'safe',
};

export const eagerSplit = [
  scene(base),
  scene({
    ...base,
    name: 'huge-page-split-late',
    title: 'the same with kvm.eager_page_split off: the page is split by the fault that writes it',
    vm: { params: { eagerPageSplit: false } },
  }),
  scene({
    ...base,
    name: 'huge-page-split-not-protected',
    title: 'the same when the small pages stay writable',
    actors: [uses, setFlags(0, KVM_MEM_LOG_DIRTY_PAGES, without(memslotReplaceStages, 'write-protect'))],
    guardOf: base.name,
    expect: { violates: 'a page that the guest wrote' },
  }),
  scene({
    ...base,
    name: 'huge-page-split-invalidated',
    title: 'the same while the host invalidates the page',
    actors: [uses, setFlags(0, KVM_MEM_LOG_DIRTY_PAGES), invalidateRange(0x200, 512)],
  }),
  scene({
    ...base,
    name: 'huge-page-split-and-back',
    title: 'dirty logging begins and ends again: the small pages give way to a huge one',
    claim: 'kvm_mmu_zap_collapsible_sptes: what could be huge is, once logging has ended',
    actors: [uses, inTurn(setFlags(0, KVM_MEM_LOG_DIRTY_PAGES), setFlags(0, 0))],
  }),
];
