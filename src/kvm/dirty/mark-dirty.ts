/** Recording that a guest page was written: in the vCPU's ring or in the slot's bitmap (@kvm kvm_main.c mark_page_dirty_in_slot). */
import { KVM_MEM_LOG_DIRTY_PAGES, type Memslot } from '../memslots/memslot.ts';
import { gfnToMemslot, vcpuGfnToMemslot } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { dirtyRingPush } from './dirty-ring.ts';

/** @param vcpu the vCPU that runs, null when none does @kvm kvm_main.c mark_page_dirty_in_slot. HOT */
export function markPageDirtyInSlot(vm: VmState, vcpu: VcpuState | null, slot: Memslot | null, gfn: number): void {
  if (slot === null || (slot.flags & KVM_MEM_LOG_DIRTY_PAGES) === 0) return;
  const page = gfn - slot.baseGfn;
  if (vm.dirtyRingSize !== 0 && vcpu !== null) {
    dirtyRingPush(vcpu, (slot.asId << 16) | slot.id, page);
  } else if (slot.dirtyBitmap !== null) {
    slot.dirtyBitmap[page >>> 3]! |= 1 << (page & 7);
  }
}

/** @kvm kvm_main.c kvm_vcpu_mark_page_dirty. HOT */
export function markPageDirty(vcpu: VcpuState, gfn: number): void {
  markPageDirtyInSlot(vcpu.vm, vcpu, vcpuGfnToMemslot(vcpu, gfn), gfn);
}

/** Outside of any vCPU, in the first address space. @kvm kvm_main.c mark_page_dirty */
export function markVmPageDirty(vm: VmState, gfn: number): void {
  markPageDirtyInSlot(vm, null, gfnToMemslot(vm, gfn), gfn);
}
