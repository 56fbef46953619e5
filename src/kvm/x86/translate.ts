/** KVM_TRANSLATE (@kvm x86.c kvm_arch_vcpu_ioctl_translate). */
import { hi64, lo64 } from '../../arch/halves.ts';
import type { Translation } from '../api/registers.ts';
import { gvaToGpa } from '../mmu/guest-walk.ts';
import type { VcpuState } from '../vcpu-state.ts';

const NOT_MAPPED = 0xffff_ffff_ffff_ffffn;

/** Walks as a supervisor's read; `writeable` and `usermode` are not looked up. @kvm x86.c kvm_arch_vcpu_ioctl_translate */
export function translate(vcpu: VcpuState, gva: bigint): Translation {
  const gpa = gvaToGpa(vcpu, lo64(gva), hi64(gva), 0, 0, null);
  return { physicalAddress: gpa < 0 ? NOT_MAPPED : BigInt(gpa), valid: gpa >= 0, writeable: true, usermode: false };
}
