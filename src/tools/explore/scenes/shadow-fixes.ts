/** What was wrong in the shadow MMU of Linux 6.12 before its later fixes: each scene on the last revision, and on the one before its fix. */
import { type Scene, type SceneSpec, scene } from '../scene.ts';
import { userWritesPte } from '../shadow-actors.ts';
import { fourLevels, guestVcpu, hugePte, invlpg, loadCr3, pte, readAt, writeAt, writePte } from '../shadow-scene.ts';

/** The scene, and the same before patch `n` of linux-6.12. */
function fixedBy(n: number, spec: SceneSpec, violates: string): readonly Scene[] {
  return [
    scene({ ...spec, revision: `linux-6.12@${n}` }),
    scene({
      ...spec,
      name: `${spec.name}-before`,
      title: 'the same before the fix',
      revision: `linux-6.12@${n - 1}`,
      guardOf: spec.name,
      expect: { violates },
    }),
  ];
}

const [TOP, THIRD, SECOND, LAST] = [0x10, 0x11, 0x12, 0x13] as const;
const DATA = 0x14;
const NOWHERE = 0x1000;
const own: Pick<SceneSpec, 'vm' | 'slots' | 'expect'> = {
  vm: { paging: 'shadow' },
  slots: [{ id: 0, gfn: TOP, pages: 6 }],
  expect: 'safe',
};

const mmioOverPresent: SceneSpec = {
  ...own,
  name: 'shadow-mmio-over-present',
  title: 'userspace makes MMIO of a page that is mapped, read-only, and that the guest writes',
  claim: 'mmu_set_spte: what the entry maps goes, and is forgotten, before an MMIO entry is written over it',
  tables: fourLevels([TOP, THIRD, SECOND, LAST], { 1: pte(DATA, '-w') }),
  actors: [guestVcpu(TOP, [writeAt(1)], { before: [readAt(1)] }), userWritesPte(LAST, 1, pte(NOWHERE))],
};

const OTHER_LAST = 0x15;
const otherTable: SceneSpec = {
  ...own,
  name: 'shadow-other-table',
  title: 'userspace puts another last table into an upper one',
  claim:
    'kvm_mmu_get_child_sp: the page below an entry is used again only if it shadows the table that the guest has there now',
  tables: [...fourLevels([TOP, THIRD, SECOND, LAST], { 1: pte(DATA) }), { gfn: OTHER_LAST, entries: { 2: pte(DATA) } }],
  actors: [guestVcpu(TOP, [readAt(2)], { before: [readAt(1)] }), userWritesPte(SECOND, 0, pte(OTHER_LAST))],
};

const HUGE = 0x200;
const OTHER_HUGE = 0x400;
const upper = [
  { gfn: TOP, entries: { 0: pte(THIRD) } },
  { gfn: THIRD, entries: { 0: pte(SECOND) } },
  { gfn: SECOND, entries: { 0: hugePte(HUGE) } },
];
const otherHuge: SceneSpec = {
  ...own,
  name: 'shadow-other-huge-page',
  title: 'userspace puts another huge page into an upper table',
  claim: otherTable.claim,
  slots: [
    { id: 0, gfn: TOP, pages: 3 },
    { id: 1, gfn: HUGE, pages: 1 },
    { id: 2, gfn: OTHER_HUGE, pages: 2 },
  ],
  tables: upper,
  actors: [guestVcpu(TOP, [readAt(1)], { before: [readAt(0)] }), userWritesPte(SECOND, 0, hugePte(OTHER_HUGE))],
};

const hugeToTable: SceneSpec = {
  ...own,
  name: 'shadow-huge-page-to-table',
  title: 'userspace makes a table of what was the first frame of a huge page',
  claim: 'kvm_mmu_get_child_sp: ... and only if it has the role that it must have now',
  slots: [
    { id: 0, gfn: TOP, pages: 3 },
    { id: 1, gfn: HUGE, pages: 1 },
    { id: 2, gfn: DATA, pages: 1 },
  ],
  tables: [...upper, { gfn: HUGE, entries: { 1: pte(DATA) } }],
  actors: [guestVcpu(TOP, [readAt(1)], { before: [readAt(0)] }), userWritesPte(SECOND, 0, pte(HUGE))],
};

/** The same three without userspace: the guest does it by itself, natively in a last table, through the emulator in an upper one. */
const mmioAlone: SceneSpec = {
  ...mmioOverPresent,
  name: 'shadow-mmio-over-present-alone',
  title:
    'a guest makes MMIO of a page that is mapped, read-only, in a table that is out of step, and writes it without a flush',
  tables: fourLevels([TOP, THIRD, SECOND, LAST], { 1: pte(DATA, '-w'), 2: pte(LAST) }),
  actors: [guestVcpu(TOP, [writePte(2, 1, pte(NOWHERE)), writeAt(1)], { before: [readAt(1)] })],
};

const tableRaced: SceneSpec = {
  ...otherTable,
  name: 'shadow-other-table-raced',
  title:
    'a guest puts another last table into an upper one; a fault comes between the emulated write and what the MMU makes of it',
  tables: [
    ...fourLevels([TOP, THIRD, SECOND, LAST], { 1: pte(DATA, '-a'), 2: pte(DATA), 3: pte(SECOND) }),
    { gfn: OTHER_LAST, entries: { 1: pte(OTHER_LAST) } },
  ],
  actors: [
    guestVcpu(TOP, [writePte(3, 0, pte(OTHER_LAST))], { before: [readAt(3)] }),
    guestVcpu(TOP, [readAt(1)], { before: [readAt(2)] }),
  ],
};

