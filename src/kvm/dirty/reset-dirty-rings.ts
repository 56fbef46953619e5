/** KVM_RESET_DIRTY_RINGS (@kvm dirty_ring.c kvm_dirty_ring_reset). */
import { EINVAL } from '../../host/errno.ts';
import { runActor } from '../actors/actor.ts';
import { DirtyRingReset, dirtyRingResetStages } from '../actors/dirty-ring-reset.ts';
import type { VmState } from '../vm-state.ts';

/**
 * KVM_RESET_DIRTY_RINGS: takes back what userspace harvested from every ring.
 * @returns entries reset, or -EINVAL: no ring
 * @kvm kvm_main.c kvm_vm_ioctl_reset_dirty_pages
 */
export function dirtyRingsReset(vm: VmState): number {
  if (vm.dirtyRingSize === 0) return -EINVAL;
  const reset = new DirtyRingReset(vm);
  runActor(dirtyRingResetStages, reset);
  return reset.cleared;
}
