/** Faults of a guest whose tables KVM shadows, while the host moves the page or the guest changes its tables. */
import { migratePage } from '../kernel-actors.ts';
import { type SceneSpec, scene } from '../scene.ts';
import { fourLevels, guestVcpu, invlpg, pte, readAt, writeAt, writePte } from '../shadow-scene.ts';

/** Tables in frames 0x10 to 0x13, data in 0x14 and 0x15. Page 1 is the first of these; page 3 is the last table. */
const TABLES = fourLevels([0x10, 0x11, 0x12, 0x13], { 1: pte(0x14), 3: pte(0x13) });
const CR3 = 0x10;
const base: SceneSpec = {
  name: 'shadow-page-moves',
  title: 'a write of a guest whose tables are shadowed, while the host moves the page',
  claim:
    'FNAME(page_fault): mmu_lock is held for write from is_page_fault_stale to the entry, so the rmap has every entry that a zap must find',
  vm: { paging: 'shadow' },
  slots: [{ id: 0, gfn: 0x10, pages: 6 }],
  tables: TABLES,
  actors: [guestVcpu(CR3, [writeAt(1), writeAt(1)]), migratePage(0x14)],
  expect: 'safe',
};
const changes: SceneSpec = {
  ...base,
  name: 'shadow-unsync',
  title: 'a guest changes an entry of its last table, which is mapped writable and goes out of step, and flushes it',
  claim:
    'mmu_try_to_unsync_pages, kvm_mmu_invalidate_addr: a table of the lowest level may be written; its shadow is good until INVLPG',
  actors: [
    guestVcpu(CR3, [writePte(3, 1, pte(0x15)), invlpg(1), writeAt(1)], { before: [writeAt(1)] }),
    guestVcpu(CR3, [readAt(1), readAt(1)]),
  ],
};

export const shadowFaults = [
  scene(base),
  scene(changes),
  scene({
    ...changes,
    name: 'shadow-unsync-page-moves',
    title: 'the same while the host moves the page',
    actors: [changes.actors[0]!, migratePage(0x14)],
  }),
];
