/** The CPUID that the board gives a vCPU: what KVM supports, as a board presents it. */
import type { Kvm } from '../kvm/api/kvm.ts';

type Cpuid = ReturnType<Kvm['getSupportedCpuid']>;

const LEAF_FEATURES = 1;
const TSC_DEADLINE = 1 << 24;
const HYPERVISOR = 1 << 31;
const TOPOLOGY_LEAVES = [0xb, 0x1f];

/**
 * Puts the APIC id where CPUID shows it and the hypervisor bit where guests look for it. The TSC-deadline timer is up to userspace:
 * KVM's local APIC has it.
 */
export function guestCpuid(supported: Cpuid, apicId: number): Cpuid {
  return supported.map((e) => {
    if (e.function === LEAF_FEATURES) {
      const ecx = (e.ecx | TSC_DEADLINE | HYPERVISOR) >>> 0;
      return { ...e, ebx: ((e.ebx & 0x00ff_ffff) | (apicId << 24)) >>> 0, ecx };
    }
    return TOPOLOGY_LEAVES.includes(e.function) ? { ...e, edx: apicId } : e;
  });
}
