/** Pages that KVM watches because they hold page tables it shadows (@kvm page_track.c). */
import { gfnToMemslot, type Memslot } from '../memslots/memslots.ts';
import type { VmState } from '../vm-state.ts';

function tracked(slot: Memslot | null, gfn: number): boolean {
  return slot !== null && slot.arch !== null && (slot.arch.gfnWriteTrack.get(gfn - slot.baseGfn) ?? 0) > 0;
}

/**
 * A write to the gfn, in either address space, must be seen by KVM. Nothing is as long as nothing is shadowed.
 * @kvm page_track.c kvm_gfn_is_write_tracked. HOT
 */
export function gfnIsWriteTracked(vm: VmState, slot: Memslot | null, gfn: number): boolean {
  if (vm.mmu.indirectShadowPages === 0 || slot === null) return false;
  if (tracked(slot, gfn)) return true;
  return vm.revision.rules.tracksBothSpaces && vm.slots.count > 1 && tracked(gfnToMemslot(vm, gfn, slot.asId ^ 1), gfn);
}
