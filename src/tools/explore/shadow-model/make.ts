/** A scene's VM under shadow paging with all its actors, before the first step. */
import { PT_PAGE_SIZE_MASK } from '../../../arch/paging.ts';
import { CR0_PE, CR0_PG, CR0_WP, CR4_PAE, EFER_LMA, EFER_LME, EFER_NX } from '../../../arch/registers.ts';
import { NestedWalker } from '../../../cpu/mmu/nested-walker.ts';
import { siliconEpyc } from '../../../cpu/profiles/silicon-epyc.ts';
import { mmuCreate } from '../../../kvm/mmu/create.ts';
import { initMmu } from '../../../kvm/mmu/roles.ts';
import { VcpuState } from '../../../kvm/vcpu-state.ts';
import type { VendorOps } from '../../../kvm/vendor-ops.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import { SceneKernelActor } from '../kvm-model/kernel-actor.ts';
import { findHostAddresses } from '../kvm-model/scene-frames.ts';
import { SceneSlots } from '../kvm-model/slots.ts';
import { makeSceneVm, type SceneOverrides } from '../kvm-model/vm.ts';
import type { Scene } from '../scene.ts';
import type { GuestSpec } from '../shadow-scene.ts';
import { entryOfPage, GuestTables } from './guest-tables.ts';
import { SceneShadowPages } from './pages.ts';
import { ShadowState } from './state.ts';
import { ShadowVcpu } from './vcpu.ts';

/** A processor without nested paging; each flush clears what the vCPU's TLB has. */
function makeVendor(vcpus: readonly ShadowVcpu[]): VendorOps {
  const flush = (vcpu: VcpuState): void => vcpus[vcpu.id]?.flushTlb();
  return {
    name: 'svm',
    tdpEnabled: false,
    maxTdpLevel: 4,
    maxHugePageLevel: 3,
    loadMmuPgd() {},
    flushTlbCurrent: flush,
    flushTlbAll: flush,
    flushTlbGuest: flush,
    flushTlbGva: (vcpu: VcpuState, lo: number, hi: number) =>
      vcpus[vcpu.id]?.flushTlbPage((hi >>> 0) * 0x100000 + (lo >>> 12)),
    getRflags: () => 2,
    getCpl: () => 3,
  } as unknown as VendorOps;
}

/** A guest in long mode. */
function addGuestVcpu(vm: VmState, spec: GuestSpec, smm: boolean): VcpuState {
  const vcpu = new VcpuState(vm, vm.vcpus.length);
  vm.vcpus.push(vcpu);
  mmuCreate(vcpu);
  // A root of PAE tables: not for a guest in long mode.
  vm.host.pages.freePage(vcpu.mmu.rootMmu.paeRoot);
  vcpu.mmu.rootMmu.paeRoot = -1;
  vcpu.smm = smm;
  vcpu.x86.reservedGpaBitsHi = ~0xff;
  vcpu.cr0 = CR0_PG | CR0_PE | CR0_WP;
  vcpu.cr4 = CR4_PAE;
  vcpu.efer = EFER_LME | EFER_LMA | EFER_NX;
  vcpu.cr3Lo = spec.cr3 * 4096;
  vcpu.cr3Hi = 0;
  initMmu(vcpu);
  return vcpu;
}

function guestsOf(scene: Scene): readonly GuestSpec[] {
  return scene.actors.flatMap((a) => (a.kind === 'vcpu' && a.guest !== undefined ? [a.guest] : []));
}

function sorted(numbers: Iterable<number>): number[] {
  return [...new Set(numbers)].sort((a, b) => a - b);
}

function framesOf(scene: Scene): number[] {
  const all = [...(scene.gfns ?? [])];
  for (const slot of scene.slots) for (let i = 0; i < slot.pages; i++) all.push(slot.gfn + i);
  for (const actor of scene.actors) if (actor.kind === 'kernel') all.push(...actor.gfns);
  return sorted(all);
}

