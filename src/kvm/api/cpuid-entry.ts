/** CPUID entries in the form of the API. */
import type { CpuidEntry } from '../../cpu/profile.ts';

/** struct kvm_cpuid_entry2; registers are unsigned 32-bit numbers. */
export interface CpuidEntry2 {
  function: number;
  index: number;
  /** KVM_CPUID_FLAG_SIGNIFCANT_INDEX (1): `index` counts. */
  flags: number;
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

/** Leaves whose answer depends on ECX. @kvm cpuid.c cpuid_function_is_indexed */
const indexed = new Set([4, 7, 0xb, 0xd, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1d, 0x1e, 0x1f, 0x24, 0x8000001d]);

export function toCpuidEntry2(e: CpuidEntry): CpuidEntry2 {
  const flags = indexed.has(e.leaf) ? 1 : 0;
  return { function: e.leaf, index: e.index, flags, eax: e.eax, ebx: e.ebx, ecx: e.ecx, edx: e.edx };
}

export function fromCpuidEntry2(e: CpuidEntry2): CpuidEntry {
  return {
    leaf: e.function >>> 0,
    index: e.index >>> 0,
    eax: e.eax >>> 0,
    ebx: e.ebx >>> 0,
    ecx: e.ecx >>> 0,
    edx: e.edx >>> 0,
  };
}
