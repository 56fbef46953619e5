/** From L2's physical addresses to L1's, where there are two guests (@kvm mmu.h kvm_translate_gpa). */
import { PFERR_USER } from '../../arch/error-code.ts';
import { hiOf, loOf } from '../../arch/halves.ts';
import type { X86Exception } from '../emulate/ops.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { Mmu } from './mmu-context.ts';

/** A walk of L1's nested tables for the gpa (halves): an L1 gpa, or INVALID_GPA (-1) with `fault` filled. */
export type TranslateNestedGpa = (
  vcpu: VcpuState,
  lo: number,
  hi: number,
  accessLo: number,
  accessHi: number,
  fault: X86Exception,
) => number;

/**
 * An L2 gpa as an L1 gpa, where the MMU walks L2's tables; the same gpa otherwise. INVALID_GPA (-1) with `fault` filled when L1 has not
 * mapped it. @kvm mmu.h kvm_translate_gpa, x86.c translate_nested_gpa
 */
export function translateGpa(
  vcpu: VcpuState,
  mmu: Mmu,
  gpa: number,
  accessLo: number,
  accessHi: number,
  fault: X86Exception,
): number {
  if (mmu !== vcpu.mmu.nestedMmu) return gpa;
  // Whatever L2's own privilege, L1's tables see a user.
  return vcpu.mmu.translateNestedGpa(vcpu, loOf(gpa), hiOf(gpa), accessLo | PFERR_USER, accessHi, fault);
}
