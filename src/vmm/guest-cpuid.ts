/** The CPUID that the board gives a vCPU: what KVM supports, less what the board does not have. */
import type { Kvm } from '../kvm/api/kvm.ts';

type Cpuid = ReturnType<Kvm['getSupportedCpuid']>;

const LEAF_FEATURES = 1;
const X2APIC = 1 << 21;
const HYPERVISOR = 1 << 31;
const TOPOLOGY_LEAVES = [0xb, 0x1f];

/**
 * Puts the APIC id where CPUID shows it and the hypervisor bit where guests look for it. x2APIC mode is not given: KVM lets every guest
 * have it, the board's local APIC has no such mode.
 */
export function guestCpuid(supported: Cpuid, apicId: number): Cpuid {
  return supported.map((e) => {
    if (e.function === LEAF_FEATURES) {
      const ecx = ((e.ecx & ~X2APIC) | HYPERVISOR) >>> 0;
      return { ...e, ebx: ((e.ebx & 0x00ff_ffff) | (apicId << 24)) >>> 0, ecx };
    }
    return TOPOLOGY_LEAVES.includes(e.function) ? { ...e, edx: apicId } : e;
  });
}
