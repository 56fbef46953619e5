/** From L2's physical addresses to L1's, where there are two guests (@kvm mmu.h kvm_translate_gpa). */
import type { VcpuState } from '../vcpu-state.ts';
import type { Mmu } from './mmu-context.ts';

/**
 * An L2 gpa as an L1 gpa, where the MMU walks L2's tables; the same gpa otherwise. @kvm mmu.h kvm_translate_gpa
 * @partial there is no L2
 */
export function translateGpa(vcpu: VcpuState, mmu: Mmu, gpa: number): number {
  if (mmu !== vcpu.mmu.nestedMmu) return gpa;
  throw new Error('translation through nested page tables is not supported');
}
