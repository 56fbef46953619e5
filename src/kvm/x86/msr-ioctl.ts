/** KVM_GET_MSRS and KVM_SET_MSRS, one register at a time (@kvm x86.c do_get_msr, do_set_msr). */
import { hi64, join64, lo64 } from '../../arch/halves.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { getMsr, setMsr } from './msr-instructions.ts';

/** KVM_GET_MSRS: the value, or null when the MSR cannot be read. @kvm x86.c do_get_msr */
export function ioctlGetMsr(vcpu: VcpuState, index: number): bigint | null {
  if (getMsr(vcpu, index, true) !== 0) return null;
  return join64(vcpu.x86.msrValue[0]!, vcpu.x86.msrValue[1]!);
}

/** KVM_SET_MSRS: false when it is refused. @kvm x86.c do_set_msr */
export function ioctlSetMsr(vcpu: VcpuState, index: number, data: bigint): boolean {
  return setMsr(vcpu, index, lo64(data), hi64(data), true) === 0;
}
