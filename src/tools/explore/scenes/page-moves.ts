/** The host moves a page while a vCPU faults on it, and while a vCPU uses it. */
import { migratePage, rangeBracket, withStage } from '../kernel-actors.ts';
import { edited, type SceneSpec, scene, vcpu, withoutStage, write } from '../scene.ts';
import { onlyInProgress, onlySequence } from './halves-of-the-stale-check.ts';

const base: SceneSpec = {
  name: 'page-moves',
  title: 'a fault while the host moves its page to another frame',
  claim: 'mmu_invalidate_retry_gfn: a frame looked up before or during an invalidation is not mapped after it',
  slots: [{ id: 0, gfn: 0x100, pages: 1 }],
  actors: [vcpu([write(0x100)]), migratePage(0x100)],
  expect: 'safe',
};
const bad = { guardOf: base.name, expect: { violates: 'no entry maps' } } as const;
const half = (what: string, stage: typeof onlySequence) =>
  edited('linux-6.12', what, (s) => s.map((old) => (old.name === 'stale-check' ? stage : old)));
const used: SceneSpec = {
  ...base,
  name: 'page-moves-in-use',
  title: 'a vCPU writes a page, again and again, that the host moves to another frame',
  claim: 'kvm_mmu_notifier_invalidate_range_start: TLBs are flushed before the host may free the frame',
  actors: [vcpu([write(0x100), write(0x100)], { before: [write(0x100)] }), migratePage(0x100)],
};
const noFlush = {
  ...rangeBracket,
  start: withStage(withStage(rangeBracket.start, 'flush', { run: () => 0 }), 'flushed', { ready: () => true }),
};
const noWait = { ...rangeBracket, start: withStage(rangeBracket.start, 'flushed', { ready: () => true }) };
const usedBy = (bracket: typeof rangeBracket) => [used.actors[0]!, migratePage(0x100, bracket)];
const stale = { guardOf: used.name, expect: { violates: 'no TLB holds' } } as const;

export const pageMoves = [
  scene(base),
  scene({
    ...base,
    ...bad,
    name: 'page-moves-no-stale-check',
    title: 'the same without the check under mmu_lock',
    revision: withoutStage('linux-6.12', 'stale-check'),
  }),
  scene({
    ...base,
    ...bad,
    name: 'page-moves-sequence-only',
    title: 'the same when only the sequence is compared',
    revision: half('by sequence only', onlySequence),
  }),
  scene({
    ...base,
    ...bad,
    name: 'page-moves-in-progress-only',
    title: 'the same when only invalidations in progress count',
    revision: half('by progress only', onlyInProgress),
  }),
  scene(used),
  scene({ ...used, ...stale, name: 'flush-before-free', title: 'the same without the flush', actors: usedBy(noFlush) }),
  scene({
    ...used,
    ...stale,
    name: 'flush-not-awaited',
    title: 'the same when nobody waits for the flush to arrive',
    actors: usedBy(noWait),
  }),
];
