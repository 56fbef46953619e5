/** Two vCPUs fault at the same time: both hold mmu_lock for read, compare-exchange decides. */
import { migratePage } from '../kernel-actors.ts';
import { read, ruled, type SceneSpec, scene, vcpu, write } from '../scene.ts';

const base: SceneSpec = {
  name: 'two-vcpus',
  title: 'two vCPUs fault on neighbours: who hangs the tables',
  claim: 'tdp_mmu_set_spte_atomic: an entry is only replaced while it is what was read',
  slots: [{ id: 0, gfn: 0x100, pages: 2 }],
  actors: [vcpu([write(0x100)]), vcpu([write(0x101)])],
  expect: 'safe',
};
const same: SceneSpec = {
  ...base,
  name: 'read-against-write',
  title: 'a read fault with a read-only answer against a write fault on the same page',
  claim: 'tdp_mmu_map_handle_target_level: an entry that allows the access already is not replaced by a lesser one',
  slots: [{ id: 0, gfn: 0x100, pages: 1, host: 'read-only' }],
  actors: [vcpu([read(0x100)]), vcpu([write(0x100)])],
  revision: ruled('linux-6.12', 'with the check of 6.13', { keepsAllowingEntries: true }),
};

export const twoVcpus = [
  scene(base),
  scene({
    ...base,
    name: 'two-vcpus-page-moves',
    title: 'two vCPUs fault on a page that the host moves',
    actors: [vcpu([write(0x100)]), vcpu([read(0x100)]), migratePage(0x100)],
  }),
  scene(same),
  scene({
    ...same,
    name: 'spurious-check',
    title: 'the same without that check, as until Linux 6.12',
    revision: 'linux-6.12',
    guardOf: same.name,
    expect: { violates: 'with nobody at work' },
  }),
];
