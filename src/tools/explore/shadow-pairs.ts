/**
 * Scenes under shadow paging by the hundred: a processor that does a few things with its tables, another one, and the host. The second table of
 * the guest maps itself, so that last and upper tables can both be written, natively and through the emulator.
 */
import { KVM_X86_QUIRK_SLOT_ZAP_ALL } from '../../kvm/x86/vm-x86.ts';
import { agePage, deleteSlot, invalidateRange, migratePage } from './kernel-actors.ts';
import { type KernelSpec, type Scene, type SceneSpec, scene, type VcpuSpec } from './scene.ts';
import { userWritesPte } from './shadow-actors.ts';
import { type GuestOp, guestVcpu, invlpg, loadCr3, pte, readAt, writeAt, writePte } from './shadow-scene.ts';

const [TOP, THIRD, SECOND, LAST, DATA, OTHER, OTHER_LAST] = [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16] as const;
/** Linear pages of the last table and of the one above it. */
const LAST_PAGE = 512;
const SECOND_PAGE = 513;

const tables = [
  { gfn: TOP, entries: { 0: pte(THIRD) } },
  { gfn: THIRD, entries: { 0: pte(SECOND) } },
  { gfn: SECOND, entries: { 0: pte(LAST), 1: pte(SECOND) } },
  { gfn: LAST, entries: { 1: pte(DATA) } },
  { gfn: OTHER_LAST, entries: { 1: pte(OTHER) } },
];

/** What a processor may do, by letter: small ones access, capital ones change tables. */
const ops: Readonly<Record<string, GuestOp>> = {
  r: readAt(1),
  w: writeAt(1),
  i: invlpg(1),
  c: loadCr3(TOP),
  M: writePte(LAST_PAGE, 1, pte(OTHER)),
  P: writePte(LAST_PAGE, 1, pte(DATA, '-w')),
  Z: writePte(LAST_PAGE, 1, 0),
  U: writePte(SECOND_PAGE, 0, pte(OTHER_LAST)),
  R: writePte(SECOND_PAGE, 0, pte(LAST, '-w')),
};

function processor(program: string, before: string): VcpuSpec {
  const spell = (word: string): GuestOp[] => [...word].map((letter) => ops[letter]!);
  return guestVcpu(TOP, spell(program), { before: spell(before) });
}

const firsts = ['rw', 'Mir', 'Zir', 'Piw', 'Uir', 'Riw', 'Mcr', 'Ucr'];
const seconds = ['', 'r', 'w', 'ir', 'cr', 'Mir', 'Piw', 'Uir', 'Riw'];

type World = Pick<SceneSpec, 'vm' | 'slots'>;

const worlds: Readonly<Record<string, World>> = {
  plain: { vm: { paging: 'shadow' }, slots: [{ id: 0, gfn: TOP, pages: 7 }] },
  'little-room': { vm: { paging: 'shadow', mmuPages: 9 }, slots: [{ id: 0, gfn: TOP, pages: 7 }] },
  'two-slots': {
    vm: { paging: 'shadow' },
    slots: [
      { id: 0, gfn: TOP, pages: 4 },
      { id: 1, gfn: DATA, pages: 3 },
    ],
  },
};
const zapOne: World = { ...worlds['two-slots']!, vm: { paging: 'shadow', quirks: KVM_X86_QUIRK_SLOT_ZAP_ALL } };

const hosts: readonly (readonly [string, (world: string) => boolean, () => readonly KernelSpec[]])[] = [
  ['nobody', () => true, () => []],
  ['moves', (w) => w !== 'two-slots', () => [migratePage(DATA)]],
  ['moves-other', (w) => w === 'plain', () => [migratePage(OTHER)]],
  ['invalidates-table', (w) => w === 'plain', () => [invalidateRange(LAST, 1)]],
  ['ages', (w) => w === 'plain', () => [agePage(DATA, true)]],
  ['writes', (w) => w === 'plain', () => [userWritesPte(SECOND, 0, pte(OTHER_LAST))]],
  ['deletes', (w) => w === 'two-slots' || w === 'zap-one', () => [deleteSlot(1)]],
];

/** Beside the host the second processor only accesses and flushes. */
const simple = (program: string): boolean => program === program.toLowerCase();

export function* shadowPairScenes(): Generator<Scene> {
  for (const [world, config] of [...Object.entries(worlds), ['zap-one', zapOne] as const]) {
    for (const [host, fits, make] of hosts) {
      if (!fits(world)) continue;
      for (const first of firsts) {
        for (const second of seconds) {
          if (host !== 'nobody' && !simple(second)) continue;
          for (const before of ['', 'w']) {
            const others = second === '' ? [] : [processor(second, before)];
            yield scene({
              ...config,
              tables,
              name: ['shadow', world, host, before === '' ? 'fresh' : 'used', first.toLowerCase(), second.toLowerCase()]
                .filter((word) => word !== '')
                .join('-'),
              title: `a processor does ${first}, another ${second === '' ? 'nothing' : second}; the host ${host}`,
              claim: 'everything that is checked in every state',
              actors: [processor(first, before), ...others, ...make()],
              expect: 'safe',
            });
          }
        }
      }
    }
  }
}
