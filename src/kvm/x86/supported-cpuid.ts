/** KVM_GET_SUPPORTED_CPUID: the processor's CPUID less what KVM does not virtualize (@kvm cpuid.c kvm_set_cpu_caps, __do_cpuid_func). */
import type { CpuidEntry, HardwareProfile } from '../../cpu/profile.ts';
import { type KvmParams, tdpEnabled } from '../params.ts';

/** Bits of a word from their numbers. */
const bits = (...list: number[]): number => list.reduce((mask, bit) => mask | (1 << bit), 0);

/** What KVM 6.12 lets a guest use, word by word. */
const CAPS_1_ECX = bits(0, 1, 9, 12, 13, 15, 17, 19, 20, 21, 22, 23, 25, 26, 28, 29, 30);
const CAPS_1_EDX = bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27);
const CAPS_7_EBX = bits(0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 16, 17, 18, 19, 20, 21, 23, 24, 26, 27, 28, 29, 30, 31);
const CAPS_7_ECX = bits(1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 16, 22, 25, 27, 28, 30);
const CAPS_7_EDX = bits(2, 3, 4, 8, 10, 14, 16, 22, 23, 24, 25, 26, 27, 28, 29, 31);
const CAPS_7_1_EAX = bits(4, 5, 7, 10, 11, 12, 21, 23, 26);
const CAPS_D_1_EAX = bits(0, 1, 2, 3);
const CAPS_8000_0001_ECX = bits(0, 1, 4, 5, 6, 7, 8, 9, 11, 16, 21, 22);
const CAPS_8000_0001_EDX = bits(
  ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 22, 23, 24, 25, 26, 27, 29, 30, 31],
);
const CAPS_8000_0008_EBX = bits(0, 2, 9, 12, 14, 15, 17, 24, 25, 26, 28);
const CAPS_8000_0021_EAX = bits(0, 2, 5, 6, 8, 9, 30);

/** SEV, SEV-ES, SEV-SNP. */
const SEV_EAX = bits(1, 3, 4);
const SVM = bits(2);
const TSC_ADJUST = bits(1);
const ARCH_CAPABILITIES = bits(29);
const X2APIC = bits(21);
const VMX = bits(5);
const PKU = bits(3);
const UMIP = bits(2);
const GBPAGES = bits(26);
const CONSTANT_TSC = bits(8);
const AMD_SSB_NO = bits(26);
const NULL_SEL_CLR_BASE = bits(6);
const NO_SMM_CTL_MSR = bits(9);

/** "KVMKVMKVM\0\0\0" in EBX, ECX, EDX. */
const KVM_SIGNATURE = [0x4b4d564b, 0x564b4d56, 0x4d];
/** CLOCKSOURCE, NOP_IO_DELAY, CLOCKSOURCE2, ASYNC_PF, PV_EOI, ..., ASYNC_PF_INT; no steal time: there is no scheduler. */
const KVM_FEATURES = bits(0, 1, 3, 4, 6, 7, 9, 10, 11, 12, 13, 14, 24);

/** ASIDs that an L1 has. */
const NESTED_ASIDS = 8;

/**
 * SVM's features for L1, out of the processor's: NPT, and NRIPS and PauseFilter where hardware has them; KVM itself sees to the clean bits,
 * flushing by ASID and the check of addresses. @kvm svm.c svm_set_cpu_caps
 */
function svmCaps(edx: number, tdp: boolean): number {
  return bits(5, 6, 28) | (edx & bits(3, 10)) | (tdp ? bits(0) : 0);
}

function entry(base: CpuidEntry, changed: Partial<CpuidEntry>): CpuidEntry {
  const merged = { ...base, ...changed };
  return {
    leaf: merged.leaf >>> 0,
    index: merged.index,
    eax: merged.eax >>> 0,
    ebx: merged.ebx >>> 0,
    ecx: merged.ecx >>> 0,
    edx: merged.edx >>> 0,
  };
}

function empty(leaf: number, index = 0): CpuidEntry {
  return { leaf, index, eax: 0, ebx: 0, ecx: 0, edx: 0 };
}

/** Size of the XSAVE area for these components, by the sizes and offsets that leaf 0xd gives. @kvm cpuid.c xstate_required_size */
export function xstateRequiredSize(xcr0: number, host: readonly CpuidEntry[], compacted: boolean): number {
  let size = 512 + 64;
  for (let i = 2; i < 32; i++) {
    if ((xcr0 & (1 << i)) === 0) continue;
    const part = host.find((e) => e.leaf === 0xd && e.index === i);
    if (part === undefined) continue;
    const offset = compacted ? ((part.ecx & 2) !== 0 ? Math.ceil(size / 64) * 64 : size) : part.ebx;
    size = Math.max(size, offset + part.eax);
  }
  return size;
}

/** XCR0 components KVM supports: x87, SSE, AVX, PKRU (@kvm x86.c KVM_SUPPORTED_XCR0). */
export const KVM_SUPPORTED_XCR0 = 0x207;

