/** KVM_SET_MEMORY_ATTRIBUTES: makes guest frames private or shared (@kvm kvm_main.c kvm_vm_ioctl_set_mem_attributes). */
import { EINVAL } from '../host/errno.ts';
import { rangeHasMemoryAttributes, supportedMemAttributes } from './attributes.ts';
import { LOCK_SLOTS } from './locks.ts';
import { postSetMemoryAttributes, preSetMemoryAttributes } from './mmu/slot-hooks.ts';
import {
  type GfnRange,
  handleGfnRange,
  mmuInvalidateBegin,
  mmuInvalidateEnd,
  mmuInvalidateRangeAdd,
} from './notifier.ts';
import type { VmState } from './vm-state.ts';

function preSet(vm: VmState, range: GfnRange): boolean {
  // Added even where nothing will be zapped: no mapping may be made while attributes are in flux.
  mmuInvalidateRangeAdd(vm, range.start, range.end);
  return preSetMemoryAttributes(vm, range);
}

const U64 = 1n << 64n;

/**
 * Sets the attributes of [gpa, gpa + size).
 * @returns 0, or -EINVAL: flags, unknown attributes, empty or wrapping or unaligned range.
 * @kvm kvm_main.c kvm_vm_ioctl_set_mem_attributes
 */
export function setMemoryAttributes(vm: VmState, gpa: bigint, size: bigint, attrs: bigint, flags: bigint): number {
  if (flags !== 0n) return -EINVAL;
  if ((attrs & ~BigInt(supportedMemAttributes(vm))) !== 0n) return -EINVAL;
  if (size === 0n || gpa + size >= U64) return -EINVAL;
  if (((gpa | size) & 0xfffn) !== 0n) return -EINVAL;
  return setMemAttributes(vm, Number(gpa / 4096n), Number((gpa + size) / 4096n), Number(attrs));
}

/** @kvm kvm_main.c kvm_vm_set_mem_attributes */
function setMemAttributes(vm: VmState, start: number, end: number, attrs: number): number {
  vm.locks.acquire(LOCK_SLOTS);
  if (!rangeHasMemoryAttributes(vm, start, end, ~0, attrs)) {
    handleGfnRange(vm, start, end, attrs, preSet, mmuInvalidateBegin, true);
    vm.attributes.private.set(start, end, attrs !== 0);
    handleGfnRange(vm, start, end, attrs, postSetMemoryAttributes, mmuInvalidateEnd, false);
  }
  vm.locks.release(LOCK_SLOTS);
  return 0;
}
