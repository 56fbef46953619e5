/** Whether a vCPU walks two levels of paging of its guests. */
import type { VcpuState } from '../vcpu-state.ts';

/** Gvas of the vCPU are L2's, translated twice (@kvm x86.h mmu_is_nested). */
export function mmuIsNested(vcpu: VcpuState): boolean {
  return vcpu.mmu.walkMmu === vcpu.mmu.nestedMmu;
}
