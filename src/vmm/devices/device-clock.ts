/** The time that devices live in: the VM's own, so that two runs of a guest see the same. */

export interface DeviceTimer {
  /** When it fires, in nanoseconds; null disarms it. */
  set(at: number | null): void;
}

export interface DeviceClock {
  /** Nanoseconds since the machine started. */
  now(): number;
  createTimer(fire: (at: number) => void): DeviceTimer;
}

export const NSEC_PER_SEC = 1_000_000_000;
