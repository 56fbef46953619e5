/** CPUID features by name, as Linux calls them: asked for, or taken from a guest. */
import type { Kvm } from '../kvm/api/kvm.ts';

type Cpuid = ReturnType<Kvm['getSupportedCpuid']>;
type Register = 'eax' | 'ebx' | 'ecx' | 'edx';

/** A feature that a guest must have (`present`), or must not see. */
export interface CpuFeature {
  readonly name: string;
  readonly present: boolean;
}

/** Feature bits of a register: their names at their places. */
const FEATURES: readonly (readonly [leaf: number, register: Register, bits: Readonly<Record<string, number>>])[] = [
  [
    1,
    'ecx',
    {
      sse3: 0,
      pclmulqdq: 1,
      monitor: 3,
      ssse3: 9,
      fma: 12,
      cx16: 13,
      pcid: 17,
      sse4_1: 19,
      sse4_2: 20,
      x2apic: 21,
      movbe: 22,
      popcnt: 23,
      aes: 25,
      xsave: 26,
      avx: 28,
      f16c: 29,
      rdrand: 30,
    },
  ],
  [1, 'edx', { fpu: 0, pse: 3, tsc: 4, msr: 5, pae: 6, cx8: 8, apic: 9, sep: 11, mtrr: 12, pge: 13, cmov: 15 }],
  [1, 'edx', { pat: 16, pse36: 17, clflush: 19, mmx: 23, fxsr: 24, sse: 25, sse2: 26 }],
  [
    7,
    'ebx',
    { fsgsbase: 0, bmi1: 3, avx2: 5, smep: 7, bmi2: 8, erms: 9, invpcid: 10, avx512f: 16, rdseed: 18, adx: 19 },
  ],
  [7, 'ebx', { smap: 20, clflushopt: 23, clwb: 24, sha_ni: 29 }],
  [7, 'ecx', { umip: 2, pku: 3, la57: 16, rdpid: 22 }],
  [0x8000_0001, 'ecx', { lahf_lm: 0, svm: 2, abm: 5, sse4a: 6 }],
  [0x8000_0001, 'edx', { syscall: 11, nx: 20, pdpe1gb: 26, rdtscp: 27, lm: 29 }],
];

/** Names that there are. */
export const CPU_FEATURE_NAMES: readonly string[] = FEATURES.flatMap(([, , bits]) => Object.keys(bits));

function find(name: string): { leaf: number; register: Register; mask: number } {
  for (const [leaf, register, bits] of FEATURES) {
    const bit = bits[name];
    if (bit !== undefined) return { leaf, register, mask: 1 << bit };
  }
  throw new RangeError(`CPU feature ${name}`);
}

/** Of `wanted`, the first feature that `supported` has not and that must be there; null when there is none. */
export function missingFeature(supported: Cpuid, wanted: readonly CpuFeature[]): string | null {
  const absent = wanted.find(({ name, present }) => {
    const { leaf, register, mask } = find(name);
    return present && !supported.some((e) => e.function === leaf && e.index === 0 && (e[register] & mask) !== 0);
  });
  return absent?.name ?? null;
}

/** The CPUID without the features that the guest must not see. */
export function withoutFeatures(cpuid: Cpuid, wanted: readonly CpuFeature[]): Cpuid {
  const hidden = wanted.filter((f) => !f.present).map((f) => find(f.name));
  return cpuid.map((e) => {
    const entry = { ...e };
    for (const { leaf, register, mask } of hidden) {
      if (e.function === leaf && e.index === 0) entry[register] = (entry[register] & ~mask) >>> 0;
    }
    return entry;
  });
}
