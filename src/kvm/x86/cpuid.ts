/** The guest's CPUID: KVM_SET_CPUID2, the CPUID instruction, and what the rest of KVM asks about it (@kvm cpuid.c). */
import {
  CR4_FSGSBASE,
  CR4_LA57,
  CR4_OSXSAVE,
  CR4_PCIDE,
  CR4_PKE,
  CR4_SMAP,
  CR4_SMEP,
  CR4_UMIP,
  CR4_VMXE,
  RAX,
  RBX,
  RCX,
  RDX,
} from '../../arch/registers.ts';
import type { CpuidEntry } from '../../cpu/profile.ts';
import { E2BIG, EINVAL } from '../../host/errno.ts';
import { afterSetCpuid } from '../mmu/roles.ts';
import type { VcpuState } from '../vcpu-state.ts';
import * as F from './cpuid-features.ts';
import { guestCpuidHas } from './guest-cpuid.ts';
import { lapicAfterSetCpuid } from './lapic.ts';
import { registerWrite } from './registers.ts';
import { skipEmulatedInstruction } from './skip.ts';
import { KVM_SUPPORTED_XCR0, xstateRequiredSize } from './supported-cpuid.ts';

/** @kvm kvm_host.h KVM_MAX_CPUID_ENTRIES */
const KVM_MAX_CPUID_ENTRIES = 256;

/** Leaves whose answer depends on the index in ECX. */
const indexed = new Set([4, 7, 0xb, 0xd, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1d, 0x1e, 0x1f, 0x24, 0x8000001d]);

/** @kvm cpuid.c cpuid_entry2_find */
function find(entries: readonly CpuidEntry[], leaf: number, index: number): CpuidEntry | undefined {
  return entries.find((e) => e.leaf === leaf && (!indexed.has(leaf) || e.index === index));
}

const AMD_VENDORS = new Set(['AuthenticAMD', 'HygonGenuine']);

function vendorOf(entries: readonly CpuidEntry[]): string {
  const e = find(entries, 0, 0);
  if (e === undefined) return '';
  let text = '';
  for (const word of [e.ebx, e.edx, e.ecx])
    for (let i = 0; i < 4; i++) text += String.fromCharCode((word >>> (8 * i)) & 0xff);
  return text;
}

/** Physical address width in the guest's CPUID, 36 when it does not say. @kvm cpuid.c cpuid_query_maxphyaddr */
function queryMaxPhyAddr(entries: readonly CpuidEntry[]): number {
  const top = find(entries, 0x80000000, 0);
  if (top === undefined || top.eax < 0x80000008) return 36;
  const e = find(entries, 0x80000008, 0);
  return e === undefined ? 36 : e.eax & 0xff;
}

/** CR4 bits a guest with these features may not set. @kvm x86.h __cr4_reserved_bits */
function cr4ReservedBits(has: (feature: number) => boolean): number {
  let rsvd = ~(0x7ff | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_FSGSBASE | CR4_SMAP | CR4_PKE | CR4_UMIP | CR4_LA57);
  if (!has(F.X86_FEATURE_XSAVE)) rsvd |= CR4_OSXSAVE;
  if (!has(F.X86_FEATURE_SMEP)) rsvd |= CR4_SMEP;
  if (!has(F.X86_FEATURE_SMAP)) rsvd |= CR4_SMAP;
  if (!has(F.X86_FEATURE_FSGSBASE)) rsvd |= CR4_FSGSBASE;
  if (!has(F.X86_FEATURE_PKU)) rsvd |= CR4_PKE;
  if (!has(F.X86_FEATURE_LA57)) rsvd |= CR4_LA57;
  if (!has(F.X86_FEATURE_UMIP)) rsvd |= CR4_UMIP;
  if (!has(F.X86_FEATURE_PCID)) rsvd |= CR4_PCIDE;
  if (has(F.X86_FEATURE_VMX)) rsvd &= ~CR4_VMXE;
  return rsvd;
}

function featureWord(entries: readonly CpuidEntry[], word: number): number {
  const at = F.featureWords[word]!;
  const e = find(entries, at.leaf, at.index);
  if (e === undefined) return 0;
  return [e.eax, e.ebx, e.ecx, e.edx][at.reg]! | 0;
}

