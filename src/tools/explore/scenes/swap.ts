/** Pages go to swap and come back while vCPUs fault on them. */
import { dropPage, rangeBracket, setAttributes, withStage } from '../kernel-actors.ts';
import { pageOut, swapIn, touchPage } from '../kernel-actors-swap.ts';
import { read, type SceneSpec, scene, vcpu, withoutStage, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'page-out',
  title: 'a page goes to swap while a vCPU writes it, and comes back by its fault in another frame',
  claim: 'kvm_mmu_notifier_invalidate_range_start: a page that was unmapped is not written through an old translation',
  slots: [{ id: 0, gfn: 0x100, pages: 1 }],
  actors: [vcpu([write(0x100), write(0x100)], { before: [write(0x100)] }), pageOut(0x100)],
  expect: 'safe',
};
const noFlush = {
  ...rangeBracket,
  start: withStage(withStage(rangeBracket.start, 'flush', { run: () => 0 }), 'flushed', { ready: () => true }),
};
const sleeps: SceneSpec = {
  ...base,
  name: 'page-in-async',
  title: 'a vCPU sleeps while the host reads its page from swap, and the frame becomes private meanwhile',
  claim: 'kvm_arch_async_page_ready: the fault is done again with everything looked up anew',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 1, gmem: true, host: 'swapped' }],
  actors: [vcpu([write(0x100)], { async: true }), swapIn(), setAttributes(0x100, 1, 'private')],
};

export const swapping = [
  scene(base),
  scene({
    ...base,
    name: 'page-out-not-flushed',
    title: 'the same without the flush',
    actors: [base.actors[0]!, pageOut(0x100, noFlush)],
    guardOf: base.name,
    expect: { violates: 'no TLB holds' },
  }),
  scene({
    ...base,
    name: 'page-out-no-stale-check',
    title: 'a page goes to swap while a vCPU faults on it, without the check under mmu_lock',
    actors: [vcpu([write(0x100)]), pageOut(0x100)],
    revision: withoutStage('linux-6.12', 'stale-check'),
    guardOf: base.name,
    expect: { violates: 'no entry maps' },
  }),
  scene({
    ...base,
    name: 'page-out-two-vcpus',
    title: 'a page goes to swap while the process reads it and two vCPUs use it',
    actors: [base.actors[0]!, vcpu([read(0x100)]), pageOut(0x100), touchPage(0x100)],
  }),
  scene(sleeps),
  scene({
    ...sleeps,
    name: 'page-in-async-no-stale-check',
    title: 'the same without the check under mmu_lock',
    revision: withoutStage('linux-6.12', 'stale-check'),
    guardOf: sleeps.name,
    expect: { violates: 'a private gfn is not mapped' },
  }),
  scene({
    ...sleeps,
    name: 'page-in-async-page-goes',
    title: 'the page that the vCPU waits for comes and goes',
    actors: [vcpu([write(0x100), read(0x100)], { async: true }), swapIn(), dropPage(0x100)],
  }),
];
