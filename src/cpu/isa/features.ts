/** Extensions that rows of the encoding table belong to, and where CPUID reports them (@sdm volume 2 CPUID, @apm appendix D). */
import type { CpuidEntry } from '../profile.ts';

/** Leaf, index, register (0 EAX to 3 EDX) and bit. */
const WHERE = {
  SSE3: [1, 0, 2, 0],
  PCLMULQDQ: [1, 0, 2, 1],
  SSSE3: [1, 0, 2, 9],
  FMA: [1, 0, 2, 12],
  'SSE4.1': [1, 0, 2, 19],
  'SSE4.2': [1, 0, 2, 20],
  MOVBE: [1, 0, 2, 22],
  POPCNT: [1, 0, 2, 23],
  AES: [1, 0, 2, 25],
  AVX: [1, 0, 2, 28],
  F16C: [1, 0, 2, 29],
  FSGSBASE: [7, 0, 1, 0],
  BMI1: [7, 0, 1, 3],
  AVX2: [7, 0, 1, 5],
  BMI2: [7, 0, 1, 8],
  INVPCID: [7, 0, 1, 10],
  ADX: [7, 0, 1, 19],
  CLFLUSHOPT: [7, 0, 1, 23],
  CLWB: [7, 0, 1, 24],
  RDPID: [7, 0, 2, 22],
  XSAVEOPT: [0xd, 1, 0, 0],
  XSAVEC: [0xd, 1, 0, 1],
  XSAVES: [0xd, 1, 0, 3],
  LZCNT: [0x80000001, 0, 2, 5],
  RDTSCP: [0x80000001, 0, 3, 27],
  RDPRU: [0x80000008, 0, 1, 4],
  WBNOINVD: [0x80000008, 0, 1, 9],
  'SEV-SNP': [0x8000001f, 0, 0, 4],
} as const;

/** `base`: what every processor has that softkvm plays, or what checks its feature when it executes. */
export type Feature = 'base' | keyof typeof WHERE;

/** The extensions that `cpuid` does not report: their encodings are undefined, or mean what they meant before. */
export function absentFeatures(cpuid: readonly CpuidEntry[]): ReadonlySet<Feature> {
  const absent = new Set<Feature>();
  for (const [feature, [leaf, index, register, bit]] of Object.entries(WHERE)) {
    const row = cpuid.find((entry) => entry.leaf === leaf && entry.index === index);
    const word = row === undefined ? 0 : [row.eax, row.ebx, row.ecx, row.edx][register]!;
    if (((word >>> bit) & 1) === 0) absent.add(feature as Feature);
  }
  return absent;
}