/** Recomputes all that depends on CPUID; also makes the state of a vCPU without any. @kvm cpuid.c kvm_vcpu_after_set_cpuid */
export function refreshCpuidState(vcpu: VcpuState): void {
  const x86 = vcpu.x86;
  const entries = x86.cpuid;
  for (let i = 0; i < F.featureWords.length; i++) x86.features[i] = featureWord(entries, i);
  x86.isAmdCompatible = AMD_VENDORS.has(vendorOf(entries));
  vcpu.maxPhyAddr = queryMaxPhyAddr(entries);
  x86.reservedGpaBitsHi = vcpu.maxPhyAddr >= 64 ? 0 : vcpu.maxPhyAddr >= 32 ? ~((1 << (vcpu.maxPhyAddr - 32)) - 1) : -1;
  const host = hostFeatures(vcpu);
  x86.cr4GuestRsvdBits =
    cr4ReservedBits((feature) => guestCpuidHas(vcpu, feature)) |
    cr4ReservedBits((feature) => (host[feature >> 5]! & (1 << (feature & 31))) !== 0);
  const xsave = find(entries, 0xd, 0);
  x86.guestSupportedXcr0 = xsave === undefined ? 0 : xsave.eax & KVM_SUPPORTED_XCR0;
}

function hostFeatures(vcpu: VcpuState): Int32Array {
  const words = new Int32Array(F.featureWords.length);
  for (let i = 0; i < words.length; i++) words[i] = featureWord(vcpu.vm.profile.cpuid, i);
  if (vcpu.vm.profile.vendor === 'intel') words[F.WORD_7_ECX]! |= 1 << (F.X86_FEATURE_UMIP & 31);
  // PKU is virtualized only with a second level of paging.
  if (!vcpu.vm.vendor.tdpEnabled) words[F.WORD_7_ECX]! &= ~(1 << (F.X86_FEATURE_PKU & 31));
  return words;
}

function setBit(value: number, bit: number, on: boolean): number {
  return (on ? value | (1 << bit) : value & ~(1 << bit)) >>> 0;
}

/** Bits of CPUID that follow control registers and MSRs. @kvm cpuid.c kvm_update_cpuid_runtime */
function runtimeEntry(vcpu: VcpuState, e: CpuidEntry): CpuidEntry {
  const host = vcpu.vm.profile.cpuid;
  if (e.leaf === 1) {
    const apicOn = (vcpu.apicBase & 0x800) !== 0;
    return {
      ...e,
      ecx: setBit(e.ecx, F.X86_FEATURE_OSXSAVE & 31, (vcpu.cr4 & CR4_OSXSAVE) !== 0),
      edx: setBit(e.edx, F.X86_FEATURE_APIC & 31, apicOn),
    };
  }
  if (e.leaf === 7 && e.index === 0) {
    return { ...e, ecx: setBit(e.ecx, F.X86_FEATURE_OSPKE & 31, (vcpu.cr4 & CR4_PKE) !== 0) };
  }
  if (e.leaf === 0xd && e.index === 0) return { ...e, ebx: xstateRequiredSize(vcpu.xcr0, host, false) };
  if (e.leaf === 0xd && e.index === 1 && (e.eax & 0xa) !== 0) {
    return { ...e, ebx: xstateRequiredSize(vcpu.xcr0, host, true) };
  }
  return e;
}

