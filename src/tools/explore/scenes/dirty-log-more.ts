/** The dirty log with more going on. */
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../../../kvm/memslots/memslot.ts';
import { agePage, getDirtyLog, inTurn, migratePage, setFlags } from '../kernel-actors.ts';
import { read, type SceneSpec, scene, vcpu, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'dirty-log-page-moves',
  title: 'the dirty log is taken while the host moves the page and a vCPU writes it',
  claim: 'fast_page_fault: write access comes back by compare-exchange, so that an entry that went does not',
  slots: [{ id: 0, gfn: 0x100, pages: 1, flags: KVM_MEM_LOG_DIRTY_PAGES }],
  actors: [vcpu([write(0x100), write(0x100)], { before: [write(0x100)] }), getDirtyLog(0), migratePage(0x100)],
  expect: 'safe',
};
const huge: SceneSpec = {
  ...base,
  name: 'dirty-log-ends',
  title: 'dirty logging ends, small pages give way to a huge one, while vCPUs fault',
  claim: 'tdp_mmu_zap_spte_atomic: a table that is cut off takes no new entries',
  slots: [{ id: 0, gfn: 0x200, pages: 512, host: 'huge', flags: KVM_MEM_LOG_DIRTY_PAGES }],
  actors: [vcpu([write(0x201)]), vcpu([write(0x200)], { before: [write(0x200)] }), setFlags(0, 0)],
};

export const dirtyLogMore = [
  scene(base),
  scene({
    ...base,
    name: 'dirty-log-twice',
    title: 'the dirty log is taken twice while a vCPU writes',
    actors: [base.actors[0]!, inTurn(getDirtyLog(0), getDirtyLog(0))],
  }),
  scene({
    ...base,
    name: 'dirty-log-ages',
    title: 'the dirty log is taken while the page is aged',
    actors: [base.actors[0]!, getDirtyLog(0), agePage(0x100, false)],
  }),
  scene({
    ...base,
    name: 'dirty-log-read-first',
    title: 'two vCPUs read and write a page of a logged slot that nobody has touched',
    actors: [vcpu([read(0x100), write(0x100)]), vcpu([write(0x100)]), getDirtyLog(0)],
  }),
  scene(huge),
  scene({
    ...base,
    name: 'flags-refused',
    title: 'userspace tries to make a slot read-only while a vCPU writes it: nothing changes',
    claim: '__kvm_set_memory_region: whether a slot is read-only is settled when it is made',
    actors: [base.actors[0]!, setFlags(0, KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY), getDirtyLog(0)],
  }),
  scene({
    ...base,
    name: 'log-of-smm',
    title: 'dirty logging of the ordinary slot begins while a vCPU in SMM writes the same memory by a slot of its own',
    claim: 'kvm_mmu_slot_apply_flags: only page tables of the address space of the slot change',
    slots: [
      { id: 0, gfn: 0x100, pages: 1 },
      { id: 0, gfn: 0x100, pages: 1, asId: 1, sameMemoryAs: 0 },
    ],
    actors: [
      vcpu([write(0x100)], { before: [write(0x100)] }),
      vcpu([write(0x100)], { smm: true, before: [write(0x100)] }),
      setFlags(0, KVM_MEM_LOG_DIRTY_PAGES),
    ],
  }),
];
