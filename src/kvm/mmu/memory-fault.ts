/** The memory-fault exit of a fault (@kvm mmu_internal.h kvm_mmu_prepare_memory_fault_exit). */
import type { VcpuState } from '../vcpu-state.ts';
import { prepareMemoryFaultExit } from '../x86/memory-fault.ts';
import type { PageFault } from './fault.ts';
import { gfnToGpa } from './gpa.ts';

/** One page, private if the fault was. @kvm mmu_internal.h kvm_mmu_prepare_memory_fault_exit */
export function prepareMmuMemoryFaultExit(vcpu: VcpuState, fault: PageFault): void {
  prepareMemoryFaultExit(vcpu, gfnToGpa(fault.gfn), 4096, fault.isPrivate);
}
