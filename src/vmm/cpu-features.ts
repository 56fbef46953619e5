/** CPUID features by the names that QEMU's `-cpu` has for them, to be given to a guest or kept from it. */
import type { Kvm } from '../kvm/api/kvm.ts';
import * as F from '../kvm/x86/cpuid-features.ts';

type Cpuid = ReturnType<Kvm['getSupportedCpuid']>;

/** A feature and whether the guest is to have it. */
export interface CpuFeature {
  readonly name: string;
  readonly on: boolean;
}

const REGISTERS = ['eax', 'ebx', 'ecx', 'edx'] as const;
const bit = (word: number, n: number): number => word * 32 + n;

/** Word of KVM's table times 32, plus the bit. */
const FEATURES: { readonly [name: string]: number } = {
  apic: F.X86_FEATURE_APIC,
  pse: bit(F.WORD_1_EDX, 3),
  pae: bit(F.WORD_1_EDX, 6),
  mtrr: bit(F.WORD_1_EDX, 12),
  pge: bit(F.WORD_1_EDX, 13),
  pat: bit(F.WORD_1_EDX, 16),
  sse3: bit(F.WORD_1_ECX, 0),
  ssse3: bit(F.WORD_1_ECX, 9),
  cx16: bit(F.WORD_1_ECX, 13),
  pcid: F.X86_FEATURE_PCID,
  'sse4.1': bit(F.WORD_1_ECX, 19),
  'sse4.2': bit(F.WORD_1_ECX, 20),
  x2apic: F.X86_FEATURE_X2APIC,
  movbe: F.X86_FEATURE_MOVBE,
  popcnt: bit(F.WORD_1_ECX, 23),
  'tsc-deadline': F.X86_FEATURE_TSC_DEADLINE_TIMER,
  xsave: F.X86_FEATURE_XSAVE,
  avx: bit(F.WORD_1_ECX, 28),
  f16c: bit(F.WORD_1_ECX, 29),
  rdrand: bit(F.WORD_1_ECX, 30),
  hypervisor: bit(F.WORD_1_ECX, 31),
  fsgsbase: F.X86_FEATURE_FSGSBASE,
  'tsc-adjust': F.X86_FEATURE_TSC_ADJUST,
  bmi1: bit(F.WORD_7_EBX, 3),
  avx2: bit(F.WORD_7_EBX, 5),
  smep: F.X86_FEATURE_SMEP,
  bmi2: bit(F.WORD_7_EBX, 8),
  erms: bit(F.WORD_7_EBX, 9),
  invpcid: F.X86_FEATURE_INVPCID,
  adx: bit(F.WORD_7_EBX, 19),
  smap: F.X86_FEATURE_SMAP,
  umip: F.X86_FEATURE_UMIP,
  pku: F.X86_FEATURE_PKU,
  la57: F.X86_FEATURE_LA57,
  rdpid: F.X86_FEATURE_RDPID,
  pks: bit(F.WORD_7_ECX, 31),
  nx: F.X86_FEATURE_NX,
  pdpe1gb: F.X86_FEATURE_GBPAGES,
  rdtscp: F.X86_FEATURE_RDTSCP,
  svm: F.X86_FEATURE_SVM,
  kvmclock: F.KVM_FEATURE_CLOCKSOURCE2,
  'kvm-asyncpf': F.KVM_FEATURE_ASYNC_PF,
  'kvm-pv-unhalt': F.KVM_FEATURE_PV_UNHALT,
  'kvm-pv-ipi': F.KVM_FEATURE_PV_SEND_IPI,
};

/** The names there are. */
export const CPU_FEATURES: readonly string[] = Object.keys(FEATURES);

/** A feature was asked for that KVM cannot give on this hardware. */
export class MissingFeature extends Error {
  readonly feature: string;

  constructor(feature: string) {
    super(`CPUID feature ${feature}`);
    this.feature = feature;
  }
}

/** The CPUID with features switched on and off. @throws MissingFeature for one that `supported` has not */
export function withFeatures(supported: Cpuid, features: readonly CpuFeature[]): Cpuid {
  const cpuid = supported.map((e) => ({ ...e }));
  for (const { name, on } of features) {
    const at = FEATURES[name]!;
    const { leaf, index, reg } = F.featureWords[at >> 5]!;
    const entry = cpuid.find((e) => e.function === leaf && e.index === index);
    const register = REGISTERS[reg]!;
    const mask = 1 << (at & 31);
    const has = entry !== undefined && (entry[register] & mask) !== 0;
    if (on && !has) throw new MissingFeature(name);
    if (!on && has) entry[register] = (entry[register] & ~mask) >>> 0;
  }
  return cpuid;
}
