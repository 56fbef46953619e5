/** A change of one slot, as the list of stages that it is (@kvm kvm_main.c kvm_set_memslot). */
import { runActor } from '../actors/actor.ts';
import { MemslotUpdate, memslotStages } from '../actors/memslot-update.ts';
import type { VmState } from '../vm-state.ts';
import type { Memslot, MemslotChange } from './memslot.ts';

/**
 * Creates (`old` null), deletes (`next` null), moves, or changes the flags of a slot. Caller holds slots_lock.
 * @returns 0 or -errno; on an error the old slot is as it was.
 * @kvm kvm_main.c kvm_set_memslot
 */
export function setMemslot(vm: VmState, old: Memslot | null, next: Memslot | null, change: MemslotChange): number {
  const update = new MemslotUpdate(vm, old, next, change);
  runActor(memslotStages(change), update);
  return update.result;
}
