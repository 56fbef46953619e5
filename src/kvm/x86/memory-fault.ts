/** The exit that tells userspace about memory it must provide or convert (@kvm kvm_host.h kvm_prepare_memory_fault_exit). */
import { KVM_EXIT_MEMORY_FAULT, KVM_MEMORY_EXIT_FLAG_PRIVATE } from '../kvm-run.ts';
import type { VcpuState } from '../vcpu-state.ts';

/**
 * Prepares KVM_EXIT_MEMORY_FAULT for `size` bytes at `gpa`. KVM_RUN fails with EFAULT and the exit is valid with it. What kind of
 * access it was is not reported: the ABI has only the private flag.
 * @kvm kvm_host.h kvm_prepare_memory_fault_exit
 */
export function prepareMemoryFaultExit(vcpu: VcpuState, gpa: number, size: number, isPrivate: boolean): void {
  const run = vcpu.run;
  run.exitReason = KVM_EXIT_MEMORY_FAULT;
  run.memoryFault.gpa = gpa;
  run.memoryFault.size = size;
  run.memoryFault.flags = isPrivate ? KVM_MEMORY_EXIT_FLAG_PRIVATE : 0;
}
