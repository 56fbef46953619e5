/**
 * Scenes by the hundred: one vCPU and every pair of kernel-side actors, in every kind of slot. Nobody wrote them down one by one, so nobody left
 * one out.
 */
import { KVM_MEM_LOG_DIRTY_PAGES } from '../../kvm/memslots/memslot.ts';
import { KVM_X86_QUIRK_SLOT_ZAP_ALL } from '../../kvm/x86/vm-x86.ts';
import {
  agePage,
  createSlot,
  deleteSlot,
  dropPage,
  getDirtyLog,
  inTurn,
  invalidateRange,
  migratePage,
  moveSlot,
  punchHole,
  setAttributes,
  setFlags,
} from './kernel-actors.ts';
import { recoverNxPages } from './kernel-actors-nx.ts';
import { reapRings } from './kernel-actors-ring.ts';
import { pageOut, swapIn } from './kernel-actors-swap.ts';
import {
  fetch,
  type KernelSpec,
  pageReady,
  preFault,
  read,
  type Scene,
  type SceneSpec,
  scene,
  type VcpuSpec,
  vcpu,
  write,
} from './scene.ts';

const GFN = 0x100;
const HUGE_GFN = 0x200;

type World = Pick<SceneSpec, 'vm' | 'slots' | 'private'>;

const slot = { id: 0, gfn: GFN, pages: 2 } as const;
const logged = { ...slot, flags: KVM_MEM_LOG_DIRTY_PAGES } as const;
const huge = { id: 0, gfn: HUGE_GFN, pages: 512, host: 'huge' } as const;
const PROTECTED = { type: 'sw-protected' } as const;

const worlds: Readonly<Record<string, World>> = {
  plain: { vm: {}, slots: [slot] },
  logged: { vm: {}, slots: [logged] },
  'zap-one': { vm: { quirks: KVM_X86_QUIRK_SLOT_ZAP_ALL }, slots: [slot] },
  shared: { vm: PROTECTED, slots: [{ ...slot, gmem: true }] },
  private: { vm: PROTECTED, slots: [{ ...slot, gmem: true }], private: [[GFN, 1]] },
  empty: { vm: PROTECTED, slots: [] },
  swapped: { vm: PROTECTED, slots: [{ ...slot, gmem: true, host: 'swapped' }] },
  ring: { vm: { dirtyRing: {} }, slots: [logged] },
  smm: { vm: {}, slots: [slot, { ...slot, asId: 1, sameMemoryAs: 0 }] },
  huge: { vm: {}, slots: [huge] },
  'huge-logged': { vm: {}, slots: [{ ...huge, flags: KVM_MEM_LOG_DIRTY_PAGES }] },
  'huge-shared': { vm: PROTECTED, slots: [{ ...huge, gmem: true }] },
  nx: { vm: { params: { nxHugePages: true, nxHugePagesRecoveryRatio: 1 } }, slots: [huge] },
};

const vcpus: Readonly<Record<string, (gfn: number) => VcpuSpec>> = {
  writes: (gfn) => vcpu([write(gfn)]),
  'reads-and-writes': (gfn) => vcpu([read(gfn), write(gfn)]),
  uses: (gfn) => vcpu([write(gfn), write(gfn)], { before: [write(gfn)] }),
  executes: (gfn) => vcpu([fetch(gfn), write(gfn)], { before: [fetch(gfn)] }),
  'pre-faults': (gfn) => vcpu([preFault(gfn), read(gfn)]),
  'gets-page-ready': (gfn) => vcpu([pageReady(gfn), write(gfn)]),
  sleeps: (gfn) => vcpu([write(gfn), read(gfn)], { async: true }),
  'reads-in-smm': (gfn) => vcpu([read(gfn), write(gfn)], { smm: true }),
};

const hasSlot = (world: string): boolean => world !== 'empty';
const hasGmem = (world: string): boolean =>
  world === 'shared' || world === 'private' || world === 'swapped' || world === 'huge-shared';
const isHuge = (world: string): boolean => world === 'nx' || world.startsWith('huge');
const isLogged = (world: string): boolean => world === 'logged' || world === 'ring' || world === 'huge-logged';
/** Pages that can go one by one. */
const hasPages = (world: string): boolean => hasSlot(world) && !isHuge(world);

/** Where each kind of vCPU makes sense. */
function runsIn(what: string, world: string): boolean {
  if (what === 'executes') return isHuge(world);
  if (what === 'sleeps') return world === 'swapped';
  return what !== 'reads-in-smm' || world === 'smm';
}

