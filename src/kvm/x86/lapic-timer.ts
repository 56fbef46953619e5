/** The local APIC's timer: one-shot, periodic, TSC deadline. A tick of the bus clock is a tick of virtual time (@kvm lapic.c start_apic_timer). */
import { numberOf } from '../../arch/halves.ts';
import type { VcpuState } from '../vcpu-state.ts';
import {
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
import { lapicLocalDeliver } from './lapic-delivery.ts';
import { virtualNow } from './virtual-time.ts';

/** Nanoseconds that a periodic timer takes at least. @kvm x86.c min_timer_period_us */
export const MIN_TIMER_PERIOD = 200_000;

function isPeriodic(apic: Lapic): boolean {
  return apic.timerMode === APIC_LVT_TIMER_PERIODIC;
}

function isTscDeadline(apic: Lapic): boolean {
  return apic.timerMode === APIC_LVT_TIMER_TSCDEADLINE;
}

/** @kvm lapic.c limit_periodic_timer_frequency */
function limitPeriod(apic: Lapic): void {
  if (isPeriodic(apic) && apic.timerPeriod !== 0) apic.timerPeriod = Math.max(apic.timerPeriod, MIN_TIMER_PERIOD);
}

/** @kvm lapic.c cancel_apic_timer */
function cancelApicTimer(apic: Lapic): void {
  apic.vcpu.vm.x86.timers.cancel(apic.timer);
}

/** LVTT may have chosen another mode: between counting and the deadline nothing is carried over. @kvm lapic.c apic_update_lvtt */
export function updateTimerMode(apic: Lapic): void {
  const mode = lapicReg(apic, APIC_LVTT) & apic.timerModeMask;
  if (mode === apic.timerMode) return;
  if ((mode === APIC_LVT_TIMER_TSCDEADLINE) !== isTscDeadline(apic)) {
    cancelApicTimer(apic);
    lapicSetReg(apic, APIC_TMICT, 0);
    apic.timerPeriod = 0;
    apic.tscDeadlineLo = 0;
    apic.tscDeadlineHi = 0;
  }
  apic.timerMode = mode;
  limitPeriod(apic);
}

/** @kvm lapic.c update_divide_count */
export function updateDivideCount(apic: Lapic): void {
  const tdcr = lapicReg(apic, APIC_TDCR);
  const shift = ((tdcr & 3) | ((tdcr & 8) >> 1)) + 1;
  apic.divideCount = 1 << (shift & 7);
}

/** The divisor is written: what is left of the count takes so much longer or shorter. @kvm lapic.c update_target_expiration */
export function changeDivideCount(apic: Lapic): void {
  const old = apic.divideCount;
  updateDivideCount(apic);
  if (apic.divideCount === old || apic.timerPeriod === 0) return;
  apic.timerPeriod = lapicReg(apic, APIC_TMICT) * apic.divideCount;
  limitPeriod(apic);
  if (apic.timer.expires < 0) return;
  const now = virtualNow(apic.vcpu.vm);
  const left = Math.floor((Math.max(0, apic.timer.expires - now) * apic.divideCount) / old);
  apic.vcpu.vm.x86.timers.start(apic.timer, now + left);
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
  if (apic === null || !lapicHwEnabled(vcpu) || !isTscDeadline(apic)) return;
  cancelApicTimer(apic);
  apic.tscDeadlineLo = lo;
  apic.tscDeadlineHi = hi;
  startApicTimer(apic);
}

/** The deadline into `vcpu.x86.msrValue`. @kvm lapic.c kvm_get_lapic_tscdeadline_msr */
export function readTscDeadline(vcpu: VcpuState): void {
  const apic = vcpu.x86.lapic;
  const on = apic !== null && lapicHwEnabled(vcpu) && isTscDeadline(apic);
  vcpu.x86.msrValue[0] = on ? apic.tscDeadlineLo : 0;
  vcpu.x86.msrValue[1] = on ? apic.tscDeadlineHi : 0;
}

/** The initial count register is written. @kvm lapic.c kvm_lapic_reg_write */
export function writeInitialCount(apic: Lapic, count: number): void {
  if (isTscDeadline(apic)) return;
  cancelApicTimer(apic);
  lapicSetReg(apic, APIC_TMICT, count);
  startApicTimer(apic);
}

/** @kvm lapic.c start_apic_timer */
export function startApicTimer(apic: Lapic): void {
  const { timers } = apic.vcpu.vm.x86;
  if (isTscDeadline(apic)) {
    const at = deadlineTime(apic);
    if (at >= 0) timers.start(apic.timer, at);
    return;
  }
  apic.timerPeriod = lapicReg(apic, APIC_TMICT) * apic.divideCount;
  limitPeriod(apic);
  if (apic.timerPeriod !== 0) timers.start(apic.timer, virtualNow(apic.vcpu.vm) + apic.timerPeriod);
}

/** The current count register. @kvm lapic.c apic_get_tmcct */
export function currentCount(apic: Lapic): number {
  if (apic.timer.expires < 0 || lapicReg(apic, APIC_TMICT) === 0 || apic.timerPeriod === 0) return 0;
  const left = Math.max(0, apic.timer.expires - virtualNow(apic.vcpu.vm));
  return Math.floor((left % apic.timerPeriod || (left > 0 ? apic.timerPeriod : 0)) / apic.divideCount);
}

/** The timer's time has come. @kvm lapic.c apic_timer_fn, kvm_apic_inject_pending_timer_irqs */
export function apicTimerFn(apic: Lapic, at: number): void {
  if (isPeriodic(apic) && apic.timerPeriod > 0) {
    // Periods that went by while nobody looked are one interrupt.
    const { vm } = apic.vcpu;
    vm.x86.timers.start(apic.timer, Math.max(at + apic.timerPeriod, virtualNow(vm)));
  } else {
    apic.tscDeadlineLo = 0;
    apic.tscDeadlineHi = 0;
  }
  lapicLocalDeliver(apic, APIC_LVTT);
}
