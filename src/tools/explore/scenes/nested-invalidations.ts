/** Invalidations that overlap: one range stands for all of them. */
import { rangeBegin } from '../../../kvm/actors/hva-range.ts';
import { invalidateRange, migratePage, rangeBracket, withStage } from '../kernel-actors.ts';
import { type SceneSpec, scene, vcpu, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'nested-invalidations',
  title: 'a fault on a page that moves while another invalidation begins and ends',
  claim:
    'kvm_mmu_invalidate_range_add: the range of invalidations in progress covers every one of them until the last has ended',
  slots: [{ id: 0, gfn: 0x100, pages: 2 }],
  actors: [vcpu([write(0x100)]), migratePage(0x100), invalidateRange(0x101, 1)],
  expect: 'safe',
};
/** Each begin starts a new range. */
const forgets = withStage(rangeBracket.start, 'invalidate-begin', {
  run(range) {
    const answer = rangeBegin.run(range);
    range.vm.mmuInvalidateRangeStart = -1;
    range.vm.mmuInvalidateRangeEnd = -1;
    return answer;
  },
});

export const nestedInvalidations = [
  scene(base),
  scene({
    ...base,
    name: 'range-forgotten',
    title: 'the same when the second one forgets the range of the first',
    actors: [base.actors[0]!, migratePage(0x100), invalidateRange(0x101, 1, { ...rangeBracket, start: forgets })],
    guardOf: base.name,
    expect: { violates: 'no entry maps' },
  }),
];
