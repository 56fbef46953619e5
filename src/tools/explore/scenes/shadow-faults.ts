/** Faults of a guest whose tables KVM shadows, while the host moves the page, takes the slot, or wants the room. */
import { agePage, createSlot, deleteSlot, migratePage } from '../kernel-actors.ts';
import { ruled, type SceneSpec, scene, withoutStage } from '../scene.ts';
import { fourLevels, guestVcpu, pte, readAt, writeAt } from '../shadow-scene.ts';

/** Tables in frames 0x10 to 0x13, data in 0x14 and 0x15 at pages 1 and 2. */
const CR3 = 0x10;
const TABLES = fourLevels([CR3, 0x11, 0x12, 0x13], { 1: pte(0x14), 2: pte(0x15) });
const ZAP_ONE_SLOT = 1 << 7;
const NOWHERE = 0x20;

const base: SceneSpec = {
  name: 'shadow-page-moves',
  title: 'writes of a guest whose tables are shadowed, while the host moves the page',
  claim:
    'FNAME(page_fault): mmu_lock is held for write from is_page_fault_stale to the entry, so the rmap has every entry that a zap must find',
  vm: { paging: 'shadow' },
  slots: [{ id: 0, gfn: CR3, pages: 6 }],
  tables: TABLES,
  actors: [guestVcpu(CR3, [writeAt(1), writeAt(1)]), migratePage(0x14)],
  expect: 'safe',
};
const uses = guestVcpu(CR3, [readAt(1), writeAt(1)], { before: [writeAt(1)] });
const deleted: SceneSpec = {
  ...base,
  name: 'shadow-slot-deleted',
  title: 'a slot goes that a guest under shadow paging has used: all shadow pages of the VM are obsolete',
  claim: 'kvm_zap_obsolete_pages: a root that is obsolete is not used for another fault, and nothing is left below it',
  slots: [
    { id: 0, gfn: CR3, pages: 5 },
    { id: 1, gfn: 0x15, pages: 1 },
  ],
  actors: [guestVcpu(CR3, [readAt(2), writeAt(1)], { before: [readAt(2)] }), deleteSlot(1)],
};
const room: SceneSpec = {
  ...base,
  name: 'shadow-no-room',
  title: 'two vCPUs with so few shadow pages that each makes room at the cost of the other',
  claim: 'make_mmu_pages_available: pages that go for want of room are no longer used by anybody; roots in use stay',
  vm: { paging: 'shadow', mmuPages: 7 },
  tables: [...TABLES.slice(0, 3), { gfn: 0x13, entries: { 1: pte(0x14), 2: pte(0x14) } }],
  actors: [
    guestVcpu(CR3, [readAt(2)], { before: [writeAt(1)] }),
    guestVcpu(CR3, [readAt(1), writeAt(2)], { before: [readAt(1)] }),
  ],
};
const takesRoots: SceneSpec = {
  ...room,
  name: 'shadow-room-takes-root',
  title: 'a fault for which room is made, where that may cost the root in use',
  claim: 'kvm_mmu_page_fault: room is made before is_page_fault_stale, which then sees that the root is gone',
  vm: { paging: 'shadow', mmuPages: 6 },
  actors: [guestVcpu(CR3, [readAt(2)], { before: [readAt(1)] })],
  revision: ruled('linux-6.12@20', 'where room may take a root', { reclaimTakesRoots: true }),
};

export const shadowFaults = [
  scene(base),
  scene({
    ...base,
    name: 'shadow-page-moves-in-use',
    title: 'the host moves a page that two guests under shadow paging have in their TLBs',
    actors: [uses, guestVcpu(CR3, [readAt(1)], { before: [readAt(1)] }), migratePage(0x14)],
  }),
  scene({
    ...base,
    name: 'shadow-no-stale-check',
    title: 'the same without the check for staleness under mmu_lock',
    revision: withoutStage('linux-6.12', 'stale-check'),
    guardOf: base.name,
    expect: { violates: 'no entry maps a frame that its gfn no longer owns' },
  }),
  scene(deleted),
  scene({
    ...deleted,
    name: 'shadow-slot-deleted-alone',
    title: 'the same when only its own mappings go',
    vm: { paging: 'shadow', quirks: ZAP_ONE_SLOT },
  }),
  scene({
    ...deleted,
    name: 'shadow-obsolete-root-used',
    title: 'the same without the check for staleness under mmu_lock, which looks at the root, too',
    revision: withoutStage('linux-6.12', 'stale-check'),
    guardOf: deleted.name,
    expect: { violates: 'a table that was taken out of use has no entries' },
  }),
  scene({
    ...base,
    name: 'shadow-tables-slot-deleted',
    title: 'the slot goes that has the tables',
    claim:
      'kvm_mmu_zap_memslot_pages_and_flush: no shadow page outlives the slot of its table, with which its accounting goes',
    slots: [
      { id: 0, gfn: CR3, pages: 4 },
      { id: 1, gfn: 0x14, pages: 2 },
    ],
    vm: { paging: 'shadow', quirks: ZAP_ONE_SLOT },
    actors: [uses, deleteSlot(0)],
  }),
  scene({
    ...base,
    name: 'shadow-mmio-gets-a-slot',
    title: 'a guest under shadow paging reads where there is no slot while one is made there',
    claim: 'check_mmio_spte: an MMIO entry made for other slots than the present ones does not count',
    tables: fourLevels([CR3, 0x11, 0x12, 0x13], { 1: pte(NOWHERE) }),
    slots: [{ id: 0, gfn: CR3, pages: 4 }],
    actors: [guestVcpu(CR3, [readAt(1), readAt(1)]), createSlot(1, NOWHERE, 1)],
  }),
  scene({
    ...base,
    name: 'shadow-aging',
    title: 'the host asks whether a page was used that a guest under shadow paging writes',
    claim: 'kvm_age_gfn: A bits of all entries that the rmap leads to are cleared, and nothing else of them',
    actors: [uses, agePage(0x14, true)],
  }),
  scene(room),
  scene(takesRoots),
  scene({
    ...takesRoots,
    name: 'shadow-room-takes-root-before',
    title: 'the same before the fix',
    revision: ruled('linux-6.12@19', 'where room may take a root', { reclaimTakesRoots: true }),
    guardOf: takesRoots.name,
    expect: { violates: 'a table that was taken out of use has no entries' },
  }),
];
