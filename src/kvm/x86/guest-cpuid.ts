/** What the rest of KVM asks about the guest's CPUID (@kvm cpuid.h guest_cpuid_has). */
import type { VcpuState } from '../vcpu-state.ts';

/** The guest has CPUID feature `feature` of cpuid-features.ts. @kvm cpuid.h guest_cpuid_has */
export function guestCpuidHas(vcpu: VcpuState, feature: number): boolean {
  return (vcpu.x86.features[feature >> 5]! & (1 << (feature & 31))) !== 0;
}

/** A paravirtual feature is there; all are, unless userspace wants them enforced. @kvm cpuid.h guest_pv_has */
export function guestPvHas(vcpu: VcpuState, feature: number): boolean {
  return !vcpu.x86.pvEnforceCpuid || guestCpuidHas(vcpu, feature);
}

/** @kvm cpuid.h guest_cpuid_is_intel_compatible */
export function guestCpuidIsIntelCompatible(vcpu: VcpuState): boolean {
  return !vcpu.x86.isAmdCompatible;
}
