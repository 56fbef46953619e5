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
  invalidateRange,
  migratePage,
  moveSlot,
  punchHole,
  setAttributes,
  setFlags,
} from './kernel-actors.ts';
import {
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

type World = Pick<SceneSpec, 'vm' | 'slots' | 'private'>;

const worlds: Readonly<Record<string, World>> = {
  plain: { vm: {}, slots: [{ id: 0, gfn: GFN, pages: 2 }] },
  logged: { vm: {}, slots: [{ id: 0, gfn: GFN, pages: 2, flags: KVM_MEM_LOG_DIRTY_PAGES }] },
  'zap-one': { vm: { quirks: KVM_X86_QUIRK_SLOT_ZAP_ALL }, slots: [{ id: 0, gfn: GFN, pages: 2 }] },
  shared: { vm: { type: 'sw-protected' }, slots: [{ id: 0, gfn: GFN, pages: 2, gmem: true }] },
  private: { vm: { type: 'sw-protected' }, slots: [{ id: 0, gfn: GFN, pages: 2, gmem: true }], private: [[GFN, 1]] },
  empty: { vm: { type: 'sw-protected' }, slots: [] },
};

const vcpus: Readonly<Record<string, VcpuSpec>> = {
  writes: vcpu([write(GFN)]),
  'reads-and-writes': vcpu([read(GFN), write(GFN)]),
  uses: vcpu([write(GFN), write(GFN)], { before: [write(GFN)] }),
  'pre-faults': vcpu([preFault(GFN), read(GFN)]),
  'gets-page-ready': vcpu([pageReady(GFN), write(GFN)]),
};

const hasSlot = (world: string): boolean => world !== 'empty';
const hasGmem = (world: string): boolean => world === 'shared' || world === 'private';

/** Each kernel-side actor, and the worlds that it makes sense in. */
const kernels: readonly (readonly [string, (world: string) => boolean, () => KernelSpec])[] = [
  ['migrate', hasSlot, () => migratePage(GFN)],
  ['drop', hasSlot, () => dropPage(GFN)],
  ['invalidate', hasSlot, () => invalidateRange(GFN, 2)],
  ['age', hasSlot, () => agePage(GFN, true)],
  ['delete', hasSlot, () => deleteSlot(0)],
  ['move', (w) => hasSlot(w) && !hasGmem(w), () => moveSlot(0, GFN + 1)],
  ['create', () => true, () => createSlot(1, GFN + 4, 1)],
  ['create-here', (w) => !hasSlot(w), () => createSlot(0, GFN, 1)],
  ['log', (w) => w === 'logged', () => getDirtyLog(0)],
  ['log-on', (w) => w === 'plain' || w === 'zap-one', () => setFlags(0, KVM_MEM_LOG_DIRTY_PAGES)],
  ['log-off', (w) => w === 'logged', () => setFlags(0, 0)],
  ['make-private', (w) => hasGmem(w) || !hasSlot(w), () => setAttributes(GFN, 1, 'private')],
  ['make-shared', (w) => hasGmem(w) || !hasSlot(w), () => setAttributes(GFN, 1, 'shared')],
  ['make-both-private', hasGmem, () => setAttributes(GFN, 2, 'private')],
  ['punch-hole', hasGmem, () => punchHole(GFN)],
];

/** Those of one world, or all. */
export function* pairScenes(only?: string): Generator<Scene> {
  for (const [world, config] of Object.entries(worlds)) {
    if (only !== undefined && world !== only) continue;
    const able = kernels.filter(([, fits]) => fits(world));
    for (const [what, cpu] of Object.entries(vcpus)) {
      for (let i = 0; i < able.length; i++) {
        for (let j = i; j < able.length; j++) {
          const pair = i === j ? [able[i]!] : [able[i]!, able[j]!];
          const names = pair.map(([name]) => name);
          yield scene({
            ...config,
            name: [world, what, ...names].join('-'),
            title: `a vCPU ${what}, against ${names.join(' and ')}`,
            claim: 'everything that is checked in every state',
            actors: [cpu, ...pair.map(([, , make]) => make())],
            expect: waits(what, names) ? 'livelock' : 'safe',
          });
        }
      }
    }
  }
}

/** KVM_PRE_FAULT_MEMORY against whoever removes its slot (docs/findings.md). */
function waits(what: string, names: readonly string[]): boolean {
  return what === 'pre-faults' && (names.includes('delete') || names.includes('move'));
}
