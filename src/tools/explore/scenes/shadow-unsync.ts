/** A guest changes its tables: the lowest level natively, as they go out of step; upper ones through the emulator. */
import { migratePage } from '../kernel-actors.ts';
import { type SceneSpec, scene } from '../scene.ts';
import {
  fourLevels,
  guestVcpu,
  invlpg,
  loadCr3,
  pte,
  readAt,
  type ShadowGuard,
  writeAt,
  writePte,
} from '../shadow-scene.ts';

const [TOP, THIRD, SECOND, LAST] = [0x10, 0x11, 0x12, 0x13] as const;
const DATA = 0x14;
const OTHER = 0x15;
/** Page 1 is data, page 2 the last table, page 3 the one above it. */
const TABLES = fourLevels([TOP, THIRD, SECOND, LAST], { 1: pte(DATA), 2: pte(LAST), 3: pte(SECOND) });

const unsync: SceneSpec = {
  name: 'shadow-unsync',
  title: 'a guest changes an entry of its last table, which it may write and which goes out of step, and flushes it',
  claim:
    'mmu_try_to_unsync_pages, kvm_mmu_invalidate_addr: a table of the lowest level may be written; its shadow is good until INVLPG',
  vm: { paging: 'shadow' },
  slots: [{ id: 0, gfn: TOP, pages: 6 }],
  tables: TABLES,
  actors: [
    guestVcpu(TOP, [writePte(2, 1, pte(OTHER)), invlpg(1), writeAt(1)], { before: [writeAt(1)] }),
    guestVcpu(TOP, [readAt(1), readAt(1)]),
  ],
  expect: 'safe',
};
const cr3: SceneSpec = {
  ...unsync,
  name: 'shadow-unsync-cr3',
  title: 'a guest changes its last table while another processor loads CR3',
  claim: 'kvm_mmu_sync_roots: what is unsync below the root is write-protected first and then brought in line',
  actors: [
    guestVcpu(TOP, [writePte(2, 1, pte(OTHER)), writePte(2, 1, pte(DATA)), loadCr3(TOP), readAt(1)], {
      before: [readAt(1)],
    }),
    guestVcpu(TOP, [loadCr3(TOP), readAt(1)], { before: [readAt(1)] }),
  ],
};
const emulated: SceneSpec = {
  ...unsync,
  name: 'shadow-emulated-write',
  title: 'a guest writes an entry of an upper table, which is emulated, while another processor walks through it',
  claim:
    'kvm_mmu_track_write, FNAME(gpte_changed): either the fault sees the new entry once it has protected the table, or the write finds the shadow',
  slots: [{ id: 0, gfn: TOP, pages: 7 }],
  tables: [...TABLES, { gfn: 0x16, entries: { 1: pte(OTHER) } }],
  actors: [
    guestVcpu(TOP, [writePte(3, 0, pte(0x16)), invlpg(1), readAt(1)], { before: [readAt(2)] }),
    guestVcpu(TOP, [readAt(1)]),
  ],
};
/** The second table is mapped into itself: below its entry 1 it is a last table, too. Page 512 is the last table then, and 513 itself. */
const recursive: SceneSpec = {
  ...unsync,
  name: 'shadow-unsync-emulated-write',
  title:
    'one processor writes the last table natively, the other puts another in its place through the emulator; the table above maps itself',
  claim:
    'mmu_try_to_unsync_pages, kvm_gfn_is_write_tracked: a page that is an upper table anywhere is never written natively; last tables go out of step by themselves',
  slots: [{ id: 0, gfn: TOP, pages: 7 }],
  tables: [
    { gfn: TOP, entries: { 0: pte(THIRD) } },
    { gfn: THIRD, entries: { 0: pte(SECOND) } },
    { gfn: SECOND, entries: { 0: pte(LAST), 1: pte(SECOND) } },
    { gfn: LAST, entries: { 1: pte(DATA) } },
    { gfn: 0x16, entries: { 1: pte(OTHER) } },
  ],
  actors: [
    guestVcpu(TOP, [writePte(513, 0, pte(0x16)), invlpg(1), readAt(1)], { before: [readAt(1)] }),
    guestVcpu(TOP, [writePte(512, 1, pte(OTHER, '-w')), invlpg(1), readAt(1)]),
  ],
};

const unprotect: SceneSpec = {
  ...unsync,
  name: 'shadow-unprotect',
  title:
    'a guest writes data into a page that holds one of its upper tables, with an instruction that writes no tables',
  claim:
    '__kvm_mmu_unprotect_gfn_and_retry: shadows are dropped and the write is tried natively, but not twice in a row, as its own walk may shadow the page again',
  actors: [guestVcpu(TOP, [writeAt(3)]), guestVcpu(TOP, [readAt(1)], { before: [readAt(1)] })],
};

const STALE = 'after INVLPG, or a load of CR3';
const DISAGREES = 'where a table is write-protected';

function twin(of: SceneSpec, name: string, title: string, without: ShadowGuard, violates: string) {
  return scene({ ...of, name, title, vm: { ...of.vm, without: [without] }, guardOf: of.name, expect: { violates } });
}

export const shadowUnsync = [
  scene(unsync),
  twin(unsync, 'shadow-invlpg-no-sync', 'the same when INVLPG only flushes', 'invlpg-sync', STALE),
  scene({
    ...unsync,
    name: 'shadow-unsync-page-moves',
    title: 'the same while the host moves the page',
    actors: [unsync.actors[0]!, migratePage(DATA)],
  }),
  scene(cr3),
  twin(cr3, 'shadow-cr3-no-sync', 'the same when a load of CR3 only flushes', 'cr3-sync', STALE),
  twin(
    cr3,
    'shadow-no-remote-flush',
    'the same when who protects a table waits for nobody who still may write it',
    'remote-flush',
    DISAGREES,
  ),
  scene(emulated),
  twin(
    emulated,
    'shadow-no-recheck',
    'the same when the fault does not look at the entry again',
    'gpte-recheck',
    DISAGREES,
  ),
  twin(
    emulated,
    'shadow-write-not-tracked',
    'the same when the MMU is not told of the write',
    'track-write',
    DISAGREES,
  ),
  twin(
    emulated,
    'shadow-tracked-too-early',
    'the same when the MMU is told before the write',
    'track-after-write',
    DISAGREES,
  ),
  scene(unprotect),
  scene({
    ...unprotect,
    name: 'shadow-unprotect-for-ever',
    title: 'the same when nobody remembers that it was tried',
    vm: { ...unprotect.vm, without: ['retry-guard'] },
    guardOf: unprotect.name,
    expect: 'livelock',
  }),
  scene(recursive),
  scene({
    ...recursive,
    name: 'shadow-flush-during-emulation',
    title:
      'the same where a flush counts that another processor does while KVM is in the middle of emulating the write',
    alsoForbids: ['stale-during-emulation'],
    judgement:
      'harmless: the new entry is in memory a moment before its shadow is dropped, and who sees it there and flushes may use the old one for that moment; a guest that waits for the writer before it flushes, as all do, sees nothing. Under hardware with two-dimensional paging there is no such moment.',
    expect: { violates: STALE },
  }),
];
