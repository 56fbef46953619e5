/**
 * The ACPI power management registers of QEMU's pc: PM1a events and control, and the timer, at 0x600 to 0x60b; and the port that switches
 * ACPI on and off. The SCI is IRQ 9.
 */
import { type DeviceClock, type DeviceTimer, NSEC_PER_SEC } from './device-clock.ts';
import type { PortDevice } from './port-device.ts';
import type { OnPower } from './power.ts';

export const PM_BASE = 0x600;
export const PM1A_EVENT = PM_BASE;
export const PM1A_CONTROL = PM_BASE + 4;
export const PM_TIMER = PM_BASE + 8;
export const SCI = 9;
export const SMI_COMMAND = 0xb2;
export const ACPI_ENABLE = 0xf1;
export const ACPI_DISABLE = 0xf0;
/** Sleep types of the two states that there are. */
export const S5_TYPE = 0;
export const S3_TYPE = 1;

const TIMER_HZ = 3_579_545;
const TIMER_BITS = 24;
const TIMER_STATUS = 1 << 0;
const RTC_STATUS = 1 << 10;
const WAKE_STATUS = 1 << 15;
const SCI_ENABLE = 1 << 0;
const SLEEP_ENABLE = 1 << 13;
const EVENTS = TIMER_STATUS | (1 << 5) | (1 << 8) | RTC_STATUS | WAKE_STATUS;

export class AcpiPm implements PortDevice {
  readonly port = PM_BASE;
  readonly count = 12;
  private readonly clock: DeviceClock;
  private readonly timer: DeviceTimer;
  private readonly onPower: OnPower;
  private readonly setIrq: (high: boolean) => void;
  private status = 0;
  private enabled = 0;
  private control = SCI_ENABLE;
  /** Half turns of the timer, at each of which its status is set, that were seen. */
  private halves = 0;

  constructor(clock: DeviceClock, onPower: OnPower, setIrq: (high: boolean) => void) {
    this.clock = clock;
    this.onPower = onPower;
    this.setIrq = setIrq;
    this.timer = clock.createTimer(() => this.update());
  }

  /** Ticks since the start. */
  private get ticks(): number {
    const now = this.clock.now();
    const seconds = Math.floor(now / NSEC_PER_SEC);
    return seconds * TIMER_HZ + Math.floor(((now - seconds * NSEC_PER_SEC) * TIMER_HZ) / NSEC_PER_SEC);
  }

  /** The highest bit of the timer has changed, or something was set: the SCI follows. */
  private update(): void {
    const half = 2 ** (TIMER_BITS - 1);
    const halves = Math.floor(this.ticks / half);
    if (halves > this.halves) this.status |= TIMER_STATUS;
    this.halves = halves;
    this.setIrq((this.control & SCI_ENABLE) !== 0 && (this.status & this.enabled & EVENTS & ~WAKE_STATUS) !== 0);
    const waits = (this.enabled & ~this.status & TIMER_STATUS) !== 0;
    this.timer.set(waits ? Math.ceil(((halves + 1) * half * NSEC_PER_SEC) / TIMER_HZ) : null);
  }

  /** The RTC's alarm goes off; true when it may wake a machine that sleeps. */
  rtcAlarm(): boolean {
    this.status |= RTC_STATUS;
    this.update();
    return (this.enabled & RTC_STATUS) !== 0;
  }

  /** The machine has been woken. */
  woken(): void {
    this.status |= WAKE_STATUS;
  }

  /** A write to SMI_COMMAND. */
  command(value: number): void {
    if (value === ACPI_ENABLE) this.control |= SCI_ENABLE;
    else if (value === ACPI_DISABLE) this.control &= ~SCI_ENABLE;
    this.update();
  }

  private word(offset: number): number {
    switch (offset) {
      case 0:
        this.update();
        return this.status;
      case 2:
        return this.enabled;
      case 4:
        return this.control;
      default:
        return 0;
    }
  }

  /** Registers of 16 bits, and the timer of 32. */
  read(port: number, size: number): number {
    const offset = port - PM_BASE;
    const value =
      offset >= 8 ? this.ticks % 2 ** TIMER_BITS : this.word(offset & ~1) | (this.word((offset & ~1) + 2) << 16);
    const shifted = offset >= 8 ? value >>> (8 * (offset - 8)) : value >>> (8 * (offset & 1));
    return size === 4 ? shifted >>> 0 : shifted & (size === 2 ? 0xffff : 0xff);
  }

  write(port: number, size: number, value: number): void {
    const offset = port - PM_BASE;
    if (size === 1) return;
    if (offset === 0) this.status &= ~(value & EVENTS);
    else if (offset === 2) this.enabled = value & 0xffff;
    else if (offset === 4) this.writeControl(value & 0xffff);
    if (offset === 0 && size === 4) this.enabled = value >>> 16;
    this.update();
  }

  private writeControl(value: number): void {
    this.control = value & ~SLEEP_ENABLE;
    if ((value & SLEEP_ENABLE) === 0) return;
    const type = (value >> 10) & 7;
    if (type === S5_TYPE) this.onPower({ kind: 'poweroff' });
    else if (type === S3_TYPE) this.onPower({ kind: 'suspend' });
  }
}

/** The port by which a guest takes ACPI from the firmware and gives it back. */
export class SmiCommand implements PortDevice {
  readonly port = SMI_COMMAND;
  readonly count = 2;
  private readonly pm: AcpiPm;
  private readonly onSmi: () => void;
  private readonly values = [0, 0];

  /** @param onSmi hears of every write to the first port */
  constructor(pm: AcpiPm, onSmi: () => void) {
    this.pm = pm;
    this.onSmi = onSmi;
  }

  read(port: number): number {
    return this.values[port - this.port]!;
  }

  write(port: number, _size: number, value: number): void {
    this.values[port - this.port] = value & 0xff;
    if (port !== this.port) return;
    this.pm.command(value & 0xff);
    this.onSmi();
  }
}