/** Entry 1 of the third table leads to a last table that maps the third one: page 512. */
const upperMapped = [...upper.slice(0, 2), { gfn: SECOND, entries: { 0: hugePte(HUGE), 1: pte(LAST) } }];
const mapsUpper = { gfn: LAST, entries: { 0: pte(SECOND) } };
const hugeRaced: SceneSpec = {
  ...otherHuge,
  name: 'shadow-other-huge-page-raced',
  title: 'the same with another huge page',
  slots: [
    { id: 0, gfn: TOP, pages: 4 },
    { id: 1, gfn: HUGE, pages: 1 },
    { id: 2, gfn: OTHER_HUGE, pages: 2 },
  ],
  tables: [...upperMapped, mapsUpper],
  actors: [
    guestVcpu(TOP, [writePte(512, 0, hugePte(OTHER_HUGE))], { before: [readAt(512)] }),
    guestVcpu(TOP, [readAt(1)], { before: [readAt(0)] }),
  ],
};
const hugeToTableRaced: SceneSpec = {
  ...hugeToTable,
  name: 'shadow-huge-page-to-table-raced',
  title: 'the same with a table in the place of a huge page',
  slots: [
    { id: 0, gfn: TOP, pages: 4 },
    { id: 1, gfn: HUGE, pages: 1 },
    { id: 2, gfn: DATA, pages: 1 },
  ],
  tables: [...upperMapped, mapsUpper, { gfn: HUGE, entries: { 1: pte(DATA) } }],
  actors: [
    guestVcpu(TOP, [writePte(512, 0, pte(HUGE))], { before: [readAt(512)] }),
    guestVcpu(TOP, [readAt(1)], { before: [readAt(0)] }),
  ],
};

const SMM_TOP = 0x14;
const SMM_LAST = 0x15;
const smmTable: SceneSpec = {
  ...own,
  name: 'shadow-smm-table',
  title: 'a guest writes a table that only another vCPU, in system management mode, uses',
  claim: 'kvm_gfn_is_write_tracked: a table that is shadowed in one address space is write-protected in the other',
  slots: [
    { id: 0, gfn: TOP, pages: 6 },
    { id: 0, gfn: TOP, pages: 6, asId: 1, sameMemoryAs: 0 },
  ],
  tables: [
    ...fourLevels([TOP, THIRD, SECOND, LAST], { 1: pte(0x15), 2: pte(SMM_TOP) }),
    { gfn: SMM_TOP, entries: { 0: pte(THIRD) } },
  ],
  actors: [
    guestVcpu(SMM_TOP, [readAt(1)], { before: [readAt(1)], smm: true }),
    guestVcpu(TOP, [writePte(2, 0, pte(THIRD, '-w'))]),
  ],
};

const FLUSHED = 'after INVLPG, or a load of CR3';
const WRITABLE_TABLE = 'no entry is writable whose page holds a table';
const DISAGREES = 'where a table is write-protected';
/** What the fix leaves: the page is mapped before it is a table. What comes of that is looked for, not the state by itself. */
const smmMappedBefore: SceneSpec = {
  ...smmTable,
  vm: { paging: 'shadow', passesOver: [WRITABLE_TABLE, DISAGREES] },
  name: 'shadow-smm-table-mapped-before',
  title: 'a guest has a page mapped writable that becomes a table of another vCPU, in system management mode',
  claim: 'account_shadowed: a table that is shadowed is write-protected wherever it is mapped',
  actors: [
    guestVcpu(SMM_TOP, [readAt(1), loadCr3(SMM_TOP), writeAt(1)], { smm: true }),
    guestVcpu(TOP, [writePte(2, 0, pte(THIRD, '-w'))], { before: [writeAt(2)] }),
  ],
  judgement:
    "a bug: only the entries of the table's own address space are write-protected, so one that is writable in the other stays so, and writes through it are not seen. The guest alone is harmed, one whose SMM has its tables where the rest can write them. Under two-dimensional paging nothing is shadowed.",
  expect: { violates: FLUSHED },
};

const smmLastTable: SceneSpec = {
  ...smmMappedBefore,
  name: 'shadow-smm-last-table-mapped-before',
  title: 'the same with a table of the lowest level, which does not go out of step then',
  tables: [
    ...fourLevels([TOP, THIRD, SECOND, LAST], { 2: pte(SMM_LAST) }),
    // One frame for the three upper tables: its entry 0 leads to itself, entry 1 of the third time to the last table.
    { gfn: SMM_TOP, entries: { 0: pte(SMM_TOP), 1: pte(SMM_LAST) } },
    { gfn: SMM_LAST, entries: { 1: pte(SMM_TOP) } },
  ],
  actors: [
    guestVcpu(SMM_TOP, [readAt(513), invlpg(513), readAt(513)], { smm: true }),
    guestVcpu(TOP, [writePte(2, 1, pte(0x15, '-w'))], { before: [writeAt(2)] }),
  ],
};

export const shadowFixes: readonly Scene[] = [
  ...fixedBy(17, mmioOverPresent, "KVM's own checks hold"),
  ...fixedBy(18, otherTable, 'where a table is write-protected'),
  ...fixedBy(18, otherHuge, "KVM's own checks hold"),
  ...fixedBy(19, hugeToTable, "KVM's own checks hold"),
  ...fixedBy(17, mmioAlone, "KVM's own checks hold"),
  ...fixedBy(18, tableRaced, DISAGREES),
  ...fixedBy(18, hugeRaced, "KVM's own checks hold"),
  ...fixedBy(19, hugeToTableRaced, "KVM's own checks hold"),
  ...fixedBy(21, smmTable, "KVM's own checks hold"),
  scene(smmMappedBefore),
  scene(smmLastTable),
];
