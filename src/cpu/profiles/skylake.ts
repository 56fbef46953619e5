/**
 * What the profiles of a Skylake-X (family 6, model 85) share: CPUID. It names what the interpreter executes, and no more of the real
 * processor: no SSE3 or later vector instructions, AES, PCLMUL, PCID or RDRAND.
 */
import type { CpuidEntry } from '../profile.ts';
import { bits, brand, row } from './cpuid-table.ts';

const SIGNATURE = 0x00050654;
/** FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2. */
const LEAF_1_EDX = bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26);

export function skylakeCpuid(maxPhyAddr: number, name: string): CpuidEntry[] {
  return [
    row(0, 0, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69),
    // SSE3 PCLMULQDQ MONITOR VMX SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE
    row(1, 0, SIGNATURE, 0x00000800, bits(0, 1, 3, 5, 9, 13, 19, 20, 22, 23, 25, 26), LEAF_1_EDX),
    row(5, 0, 0, 0, 3, 0),
    row(6, 0, 4, 0, 0, 0),
    // FSGSBASE BMI1 SMEP BMI2 ADX SMAP CLFLUSHOPT CLWB; PKU
    row(7, 0, 0, bits(0, 3, 7, 8, 19, 20, 23, 24), bits(3), 0),
    // x87, SSE and PKRU
    row(0xd, 0, 0x203, 0xa88, 0xa88, 0),
    // XSAVEOPT XGETBV1
    row(0xd, 1, bits(0, 2), 0, 0, 0),
    row(0xd, 9, 8, 0xa80, 0, 0),
    row(0x80000000, 0, 0x80000008, 0, 0, 0),
    // LAHF_LM ABM 3DNOWPREFETCH; SYSCALL NX PDPE1GB RDTSCP LM
    row(0x80000001, 0, 0, 0, bits(0, 5, 8), bits(11, 20, 26, 27, 29)),
    ...brand(name),
    row(0x80000006, 0, 0, 0, 0x01006040, 0),
    row(0x80000007, 0, 0, 0, 0, bits(8)),
    row(0x80000008, 0, 0x3000 | maxPhyAddr, 0, 0, 0),
  ];
}