/** 0, -E2BIG or -EINVAL. After the first KVM_RUN only the same entries are accepted. @kvm cpuid.c kvm_set_cpuid */
export function setCpuid2(vcpu: VcpuState, entries: readonly CpuidEntry[]): number {
  const x86 = vcpu.x86;
  if (entries.length > KVM_MAX_CPUID_ENTRIES) return -E2BIG;
  if (x86.hasRun) {
    const same =
      entries.length === x86.cpuid.length &&
      entries.every((e, i) => {
        const old = x86.cpuid[i]!;
        const now = runtimeEntry(vcpu, e);
        const then = runtimeEntry(vcpu, old);
        return (
          e.leaf === old.leaf &&
          e.index === old.index &&
          now.eax === then.eax &&
          now.ebx === then.ebx &&
          now.ecx === then.ecx &&
          now.edx === then.edx
        );
      });
    return same ? 0 : -EINVAL;
  }
  const addresses = find(entries, 0x80000008, 0);
  if (addresses !== undefined) {
    const bits = (addresses.eax >>> 8) & 0xff;
    if (bits !== 48 && bits !== 57 && bits !== 0) return -EINVAL;
  }
  x86.cpuid = entries.map((e) => ({ ...e, leaf: e.leaf >>> 0 }));
  refreshCpuidState(vcpu);
  if (x86.lapic !== null) lapicAfterSetCpuid(vcpu, x86.lapic);
  vcpu.vm.vendor.afterSetCpuid(vcpu);
  afterSetCpuid(vcpu);
  return 0;
}

/** KVM_GET_CPUID2 @kvm cpuid.c kvm_vcpu_ioctl_get_cpuid2 */
export function getCpuid2(vcpu: VcpuState): CpuidEntry[] {
  return vcpu.x86.cpuid.map((e) => runtimeEntry(vcpu, e));
}

/** Intel answers a leaf that is too high with the highest basic one; AMD answers zeros. */
function outOfRangeEntry(entries: readonly CpuidEntry[], leaf: number, index: number): CpuidEntry | undefined {
  const basic = find(entries, 0, 0);
  if (basic === undefined || AMD_VENDORS.has(vendorOf(entries))) return undefined;
  let classLeaf = (leaf & 0x80000000) >>> 0;
  if (leaf >= 0x40000000 && leaf <= 0x4fffffff) classLeaf = (leaf & 0xffffff00) >>> 0;
  else if (leaf >= 0xc0000000) classLeaf = 0xc0000000;
  const top = find(entries, classLeaf, 0);
  if (top !== undefined && leaf <= top.eax) return undefined;
  return find(entries, basic.eax, index);
}

/** [eax, ebx, ecx, edx] for the leaf in eax and index in ecx; false when there is no exact entry. @kvm cpuid.c kvm_cpuid */
export function kvmCpuid(vcpu: VcpuState, regs: Uint32Array, exactOnly: boolean): boolean {
  const entries = vcpu.x86.cpuid;
  const leaf = regs[0]!;
  const index = regs[2]!;
  const exact = find(entries, leaf, index);
  const e = exact ?? (exactOnly ? undefined : outOfRangeEntry(entries, leaf, index));
  if (e === undefined) {
    regs.fill(0);
    if (leaf === 0xb || leaf === 0x1f) {
      const first = find(entries, leaf, 1);
      if (first !== undefined) {
        regs[2] = index & 0xff;
        regs[3] = first.edx;
      }
    }
  } else {
    const now = runtimeEntry(vcpu, e);
    regs[0] = now.eax;
    regs[1] = now.ebx;
    regs[2] = now.ecx;
    regs[3] = now.edx;
  }
  const trace = vcpu.vm.trace;
  if (trace.enabled) {
    const h = (i: number): string => regs[i]!.toString(16);
    const text =
      `func ${leaf.toString(16)} idx ${index.toString(16)} rax ${h(0)} rbx ${h(1)} rcx ${h(2)} rdx ${h(3)}, ` +
      `cpuid entry ${exact !== undefined ? 'found' : 'not found'}${exact === undefined && e !== undefined ? ', used max basic' : ''}`;
    trace.emit('kvm_cpuid', { text });
  }
  return exact !== undefined;
}

const answer = new Uint32Array(4);

/** @kvm cpuid.c kvm_emulate_cpuid */
export function emulateCpuid(vcpu: VcpuState): number {
  answer[0] = vcpu.regs[2 * RAX]!;
  answer[2] = vcpu.regs[2 * RCX]!;
  kvmCpuid(vcpu, answer, false);
  registerWrite(vcpu, RAX, answer[0]! | 0, 0);
  registerWrite(vcpu, RBX, answer[1]! | 0, 0);
  registerWrite(vcpu, RCX, answer[2]! | 0, 0);
  registerWrite(vcpu, RDX, answer[3]! | 0, 0);
  return skipEmulatedInstruction(vcpu);
}
