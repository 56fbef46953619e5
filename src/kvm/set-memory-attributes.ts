/** KVM_SET_MEMORY_ATTRIBUTES: makes guest frames private or shared (@kvm kvm_main.c kvm_vm_ioctl_set_mem_attributes). */
import { EINVAL } from '../host/errno.ts';
import { runActor } from './actors/actor.ts';
import { AttributeChange, attributeChangeStages } from './actors/attribute-change.ts';
import { supportedMemAttributes } from './attributes.ts';
import type { VmState } from './vm-state.ts';

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
  const change = new AttributeChange(vm, Number(gpa / 4096n), Number((gpa + size) / 4096n), Number(attrs));
  runActor(attributeChangeStages, change);
  return 0;
}