/** Each kernel-side actor, and the worlds that it makes sense in. */
const kernels: readonly (readonly [string, (world: string) => boolean, (gfn: number) => KernelSpec])[] = [
  ['migrate', hasPages, (gfn) => migratePage(gfn)],
  ['drop', hasPages, (gfn) => dropPage(gfn)],
  ['page-out', hasPages, (gfn) => pageOut(gfn)],
  ['invalidate', hasSlot, (gfn) => invalidateRange(gfn, gfn === HUGE_GFN ? 512 : 2)],
  ['age', hasSlot, (gfn) => agePage(gfn, true)],
  ['delete', hasSlot, () => deleteSlot(0)],
  ['move', (w) => hasPages(w) && !hasGmem(w), (gfn) => moveSlot(0, gfn + 1)],
  ['create', () => true, (gfn) => createSlot(1, gfn + 0x400, 1)],
  ['create-here', (w) => !hasSlot(w), (gfn) => createSlot(0, gfn, 1)],
  ['log', (w) => w === 'logged' || w === 'huge-logged', () => getDirtyLog(0)],
  ['reap', (w) => w === 'ring', () => reapRings(0)],
  ['log-on', (w) => hasSlot(w) && !hasGmem(w) && !isLogged(w), () => setFlags(0, KVM_MEM_LOG_DIRTY_PAGES)],
  ['log-off', isLogged, () => setFlags(0, 0)],
  ['recover', (w) => w === 'nx', () => recoverNxPages()],
  ['make-private', (w) => hasGmem(w) || !hasSlot(w), (gfn) => setAttributes(gfn, 1, 'private')],
  ['make-shared', (w) => hasGmem(w) || !hasSlot(w), (gfn) => setAttributes(gfn, 1, 'shared')],
  ['make-both-private', hasGmem, (gfn) => setAttributes(gfn, 2, 'private')],
  ['make-next-private', (w) => hasGmem(w) && isHuge(w), (gfn) => setAttributes(gfn + 1, 1, 'private')],
  ['punch-hole', hasGmem, (gfn) => punchHole(gfn)],
];

/** Without the end of the I/O, who sleeps sleeps for ever. */
function helpers(what: string): readonly KernelSpec[] {
  return what === 'sleeps' ? [inTurn(swapIn(), swapIn())] : [];
}

/** Those of one world, or all. */
export function* pairScenes(only?: string): Generator<Scene> {
  for (const [world, config] of Object.entries(worlds)) {
    if (only !== undefined && world !== only) continue;
    const gfn = isHuge(world) ? HUGE_GFN : GFN;
    const able = kernels.filter(([, fits]) => fits(world));
    for (const [what, cpu] of Object.entries(vcpus)) {
      if (!runsIn(what, world)) continue;
      for (let i = 0; i < able.length; i++) {
        for (let j = i; j < able.length; j++) {
          const pair = i === j ? [able[i]!] : [able[i]!, able[j]!];
          const names = pair.map(([name]) => name);
          yield scene({
            ...config,
            name: [world, what, ...names].join('-'),
            title: `a vCPU ${what}, against ${names.join(' and ')}`,
            claim: 'everything that is checked in every state',
            actors: [cpu(gfn), ...helpers(what), ...pair.map(([, , make]) => make(gfn))],
            expect: waits(what, names) ? 'livelock' : 'safe',
          });
        }
      }
    }
  }
}

/** Two vCPUs and one kernel-side actor: those of one world, or all. */
export function* twoVcpuScenes(only?: string): Generator<Scene> {
  for (const [world, config] of Object.entries(worlds)) {
    if (only !== undefined && world !== only) continue;
    const gfn = isHuge(world) ? HUGE_GFN : GFN;
    const able = kernels.filter(([, fits]) => fits(world));
    for (const [what, cpu] of Object.entries(vcpus)) {
      if (!runsIn(what, world)) continue;
      for (const [name, , make] of able) {
        yield scene({
          ...config,
          name: [world, 'two', what, name].join('-'),
          title: `a vCPU ${what}, another one reads and executes the next page, against ${name}`,
          claim: 'everything that is checked in every state',
          actors: [
            cpu(gfn),
            ...helpers(what),
            vcpu([read(gfn + 1), fetch(gfn + 1)], { smm: what === 'reads-in-smm' }),
            make(gfn),
          ],
          expect: waits(what, [name]) ? 'livelock' : 'safe',
        });
      }
    }
  }
}

/** KVM_PRE_FAULT_MEMORY against whoever removes its slot (docs/findings.md). */
function waits(what: string, names: readonly string[]): boolean {
  return what === 'pre-faults' && (names.includes('delete') || names.includes('move'));
}