function pagesOf(scene: Scene): number[] {
  const ops = guestsOf(scene).flatMap((g) => [...g.before, ...g.ops]);
  return sorted(ops.flatMap((op) => (op.kind === 'load-cr3' ? [] : [op.page])));
}

/** Positions of entries that may come to be anything but empty, in tables of the guest or their shadows. */
function indicesOf(scene: Scene, pages: readonly number[], gfns: readonly number[]): number[] {
  const all = pages.flatMap((page) => [1, 2, 3, 4].map((level) => entryOfPage(page, level)));
  const tables = scene.tables ?? [];
  for (const { entries } of tables) all.push(...Object.keys(entries).map(Number));
  const ops = guestsOf(scene).flatMap((g) => [...g.before, ...g.ops]);
  for (const op of ops) if (op.kind === 'store') all.push(op.index);
  // Behind a huge page of the guest, neighbours are mapped ahead of their use.
  const huge = tables.some((t) => Object.values(t.entries).some((value) => (value & PT_PAGE_SIZE_MASK) !== 0));
  if (huge) all.push(...gfns.map((gfn) => gfn % 512));
  return sorted(all);
}

/** What this model does not have. */
function check(scene: Scene): void {
  const refuse = (what: string): never => {
    throw new Error(`scene ${scene.name}: under shadow paging there is no ${what}`);
  };
  if (scene.vm?.type === 'sw-protected' || scene.private !== undefined) refuse('private memory');
  const tables = (scene.tables ?? []).map((t) => t.gfn);
  for (const slot of scene.slots) {
    if (slot.host !== undefined && slot.host !== 'present') refuse(`host memory that is ${slot.host}`);
    if (slot.gmem === true) refuse('guest_memfd');
  }
  for (const actor of scene.actors) {
    if (actor.kind !== 'kernel') continue;
    if (actor.dropsPages === true) refuse('page that goes for good');
    if (actor.movesPages === true && actor.gfns.some((gfn) => tables.includes(gfn)))
      refuse('table of the guest that moves');
  }
}

export function makeShadowState(scene: Scene, overrides: SceneOverrides): ShadowState {
  check(scene);
  const vcpus: ShadowVcpu[] = [];
  const { vm, pages } = makeSceneVm(scene, overrides, () => {}, makeVendor(vcpus));
  const guests = guestsOf(scene);
  const smm = scene.actors.flatMap((a) => (a.kind === 'vcpu' ? [a.smm] : []));
  guests.forEach((guest, i) => {
    addGuestVcpu(vm, guest, smm[i]!);
  });
  const gfns = framesOf(scene);
  const linear = pagesOf(scene);
  const indices = indicesOf(scene, linear, gfns);
  const shadow = new SceneShadowPages(vm, pages, gfns, indices);
  const guestTables = new GuestTables(vm, scene, indices);
  const slots = new SceneSlots(vm, gfns);
  const state = new ShadowState(vm, pages, gfns, slots, guestTables, shadow, linear, scene.vm?.without ?? []);
  state.forbidsStaleDuringEmulation = scene.alsoForbids?.includes('stale-during-emulation') === true;
  const walker = new NestedWalker(vm.memory, siliconEpyc);
  guests.forEach((guest, i) => {
    vcpus.push(new ShadowVcpu(state, vm.vcpus[i]!, walker, guest));
  });
  state.vcpus.push(...vcpus);
  findHostAddresses(state);
  let next = 0;
  scene.actors.forEach((spec, i) => {
    if (spec.kind === 'vcpu') {
      state.actors.push(vcpus[next++]!);
      return;
    }
    const actor = new SceneKernelActor(state, spec.name, `CPU${i}`, spec.make(state));
    state.actors.push(actor);
    state.kernels.push(actor);
  });
  for (const v of vcpus) for (let p = 0; p < linear.length; p++) state.onlyPresent(v, p);
  return state;
}
