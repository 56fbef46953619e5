/**
 * What the EPYC profiles share: CPUID, but for the physical address width, SVM's own leaf and the extensions. It names what the
 * interpreter executes, and no more of the real processor: no SSE4a, SHA, AVX-512 or RDRAND.
 */
import type { CpuidEntry } from '../profile.ts';
import { bits, brand, row } from './cpuid-table.ts';

/** FPU VME DE PSE TSC MSR PAE MCE CX8 APIC MTRR PGE MCA CMOV PAT PSE36 MMX FXSR: the bits that AMD repeats in leaf 80000001. */
const COMMON = bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 23, 24);

export interface EpycDifferences {
  /** Leaf 1 EAX: family, model, stepping. */
  readonly signature: number;
  readonly maxPhyAddr: number;
  /** Implemented bits of linear addresses: 48, or 57 with LA57. */
  readonly linearBits: number;
  readonly asids: number;
  /** Leaf 8000000A EDX. */
  readonly svmFeatures: number;
  readonly brand: string;
  /** Bits of leaf 1 ECX beyond those that all have. */
  readonly features: number;
  /** The same of leaf 7, EBX and ECX, and of leaf 80000008 EBX. */
  readonly features7b: number;
  readonly features7c: number;
  readonly features8: number;
  /** AVX's state and AVX2 are there, and XSAVEC. */
  readonly avx: boolean;
}

export function epycCpuid(d: EpycDifferences): CpuidEntry[] {
  return [
    row(0, 0, 0xd, 0x68747541, 0x444d4163, 0x69746e65),
    // MONITOR CX16 MOVBE POPCNT XSAVE; SEP CLFSH SSE SSE2
    row(1, 0, d.signature, 0x00000800, bits(3, 13, 22, 23, 26) | d.features, COMMON | bits(11, 19, 25, 26)),
    row(5, 0, 0, 0, 3, 0),
    row(6, 0, 4, 0, 0, 0),
    // FSGSBASE BMI1 SMEP BMI2 ADX SMAP CLFLUSHOPT; UMIP PKU
    row(7, 0, 0, bits(0, 3, 7, 8, 19, 20, 23) | (d.avx ? bits(5) : 0) | d.features7b, bits(2, 3) | d.features7c, 0),
    // x87, SSE, AVX and PKRU
    row(0xd, 0, d.avx ? 0x207 : 0x203, 0xa88, 0xa88, 0),
    // XSAVEOPT XSAVEC XGETBV1
    row(0xd, 1, d.avx ? bits(0, 1, 2) : bits(0, 2), 0, 0, 0),
    ...(d.avx ? [row(0xd, 2, 256, 576, 0, 0)] : []),
    row(0xd, 9, 8, 0xa80, 0, 0),
    row(0x80000000, 0, 0x8000001e, 0x68747541, 0x444d4163, 0x69746e65),
    // LAHF_LM SVM CR8_LEGACY ABM 3DNOWPREFETCH; SYSCALL NX MMXEXT PDPE1GB RDTSCP LM
    row(0x80000001, 0, d.signature, 0, bits(0, 2, 4, 5, 8), COMMON | bits(11, 20, 22, 26, 27, 29)),
    ...brand(d.brand),
    row(0x80000005, 0, 0xff40ff40, 0xff40ff40, 0x20080140, 0x40040140),
    row(0x80000006, 0, 0x26006400, 0x66006400, 0x02006140, 0x00808140),
    row(0x80000007, 0, 0, 0, 0, 0),
    row(0x80000008, 0, (d.linearBits << 8) | d.maxPhyAddr, d.features8, 0, 0),
    row(0x8000000a, 0, 1, d.asids, 0, d.svmFeatures),
    row(0x8000001a, 0, 3, 0, 0, 0),
  ];
}

/** Family 23, model 1, as the two oldest profiles have it. */
export const NAPLES = {
  signature: 0x00800f12,
  linearBits: 48,
  features7b: 0,
  features7c: 0,
  features8: 0,
} as const;
