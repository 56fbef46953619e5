/**
 * The local APIC's timer in virtual time: one tick of the bus clock is one retired instruction, plus the time skipped while every
 * vCPU was halted (@kvm lapic.c start_apic_timer).
 */
import { numberOf } from '../../arch/halves.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import {
  APIC_LVT_MASKED,
  APIC_LVT_TIMER_PERIODIC,
  APIC_LVT_TIMER_TSCDEADLINE,
  APIC_LVTT,
  APIC_TDCR,
  APIC_TMICT,
  type Lapic,
  lapicHwEnabled,
  lapicReg,
  lapicSetReg,
} from './lapic.ts';
import { APIC_INT_ASSERT, lapicAcceptIrq } from './lapic-delivery.ts';

/** Virtual time in ticks. */
export function apicNow(vm: VmState): number {
  return vm.processor.insns + vm.x86.idleTime;
}

/** The timer's mode may have changed: a running timer goes on, and repeats or not as the new mode says. @kvm lapic.c apic_update_lvtt */
export function updateTimerMode(apic: Lapic): void {
  const mode = lapicReg(apic, APIC_LVTT) & apic.timerModeMask;
  if ((mode === APIC_LVT_TIMER_TSCDEADLINE) !== (apic.timerMode === APIC_LVT_TIMER_TSCDEADLINE)) {
    apic.timerExpires = -1;
    lapicSetReg(apic, APIC_TMICT, 0);
    apic.tscDeadlineLo = 0;
    apic.tscDeadlineHi = 0;
  }
  apic.timerMode = mode;
  apic.timerPeriod = mode === APIC_LVT_TIMER_PERIODIC ? lapicReg(apic, APIC_TMICT) * apic.divideCount : 0;
}

/** @kvm lapic.c update_divide_count */
export function updateDivideCount(apic: Lapic): void {
  const tdcr = lapicReg(apic, APIC_TDCR);
  const shift = ((tdcr & 3) | ((tdcr & 8) >> 1)) + 1;
  apic.divideCount = 1 << (shift & 7);
}

/** The guest's counter reaches the deadline at that time; -1 without one. @kvm lapic.c start_sw_tscdeadline */
function deadlineTime(apic: Lapic): number {
  const { tscDeadlineLo, tscDeadlineHi } = apic;
  if ((tscDeadlineLo | tscDeadlineHi) === 0) return -1;
  const { tscOffsetLo, tscOffsetHi } = apic.vcpu.x86;
  const borrow = tscDeadlineLo >>> 0 < tscOffsetLo >>> 0 ? 1 : 0;
  const hi = (tscDeadlineHi - tscOffsetHi - borrow) | 0;
  return hi < 0 ? 0 : numberOf(tscDeadlineLo - tscOffsetLo, hi);
}

/** MSR_IA32_TSC_DEADLINE is written: without effect in the other modes. @kvm lapic.c kvm_set_lapic_tscdeadline_msr */
export function writeTscDeadline(vcpu: VcpuState, lo: number, hi: number): void {
  const apic = vcpu.x86.lapic;
  if (apic === null || !lapicHwEnabled(vcpu) || apic.timerMode !== APIC_LVT_TIMER_TSCDEADLINE) return;
  apic.tscDeadlineLo = lo;
  apic.tscDeadlineHi = hi;
  startApicTimer(apic);
}

/** The deadline into `vcpu.x86.msrValue`. @kvm lapic.c kvm_get_lapic_tscdeadline_msr */
export function readTscDeadline(vcpu: VcpuState): void {
  const apic = vcpu.x86.lapic;
  const on = apic !== null && lapicHwEnabled(vcpu) && apic.timerMode === APIC_LVT_TIMER_TSCDEADLINE;
  vcpu.x86.msrValue[0] = on ? apic.tscDeadlineLo : 0;
  vcpu.x86.msrValue[1] = on ? apic.tscDeadlineHi : 0;
}

/** @kvm lapic.c start_apic_timer */
export function startApicTimer(apic: Lapic): void {
  if (apic.timerMode === APIC_LVT_TIMER_TSCDEADLINE) {
    apic.timerExpires = deadlineTime(apic);
    return;
  }
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
  if (apic.timerExpires < 0 || lapicReg(apic, APIC_TMICT) === 0) return 0;
  return Math.max(0, Math.ceil((apic.timerExpires - apicNow(apic.vcpu.vm)) / apic.divideCount));
}

/** Fires the timer when its time has come. @kvm irq.c kvm_inject_pending_timer_irqs */
export function pollApicTimer(vcpu: VcpuState): void {
  const apic = vcpu.x86.lapic;
  if (apic === null || apic.timerExpires < 0 || apicNow(vcpu.vm) < apic.timerExpires) return;
  apic.timerExpires = apic.timerPeriod > 0 ? apic.timerExpires + apic.timerPeriod : -1;
  if (apic.timerPeriod === 0) {
    apic.tscDeadlineLo = 0;
    apic.tscDeadlineHi = 0;
  }
  const lvtt = lapicReg(apic, APIC_LVTT);
  if (lapicHwEnabled(vcpu) && (lvtt & APIC_LVT_MASKED) === 0) lapicAcceptIrq(apic, APIC_INT_ASSERT | (lvtt & 0xff));
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
