/** CPUID entries in the form of the API. */
import type { CpuidEntry } from '../../cpu/profile.ts';

/** struct kvm_cpuid_entry2; registers are unsigned 32-bit numbers. */
export interface CpuidEntry2 {
  function: number;
  index: number;
  /** KVM_CPUID_FLAG_SIGNIFCANT_INDEX: `index` counts. */
  flags: number;
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}