function filterLeaf(e: CpuidEntry, profile: HardwareProfile, params: KvmParams): CpuidEntry | null {
  const host = profile.cpuid;
  const tdp = tdpEnabled(profile, params);
  const nestedVmx = profile.vendor === 'intel' ? VMX : 0;
  const nestedSvm = profile.vendor === 'amd';
  switch (e.leaf) {
    case 0:
      return entry(e, { eax: Math.min(e.eax, 0x24) });
    case 1:
      return entry(e, { edx: e.edx & CAPS_1_EDX, ecx: (e.ecx & (CAPS_1_ECX | nestedVmx)) | X2APIC });
    case 2:
    case 4:
    case 0x80000005:
    case 0x8000001d:
      return e;
    case 6:
      return entry(empty(6), { eax: 4 });
    case 7:
      if (e.index === 0) {
        const pku = tdp ? PKU : 0;
        // On Intel KVM emulates it where the processor has not got it.
        const umip = profile.vendor === 'intel' ? UMIP : 0;
        return entry(e, {
          eax: Math.min(e.eax, 2),
          ebx: (e.ebx & CAPS_7_EBX) | TSC_ADJUST,
          ecx: (e.ecx & CAPS_7_ECX & ~(PKU & ~pku)) | umip,
          edx: (e.edx & CAPS_7_EDX) | ARCH_CAPABILITIES,
        });
      }
      if (e.index === 1) return entry(e, { eax: e.eax & CAPS_7_1_EAX, ebx: 0, ecx: 0, edx: 0 });
      return null;
    case 0xb:
    case 0x1f:
      return e.index === 0 ? entry(e, { eax: 0, ebx: 0, ecx: 0 }) : null;
    case 0xd: {
      const first = host.find((x) => x.leaf === 0xd && x.index === 0);
      const xcr0 = (first?.eax ?? 0) & KVM_SUPPORTED_XCR0;
      if (e.index === 0) {
        const size = xstateRequiredSize(xcr0, host, false);
        return entry(e, { eax: xcr0, ebx: size, ecx: size, edx: 0 });
      }
      if (e.index === 1) {
        const eax = e.eax & CAPS_D_1_EAX & ~bits(3);
        const ebx = (eax & bits(1)) !== 0 ? xstateRequiredSize(xcr0, host, true) : 0;
        return entry(e, { eax, ebx, ecx: 0, edx: 0 });
      }
      return (xcr0 & (1 << e.index)) !== 0 ? entry(e, { ecx: e.ecx & ~4, edx: 0 }) : null;
    }
    case 0x80000000:
      return entry(e, { eax: Math.max(Math.min(e.eax, 0x80000022), 0x80000021) });
    case 0x80000001:
      return entry(e, {
        ebx: e.ebx & ~0x0fff0000,
        edx: (e.edx & CAPS_8000_0001_EDX) | (tdp ? 0 : GBPAGES),
        ecx: e.ecx & (CAPS_8000_0001_ECX | (nestedSvm ? SVM : 0)),
      });
    case 0x80000006:
      return entry(e, { edx: e.edx & ~0x30000 });
    case 0x80000007:
      return entry(empty(e.leaf), { edx: e.edx & CONSTANT_TSC });
    case 0x80000008: {
      const physical = e.eax & 0xff;
      const virtual = Math.max((e.eax >>> 8) & 0xff, 48);
      const guestPhysical = tdp ? Math.min(physical, profile.la57 ? 57 : 48) : 0;
      return entry(e, {
        eax: physical | (virtual << 8) | (guestPhysical << 16),
        ebx: (e.ebx & CAPS_8000_0008_EBX) | AMD_SSB_NO,
        ecx: e.ecx & ~0xffff0f00,
        edx: 0,
      });
    }
    case 0x8000000a:
      return !nestedSvm ? empty(e.leaf) : entry(e, { eax: 1, ebx: NESTED_ASIDS, ecx: 0, edx: svmCaps(e.edx, tdp) });
    case 0x80000019:
      return entry(e, { ecx: 0, edx: 0 });
    case 0x8000001a:
      return entry(empty(e.leaf), { eax: e.eax & 7 });
    case 0x8000001f:
      // No levels, and the width in 80000008 is the guest's own.
      if (profile.snp === undefined || !tdp) return empty(e.leaf);
      return entry(e, { eax: e.eax & SEV_EAX, ebx: e.ebx & 0x3f });
    case 0x80000021:
      return entry(empty(e.leaf), { eax: (e.eax & CAPS_8000_0021_EAX) | NULL_SEL_CLR_BASE | NO_SMM_CTL_MSR });
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
      return e;
    default:
      return e.index === 0 ? empty(e.leaf) : null;
  }
}

/** The entries, in leaf order, KVM's own leaves at 0x40000000 among them. @kvm cpuid.c kvm_dev_ioctl_get_cpuid */
export function supportedCpuid(profile: HardwareProfile, params: KvmParams): CpuidEntry[] {
  const out: CpuidEntry[] = [];
  for (const e of profile.cpuid) {
    if (e.leaf >= 0x40000000 && e.leaf < 0x50000000) continue;
    const filtered = filterLeaf(e, profile, params);
    if (filtered !== null) out.push(filtered);
  }
  if (!out.some((e) => e.leaf === 0x80000021)) {
    out.push(entry(empty(0x80000021), { eax: NULL_SEL_CLR_BASE | NO_SMM_CTL_MSR }));
  }
  out.push(
    entry(empty(0x40000000), {
      eax: 0x40000001,
      ebx: KVM_SIGNATURE[0]!,
      ecx: KVM_SIGNATURE[1]!,
      edx: KVM_SIGNATURE[2]!,
    }),
    entry(empty(0x40000001), { eax: KVM_FEATURES }),
  );
  return out.sort((a, b) => a.leaf - b.leaf || a.index - b.index);
}
