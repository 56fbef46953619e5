/** KVM_ENABLE_CAP on a VM: the capabilities that are no architecture's own (@kvm kvm_main.c kvm_vm_ioctl_enable_cap_generic). */
import { E2BIG, EINVAL } from '../host/errno.ts';
import * as C from './capability-numbers.ts';
import { KVM_DIRTY_LOG_INITIALLY_SET, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE } from './dirty/dirty-bitmap.ts';
import { DIRTY_GFN_BYTES, dirtyRingRsvdEntries, KVM_DIRTY_RING_MAX_ENTRIES } from './dirty/dirty-ring.ts';
import type { VmState } from './vm-state.ts';
import { x86VmEnableCap } from './x86/enable-cap.ts';

/**
 * @returns 0, -EINVAL (unknown, flags or arguments, too late), -E2BIG (ring)
 * @kvm kvm_main.c kvm_vm_ioctl_enable_cap_generic
 */
export function vmEnableCap(vm: VmState, cap: number, flags: number, args: readonly bigint[]): number {
  const arg0 = args[0] ?? 0n;
  switch (cap) {
    case C.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
      return enableManualDirtyLogProtect(vm, flags, arg0);
    case C.KVM_CAP_HALT_POLL:
      // Time does not pass while a vCPU halts, so there is nothing to poll for.
      return flags !== 0 || arg0 >> 32n !== 0n ? -EINVAL : 0;
    case C.KVM_CAP_DIRTY_LOG_RING:
    case C.KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
      return enableDirtyLogRing(vm, Number(BigInt.asUintN(32, arg0)));
    case C.KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP:
      // For architectures that write guest memory with no vCPU running; x86 is none.
      return -EINVAL;
    default:
      return x86VmEnableCap(vm, cap, flags, args);
  }
}

function enableManualDirtyLogProtect(vm: VmState, flags: number, options: bigint): number {
  const enable = (options & BigInt(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)) !== 0n;
  const allowed = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | (enable ? KVM_DIRTY_LOG_INITIALLY_SET : 0);
  if (flags !== 0 || (options & ~BigInt(allowed)) !== 0n) return -EINVAL;
  vm.manualDirtyLogProtect = Number(options);
  return 0;
}

/** @param size bytes of a vCPU's ring @kvm kvm_main.c kvm_vm_ioctl_enable_dirty_log_ring */
function enableDirtyLogRing(vm: VmState, size: number): number {
  if (size === 0 || (size & (size - 1)) !== 0) return -EINVAL;
  if (size < dirtyRingRsvdEntries(vm.vendor.cpuDirtyLogSize) * DIRTY_GFN_BYTES || size < 4096) return -EINVAL;
  if (size > KVM_DIRTY_RING_MAX_ENTRIES * DIRTY_GFN_BYTES) return -E2BIG;
  if (vm.dirtyRingSize !== 0 || vm.vcpus.length > 0) return -EINVAL;
  vm.dirtyRingSize = size / DIRTY_GFN_BYTES;
  return 0;
}
