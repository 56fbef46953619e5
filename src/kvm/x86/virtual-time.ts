/**
 * Virtual time, which stands for the host's clock: a retired instruction is one tick and counts as one nanosecond; what passes while
 * every vCPU is halted comes on top. Two runs of a guest see the same time. And the timers on it (@kvm linux/hrtimer.h).
 */
import type { VmState } from '../vm-state.ts';

/** Ticks since the machine started. @kvm linux/timekeeping.h ktime_get */
export function virtualNow(vm: VmState): number {
  return vm.processor.insns + vm.x86.idleTime;
}

/** A timer: armed while `expires` is not -1. */
export class HrTimer {
  /** When it is due, in ticks. */
  expires = -1;
  /** Is called once the time has come, with the tick that was asked for; the timer is not armed then. */
  readonly fire: (at: number) => void;

  constructor(fire: (at: number) => void) {
    this.fire = fire;
  }
}

/** The armed timers of a VM, the first first. */
export class TimerQueue {
  /** When the first one is due; infinity for none. */
  next = Number.POSITIVE_INFINITY;
  private readonly armed: HrTimer[] = [];

  /** Arms the timer, or moves it. Of two for the same tick the one that was armed first fires first. @kvm linux/hrtimer.h hrtimer_start */
  start(timer: HrTimer, expires: number): void {
    this.cancel(timer);
    timer.expires = expires;
    const { armed } = this;
    let i = armed.length;
    while (i > 0 && armed[i - 1]!.expires > expires) i--;
    armed.splice(i, 0, timer);
    this.next = armed[0]!.expires;
  }

  /** @kvm linux/hrtimer.h hrtimer_cancel */
  cancel(timer: HrTimer): void {
    if (timer.expires < 0) return;
    timer.expires = -1;
    this.armed.splice(this.armed.indexOf(timer), 1);
    this.next = this.armed.length === 0 ? Number.POSITIVE_INFINITY : this.armed[0]!.expires;
  }

  /** Fires the first timer. */
  fireFirst(): void {
    const timer = this.armed[0]!;
    const at = timer.expires;
    this.cancel(timer);
    timer.fire(at);
  }
}

/** Fires what is due. HOT while nothing is armed. */
export function runTimers(vm: VmState): void {
  const { timers } = vm.x86;
  if (timers.next === Number.POSITIVE_INFINITY) return;
  const now = virtualNow(vm);
  while (timers.next <= now) timers.fireFirst();
}

/** Time passes without instructions: a vCPU's time-stamp counter takes it in at the next entry. */
export function passIdleTime(vm: VmState, ticks: number): void {
  vm.x86.idleTime += ticks;
}

/** Moves time on to the first timer and fires it; false when none is armed. */
export function skipToTimer(vm: VmState): boolean {
  const { next } = vm.x86.timers;
  if (next === Number.POSITIVE_INFINITY) return false;
  passIdleTime(vm, Math.max(0, next - virtualNow(vm)));
  runTimers(vm);
  return true;
}
