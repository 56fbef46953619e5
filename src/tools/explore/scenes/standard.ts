/** The scenes that `softkvm bench explore` measures: large enough for the speed of their middle to count. */
import { migratePage, setAttributes } from '../kernel-actors.ts';
import { read, scene, vcpu, write } from '../scene.ts';

export const standard = [
  scene({
    name: 'standard',
    title: 'two vCPUs on two frames, of which the host moves one and the other becomes private',
    claim: 'is_page_fault_stale: whatever changes between the snapshot and the lock is seen',
    vm: { type: 'sw-protected' },
    slots: [{ id: 0, gfn: 0x100, pages: 2, gmem: true }],
    actors: [vcpu([write(0x100)]), vcpu([read(0x101)]), migratePage(0x100), setAttributes(0x101, 1, 'private')],
    expect: 'safe',
  }),
];

/** Large enough for threads: how long they take to start does not count. */
export const standardLarge = scene({
  name: 'standard-large',
  title: 'the same with vCPUs that go on to the other frame: millions of states, for `bench explore`',
  claim: 'is_page_fault_stale: whatever changes between the snapshot and the lock is seen',
  vm: { type: 'sw-protected' },
  slots: [{ id: 0, gfn: 0x100, pages: 2, gmem: true }],
  actors: [
    vcpu([write(0x100), read(0x101), write(0x101)]),
    vcpu([read(0x101), write(0x100), write(0x101)]),
    migratePage(0x100),
    setAttributes(0x101, 1, 'private'),
  ],
  expect: 'safe',
});
