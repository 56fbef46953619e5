/** Interrupts that wait for a vCPU (@kvm irq.c). */
import type { VcpuState } from '../vcpu-state.ts';
import { APIC_LVT_MASKED, APIC_LVT0, lapicGetInterrupt, lapicHasInterrupt, lapicHwEnabled, lapicReg } from './lapic.ts';

/** The boot vCPU listens to the PIC while its LINT0 is unmasked ExtINT. @kvm lapic.c kvm_apic_accept_pic_intr */
export function apicAcceptsPicIntr(vcpu: VcpuState): boolean {
  const apic = vcpu.x86.lapic!;
  if (!lapicHwEnabled(vcpu)) return true;
  const lvt0 = lapicReg(apic, APIC_LVT0);
  return (lvt0 & APIC_LVT_MASKED) === 0 && ((lvt0 >> 8) & 7) === 7;
}

/** @kvm irq.c kvm_cpu_has_extint */
function hasExtint(vcpu: VcpuState): boolean {
  const { pic } = vcpu.vm.x86;
  if (vcpu.x86.lapic === null || pic === null) return false;
  return pic.output && apicAcceptsPicIntr(vcpu);
}

/** @kvm irq.c kvm_cpu_has_injectable_intr: without an in-kernel APIC, what KVM_INTERRUPT queued. */
export function cpuHasInjectableIntr(vcpu: VcpuState): boolean {
  const apic = vcpu.x86.lapic;
  if (apic === null) return vcpu.x86.interruptInjected;
  return hasExtint(vcpu) || lapicHasInterrupt(apic) !== -1;
}

/** @kvm irq.c kvm_cpu_has_interrupt */
export function cpuHasInterrupt(vcpu: VcpuState): boolean {
  return cpuHasInjectableIntr(vcpu);
}

/** Vector of the interrupt to inject, -1 for none; it counts as taken. @kvm irq.c kvm_cpu_get_interrupt */
export function cpuGetInterrupt(vcpu: VcpuState): number {
  const apic = vcpu.x86.lapic;
  if (apic === null) return vcpu.x86.interruptNr;
  if (hasExtint(vcpu)) return vcpu.vm.x86.pic!.readIrq(vcpu.vm);
  return lapicGetInterrupt(apic);
}
