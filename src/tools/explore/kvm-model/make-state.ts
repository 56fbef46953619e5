/** A scene's VM with all its actors, before the first step. */
import { NestedWalker } from '../../../cpu/mmu/nested-walker.ts';
import { siliconEpyc } from '../../../cpu/profiles/silicon-epyc.ts';
import { DirtyRing, KVM_DIRTY_RING_RSVD_ENTRIES } from '../../../kvm/dirty/dirty-ring.ts';
import type { Scene } from '../scene.ts';
import { type KernelPart, SceneKernelActor } from './kernel-actor.ts';
import { findHostAddresses, framesOf, maxRoots } from './scene-frames.ts';
import { SceneSlots } from './slots.ts';
import { SceneState } from './state.ts';
import { SceneTables } from './tables.ts';
import { SceneVcpu } from './vcpu.ts';
import { addSceneVcpu, DIRTY_RING_RESERVED, makeSceneVm, type SceneOverrides } from './vm.ts';

export interface MadeState {
  readonly state: SceneState;
  /** Ranges of frames that have one attribute throughout: bounds. */
  readonly attributeBounds: readonly number[];
}

/** Some slot is over huge pages of the host. */
function hasHugePages(scene: Scene): boolean {
  return scene.slots.some((s) => s.host === 'huge');
}

export function makeSceneState(scene: Scene, overrides: SceneOverrides): MadeState {
  const gfns = framesOf(scene);
  const vcpus: SceneVcpu[] = [];
  const flushed = (id: number): void => vcpus[id]?.flushTlb();
  const { vm, pages, gmem } = makeSceneVm(scene, overrides, flushed);
  for (const spec of scene.actors) if (spec.kind === 'vcpu') addSceneVcpu(vm, spec.smm);
  const { dirtyRing } = scene.vm ?? {};
  if (dirtyRing !== undefined) {
    const reserved = dirtyRing.reserved ?? DIRTY_RING_RESERVED;
    for (const vcpu of vm.vcpus)
      vcpu.dirtyRing = new DirtyRing(vcpu.id, vm.dirtyRingSize, reserved - KVM_DIRTY_RING_RSVD_ENTRIES);
  }
  const tables = new SceneTables(vm, pages, gfns, maxRoots(scene), hasHugePages(scene));
  const state = new SceneState(vm, pages, gfns, tables, new SceneSlots(vm, gfns), gmem);
  state.fullRingStops = dirtyRing?.stops !== false;
  state.mayCopy =
    scene.slots.some((s) => s.host === 'absent') ||
    scene.actors.some((a) => a.kind === 'kernel' && a.dropsPages === true);
  state.forbidsPrivateEmulation = scene.alsoForbids?.includes('private-emulation') === true;
  const walker = new NestedWalker(vm.memory, siliconEpyc);
  for (const spec of scene.actors) {
    if (spec.kind === 'vcpu')
      vcpus.push(new SceneVcpu(state, vm.vcpus[vcpus.length]!, walker, spec.ops, spec.async === true));
  }
  state.vcpus.push(...vcpus);
  findHostAddresses(state);
  const edges = new Set<number>(gfns.flatMap((gfn) => [gfn, gfn + 1]));
  for (const [start, count] of scene.private ?? []) edges.add(start).add(start + count);
  let nextVcpu = 0;
  scene.actors.forEach((spec, i) => {
    if (spec.kind === 'vcpu') {
      state.actors.push(vcpus[nextVcpu++]!);
      return;
    }
    const parts: readonly KernelPart[] = spec.make(state);
    const actor = new SceneKernelActor(state, spec.name, `CPU${i}`, parts);
    state.actors.push(actor);
    state.kernels.push(actor);
    for (const gfn of spec.gfns) edges.add(gfn);
    for (const { context } of parts) {
      const range = context as { attrs?: number; start?: number; end?: number };
      if (range.attrs !== undefined) edges.add(range.start!).add(range.end!);
    }
  });
  if (edges.size > 32) throw new Error(`scene ${scene.name}: too many ranges of attributes`);
  return { state, attributeBounds: [...edges].sort((a, b) => a - b) };
}
