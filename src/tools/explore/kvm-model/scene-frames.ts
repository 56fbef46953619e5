/** What a scene is about: its frames, the host pages behind them, ranges of attributes, the roots that there can be. */
import { slotHva } from '../../../kvm/memslots/hva.ts';
import type { Scene } from '../scene.ts';
import type { SceneWorld } from './state.ts';

/** Roots at a time: the one in use, one of SMM, and those that slot changes made obsolete. */
export function maxRoots(scene: Scene): number {
  const smm = scene.actors.some((a) => a.kind === 'vcpu' && a.smm) ? 1 : 0;
  const changers = scene.actors.filter((a) => a.kind === 'kernel' && a.changesSlots === true).length;
  return 1 + smm + (changers > 0 ? 1 + smm : 0) + changers - (changers > 0 ? 1 : 0);
}

/** Frames of the scene, in order. */
export function framesOf(scene: Scene): number[] {
  const all = new Set<number>(scene.gfns ?? []);
  for (const actor of scene.actors) {
    if (actor.kind === 'vcpu') for (const op of [...actor.before, ...actor.ops]) all.add(op.gfn);
    else for (const gfn of actor.gfns) all.add(gfn);
  }
  return [...all].sort((a, b) => a - b);
}

/** Host pages behind the scene's frames in any slot; a huge page is one. */
export function findHostAddresses(state: SceneWorld): void {
  const { table } = state.vm.mm;
  for (const set of state.vm.slots.sets) {
    for (const slot of set.slots) {
      for (const gfn of state.gfns) {
        if (gfn < slot.baseGfn || gfn >= slot.baseGfn + slot.npages) continue;
        const hva = slotHva(slot, gfn);
        table.lookup(hva);
        state.hvas.add(table.level === 2 ? hva - (hva % 0x200000) : hva);
      }
    }
  }
}

export function gmemIndices(state: SceneWorld): number[] {
  const found = new Set<number>();
  for (const slot of state.vm.slots.sets[0]!.slots) {
    if (slot.gmem === null) continue;
    for (const gfn of state.gfns) {
      if (gfn >= slot.baseGfn && gfn < slot.baseGfn + slot.npages) found.add(gfn - slot.baseGfn + slot.gmem.pgoff);
    }
  }
  return [...found].sort((a, b) => a - b);
}
