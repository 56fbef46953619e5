/**
 * What the Intel profiles share, a Skylake-X (family 6, model 85): they differ from it in the fields that they name. CPUID names what
 * the interpreter executes, and no more of the real processor: no AVX-512, RDRAND or XSAVES.
 */
import type { CpuidEntry, HardwareProfile } from '../profile.ts';
import { bits, brand, row } from './cpuid-table.ts';

/** FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2. */
const LEAF_1_EDX = bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26);

export interface IntelDifferences {
  /** Leaf 1 EAX: family, model, stepping. */
  readonly signature: number;
  readonly maxPhyAddr: number;
  /** Implemented bits of linear addresses: 48, or 57 with LA57. */
  readonly linearBits: number;
  readonly brand: string;
  /** Bits of leaf 1 ECX, of leaf 7 EBX and ECX, and of leaf 80000008 EBX, beyond those that all have. */
  readonly features: number;
  readonly features7b: number;
  readonly features7c: number;
  readonly features8: number;
  /** AVX, AVX2, FMA, F16C and their state, and XSAVEC. */
  readonly avx: boolean;
}

export function intelCpuid(d: IntelDifferences): CpuidEntry[] {
  // FMA AVX F16C
  const avx1 = d.avx ? bits(12, 28, 29) : 0;
  return [
    row(0, 0, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69),
    // SSE3 PCLMULQDQ MONITOR VMX SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE
    row(1, 0, d.signature, 0x00000800, bits(0, 1, 3, 5, 9, 13, 19, 20, 22, 23, 25, 26) | avx1 | d.features, LEAF_1_EDX),
    row(5, 0, 0, 0, 3, 0),
    row(6, 0, 4, 0, 0, 0),
    // FSGSBASE BMI1 SMEP BMI2 ADX SMAP CLFLUSHOPT CLWB; PKU
    row(7, 0, 0, bits(0, 3, 7, 8, 19, 20, 23, 24) | (d.avx ? bits(5) : 0) | d.features7b, bits(3) | d.features7c, 0),
    // x87, SSE, AVX and PKRU
    row(0xd, 0, d.avx ? 0x207 : 0x203, 0xa88, 0xa88, 0),
    // XSAVEOPT XSAVEC XGETBV1
    row(0xd, 1, d.avx ? bits(0, 1, 2) : bits(0, 2), 0, 0, 0),
    ...(d.avx ? [row(0xd, 2, 256, 576, 0, 0)] : []),
    row(0xd, 9, 8, 0xa80, 0, 0),
    row(0x80000000, 0, 0x80000008, 0, 0, 0),
    // LAHF_LM ABM 3DNOWPREFETCH; SYSCALL NX PDPE1GB RDTSCP LM
    row(0x80000001, 0, 0, 0, bits(0, 5, 8), bits(11, 20, 26, 27, 29)),
    ...brand(d.brand),
    row(0x80000006, 0, 0, 0, 0x01006040, 0),
    row(0x80000007, 0, 0, 0, 0, bits(8)),
    row(0x80000008, 0, (d.linearBits << 8) | d.maxPhyAddr, d.features8, 0, 0),
  ];
}

/** CPUID of a Skylake-X without what came to the profiles later: AVX and PCIDs. */
export const SKYLAKE_CPUID = {
  signature: 0x00050654,
  maxPhyAddr: 46,
  linearBits: 48,
  brand: 'Intel(R) Xeon(R) Platinum 8168 CPU @ 2.70GHz',
  features: 0,
  features7b: 0,
  features7c: 0,
  features8: 0,
  avx: false,
} as const;

/** As the manuals describe it: a TLB that outlives exits, 46 physical address bits. */
export const skylake: HardwareProfile = {
  name: 'silicon-skylake',
  vendor: 'intel',
  maxPhyAddr: 46,
  nrips: false,
  decodeAssists: false,
  flushByAsid: false,
  vgif: false,
  svmAddressErratum: false,
  lmswSelective: true,
  asids: 0,
  tlbFlushedAtEntry: false,
  walkCaches: true,
  alignmentChecks: true,
  rsvdWithoutP: false,
  paePdpteRsvd: true,
  paePdpteAccessed: false,
  idtErrorAsQemu: false,
  int3AsInterrupt: false,
  rmwFaultsAsRead: false,
  pushaUpwards: false,
  maskMoveReachesAll: false,
  readsHighWordFirst: false,
  realModePushesFirst: true,
  busyTssHasNoIoMap: false,
  segmentChecks: true,
  resumeFlagReach: 1,
  ioAddressSize: true,
  cacheHintsFault: true,
  vmx: {
    ept: true,
    eptAdBits: true,
    eptExecuteOnly: true,
    eptFiveLevel: false,
    ept2M: true,
    ept1G: true,
    vpid: true,
    unrestrictedGuest: true,
    virtualApicAccesses: true,
    apicv: true,
    pml: true,
    tdx: false,
  },
  l1tf: true,
  gbPages: true,
  la57: false,
  smep: true,
  smap: true,
  umip: false,
  pku: true,
  fsgsbase: true,
  pcid: true,
  // PCID; INVPCID
  cpuid: intelCpuid({ ...SKYLAKE_CPUID, features: bits(17), features7b: bits(10), avx: true }),
};
