/**
 * The local APIC's timer in virtual time: one tick of the bus clock is one retired instruction, plus the time skipped while every
 * vCPU was halted (@kvm lapic.c start_apic_timer).
 */
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import {
  APIC_LVT_MASKED,
  APIC_LVT_TIMER_PERIODIC,
  APIC_LVTT,
  APIC_TDCR,
  APIC_TMICT,
  type Lapic,
  lapicAcceptIrq,
  lapicHwEnabled,
  lapicReg,
} from './lapic.ts';

/** Virtual time in ticks. */
export function apicNow(vm: VmState): number {
  return vm.processor.insns + vm.x86.idleTime;
}

/** The timer's mode may have changed: a running timer goes on, and repeats or not as the new mode says. @kvm lapic.c apic_update_lvtt */
export function updateTimerMode(apic: Lapic): void {
  const periodic = (lapicReg(apic, APIC_LVTT) & APIC_LVT_TIMER_PERIODIC) !== 0;
  apic.timerPeriod = periodic ? lapicReg(apic, APIC_TMICT) * apic.divideCount : 0;
}

/** @kvm lapic.c update_divide_count */
export function updateDivideCount(apic: Lapic): void {
  const tdcr = lapicReg(apic, APIC_TDCR);
  const shift = ((tdcr & 3) | ((tdcr & 8) >> 1)) + 1;
  apic.divideCount = 1 << (shift & 7);
}

/** @kvm lapic.c start_apic_timer @partial one-shot and periodic mode only */
export function startApicTimer(apic: Lapic): void {
  const count = lapicReg(apic, APIC_TMICT);
  if (count === 0) {
    apic.timerExpires = -1;
    return;
  }
  const ticks = count * apic.divideCount;
  updateTimerMode(apic);
  apic.timerExpires = apicNow(apic.vcpu.vm) + ticks;
}

/** The current count register. @kvm lapic.c apic_get_tmcct */
export function currentCount(apic: Lapic): number {
  if (apic.timerExpires < 0) return 0;
  return Math.max(0, Math.ceil((apic.timerExpires - apicNow(apic.vcpu.vm)) / apic.divideCount));
}

/** Fires the timer when its time has come. @kvm irq.c kvm_inject_pending_timer_irqs */
export function pollApicTimer(vcpu: VcpuState): void {
  const apic = vcpu.x86.lapic;
  if (apic === null || apic.timerExpires < 0 || apicNow(vcpu.vm) < apic.timerExpires) return;
  apic.timerExpires = apic.timerPeriod > 0 ? apic.timerExpires + apic.timerPeriod : -1;
  const lvtt = lapicReg(apic, APIC_LVTT);
  if (lapicHwEnabled(vcpu) && (lvtt & APIC_LVT_MASKED) === 0) lapicAcceptIrq(apic, 0, lvtt & 0xff, true, false);
}

/** Time passes without instructions: the processor's time-stamp counter, which counts those, is behind by so much more. */
function passIdleTime(vm: VmState, ticks: number): void {
  vm.x86.idleTime += ticks;
  for (const vcpu of vm.vcpus) vm.vendor.setTscOffset(vcpu);
}

/** A halted vCPU waits for its timer: time moves on to it. False when the timer is off. */
export function skipToApicTimer(vcpu: VcpuState): boolean {
  const apic = vcpu.x86.lapic;
  if (apic === null || apic.timerExpires < 0) return false;
  passIdleTime(vcpu.vm, Math.max(0, apic.timerExpires - apicNow(vcpu.vm)));
  pollApicTimer(vcpu);
  return true;
}
