/** A clock that moves when a test says so. */
import type { DeviceClock, DeviceTimer } from './device-clock.ts';

export class TestClock implements DeviceClock {
  private time = 0;
  private readonly timers: { at: number | null; readonly fire: (at: number) => void }[] = [];

  now(): number {
    return this.time;
  }

  createTimer(fire: (at: number) => void): DeviceTimer {
    const timer: (typeof this.timers)[number] = { at: null, fire };
    this.timers.push(timer);
    return {
      set: (at) => {
        timer.at = at;
      },
    };
  }

  get armed(): number {
    return this.timers.filter((t) => t.at !== null).length;
  }

  /** Time moves on, from timer to timer. */
  pass(ns: number): void {
    const end = this.time + ns;
    for (;;) {
      const due = this.timers.filter((t) => t.at !== null && t.at <= end).sort((a, b) => a.at! - b.at!)[0];
      if (due === undefined) break;
      const at = due.at!;
      due.at = null;
      this.time = Math.max(this.time, at);
      due.fire(at);
    }
    this.time = end;
  }
}
