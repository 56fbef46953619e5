/** Memory attributes: which guest frames are private (@kvm kvm_main.c kvm_range_has_memory_attributes). */
import { GfnRangeSet } from './gfn-range-set.ts';
import type { VmState } from './vm-state.ts';

export const KVM_MEMORY_ATTRIBUTE_PRIVATE = 1 << 3;

/** The only attribute there is, PRIVATE, as a set of frames (@kvm kvm_host.h kvm->mem_attr_array). */
export class MemoryAttributes {
  readonly private = new GfnRangeSet();
}

/** @kvm kvm_main.c kvm_supported_mem_attributes; `null` asks about the system. */
export function supportedMemAttributes(vm: VmState | null): number {
  return vm === null || vm.hasPrivateMem ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
}

/** @kvm kvm_host.h kvm_get_memory_attributes */
export function getMemoryAttributes(vm: VmState, gfn: number): number {
  return vm.attributes.private.has(gfn) ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
}

/** Always false for VM types without private memory. @kvm kvm_host.h kvm_mem_is_private. HOT */
export function memIsPrivate(vm: VmState, gfn: number): boolean {
  return vm.hasPrivateMem && vm.attributes.private.has(gfn);
}

/** All frames of [start, end) have, of the attributes in `mask`, exactly `attrs`. @kvm kvm_main.c kvm_range_has_memory_attributes */
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
