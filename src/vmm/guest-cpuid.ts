/** The CPUID that the board gives a vCPU: what KVM supports, as a board presents it. */
import type { Kvm } from '../kvm/api/kvm.ts';

type Cpuid = ReturnType<Kvm['getSupportedCpuid']>;

const LEAF_FEATURES = 1;
const LEAF_SIZES = 0x8000_0008;
const TSC_DEADLINE = 1 << 24;
const HYPERVISOR = 1 << 31;
const HTT = 1 << 28;
const TOPOLOGY_LEAVES = [0xb, 0x1f];
const LEVEL_SMT = 1 << 8;
const LEVEL_CORE = 2 << 8;
const SIGNIFICANT_INDEX = 1;

/**
 * Puts the APIC id where CPUID shows it, the vCPUs as cores of one package, and the hypervisor bit where guests look for it. The
 * TSC-deadline timer is up to userspace: KVM's local APIC has it.
 */
export function guestCpuid(supported: Cpuid, apicId: number, vcpus: number): Cpuid {
  const own = supported.filter((e) => !TOPOLOGY_LEAVES.includes(e.function));
  const highest = supported.find((e) => e.function === 0)?.eax ?? 0;
  const topology = TOPOLOGY_LEAVES.filter((leaf) => leaf <= highest).flatMap((leaf) => topologyOf(leaf, apicId, vcpus));
  const features = own.map((e) => {
    if (e.function === LEAF_FEATURES) {
      const ecx = (e.ecx | TSC_DEADLINE | HYPERVISOR) >>> 0;
      const logical = vcpus > 1 ? Math.min(vcpus, 0xff) << 16 : e.ebx & 0x00ff_0000;
      const edx = vcpus > 1 ? (e.edx | HTT) >>> 0 : e.edx;
      return { ...e, ebx: ((e.ebx & 0xffff) | logical | (apicId << 24)) >>> 0, ecx, edx };
    }
    if (e.function === LEAF_SIZES && vcpus > 1)
      return { ...e, ecx: ((e.ecx & ~0xff) | Math.min(vcpus - 1, 0xff)) >>> 0 };
    return e;
  });
  return [...features, ...topology];
}

/** Levels of a topology leaf: one thread a core, all cores in the package, the end. */
function topologyOf(leaf: number, apicId: number, vcpus: number): Cpuid {
  const level = (index: number, eax: number, ebx: number, type: number) => ({
    function: leaf,
    index,
    flags: SIGNIFICANT_INDEX,
    eax,
    ebx,
    ecx: type | index,
    edx: apicId,
  });
  const idBits = Math.ceil(Math.log2(vcpus));
  return [level(0, 0, 1, LEVEL_SMT), level(1, idBits, vcpus, LEVEL_CORE), level(2, 0, 0, 0)];
}
