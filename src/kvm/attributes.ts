/** Memory attributes (KVM_SET_MEMORY_ATTRIBUTES): which guest frames are private. @kvm kvm_main.c kvm_vm_set_mem_attributes */
import { EINVAL } from '../host/errno.ts';
import { GfnRangeSet } from './gfn-range-set.ts';
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

export const KVM_MEMORY_ATTRIBUTE_PRIVATE = 1 << 3;

/** The only attribute there is, PRIVATE, as a set of frames (@kvm kvm->mem_attr_array). */
export class MemoryAttributes {
  readonly private = new GfnRangeSet();
}

/** @kvm kvm_supported_mem_attributes; `null` asks about the system. */
export function supportedMemAttributes(vm: VmState | null): number {
  return vm === null || vm.hasPrivateMem ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
}

/** @kvm kvm_get_memory_attributes */
export function getMemoryAttributes(vm: VmState, gfn: number): number {
  return vm.attributes.private.has(gfn) ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
}

/** Always false for VM types without private memory. @kvm kvm_mem_is_private. HOT */
export function memIsPrivate(vm: VmState, gfn: number): boolean {
  return vm.hasPrivateMem && vm.attributes.private.has(gfn);
}

/** All frames of [start, end) have, of the attributes in `mask`, exactly `attrs`. @kvm kvm_range_has_memory_attributes */
export function rangeHasMemoryAttributes(
  vm: VmState,
  start: number,
  end: number,
  mask: number,
  attrs: number,
): boolean {
  const asked = mask & supportedMemAttributes(vm);
  if ((attrs & ~asked) !== 0) return false;
  if (asked === 0) return true;
  return vm.attributes.private.uniform(start, end, attrs !== 0);
}

function preSet(vm: VmState, range: GfnRange): boolean {
  // Added even where nothing will be zapped: no mapping may be made while attributes are in flux.
  mmuInvalidateRangeAdd(vm, range.start, range.end);
  return preSetMemoryAttributes(vm, range);
}

const U64 = 1n << 64n;

/**
 * Sets the attributes of [gpa, gpa + size).
 * @returns 0, or -EINVAL: flags, unknown attributes, empty or wrapping or unaligned range.
 * @kvm kvm_vm_ioctl_set_mem_attributes
 */
export function setMemoryAttributes(vm: VmState, gpa: bigint, size: bigint, attrs: bigint, flags: bigint): number {
  if (flags !== 0n) return -EINVAL;
  if ((attrs & ~BigInt(supportedMemAttributes(vm))) !== 0n) return -EINVAL;
  if (size === 0n || gpa + size >= U64) return -EINVAL;
  if (((gpa | size) & 0xfffn) !== 0n) return -EINVAL;
  return setMemAttributes(vm, Number(gpa / 4096n), Number((gpa + size) / 4096n), Number(attrs));
}

/** @kvm kvm_vm_set_mem_attributes */
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
