/** Pages are aged, and go, while a vCPU uses them. */
import { agePage, dropPage } from '../kernel-actors.ts';
import { type SceneSpec, scene, vcpu, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'page-ages',
  title: 'a vCPU writes a page that is aged without a flush',
  claim: 'kvm_mmu_notifier_clear_young: no flush is needed to forget an access',
  slots: [{ id: 0, gfn: 0x100, pages: 2 }],
  actors: [vcpu([write(0x100), write(0x100)], { before: [write(0x100)] }), agePage(0x100, false)],
  expect: 'safe',
};

export const aging = [
  scene(base),
  scene({
    ...base,
    name: 'page-ages-flushed',
    title: 'the same with a flush, and the page goes',
    actors: [base.actors[0]!, agePage(0x100, true), dropPage(0x100)],
  }),
];
