/** The dirty log with more going on. */
import { KVM_MEM_LOG_DIRTY_PAGES } from '../../../kvm/memslots/memslot.ts';
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
];
