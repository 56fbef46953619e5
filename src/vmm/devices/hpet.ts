/** The high precision event timer at 0xfed00000, as QEMU's pc has it: a counter of 100 MHz and three comparators. */
import type { DeviceClock, DeviceTimer } from './device-clock.ts';
import type { MmioDevice } from './mmio-device.ts';

export const HPET_BASE = 0xfed0_0000;
/** Femtoseconds of a tick. */
const PERIOD_FS = 10_000_000;
const NS_PER_TICK = 10;
const TIMERS = 3;
/** Capabilities: revision 1, three timers, a counter of 64 bits, legacy routes, vendor 8086. */
export const HPET_ID = 0x8086_a201;

const ENABLE = 1;
const LEGACY = 2;

const T_LEVEL = 1 << 1;
const T_INTERRUPT = 1 << 2;
const T_PERIODIC = 1 << 3;
const T_PERIODIC_CAPABLE = 1 << 4;
const T_64_BITS = 1 << 5;
const T_SET_VALUE = 1 << 6;
const T_32_MODE = 1 << 8;
const T_WRITABLE = 0x3f4e;
/** I/O APIC lines that a comparator can have: 2, 8 and 16 to 23. */
const T_ROUTES = 0x00ff_0104;

const LOW = 0x1_0000_0000;

class Comparator {
  config = T_PERIODIC_CAPABLE | T_64_BITS;
  /** In ticks of the counter. */
  value = Number.MAX_SAFE_INTEGER;
  period = 0;
  readonly timer: DeviceTimer;

  constructor(clock: DeviceClock, fire: (c: Comparator) => void) {
    this.timer = clock.createTimer(() => fire(this));
  }

  get route(): number {
    return (this.config >> 9) & 0x1f;
  }
}

export interface HpetOptions {
  readonly clock: DeviceClock;
  readonly setIrq: (gsi: number, high: boolean) => void;
  /** Comparators 0 and 1 take the places of PIT and RTC, or give them back. */
  readonly onLegacy: (on: boolean) => void;
}

export class Hpet implements MmioDevice {
  readonly gpa = HPET_BASE;
  readonly size = 0x400;
  private readonly options: HpetOptions;
  private readonly comparators: readonly Comparator[];
  private config = 0;
  private status = 0;
  /** The counter while it stands; while it runs, what it is ahead of virtual time. */
  private base = 0;

  constructor(options: HpetOptions) {
    this.options = options;
    this.comparators = Array.from({ length: TIMERS }, () => new Comparator(options.clock, (c) => this.fire(c)));
  }

  private get ticks(): number {
    return Math.floor(this.options.clock.now() / NS_PER_TICK);
  }

  private get counter(): number {
    return (this.config & ENABLE) !== 0 ? this.ticks + this.base : this.base;
  }

  private lineOf(c: Comparator): number {
    const n = this.comparators.indexOf(c);
    // GSI 0 is the wire of the PIT, which ends at pin 2.
    return (this.config & LEGACY) !== 0 && n < 2 ? (n === 0 ? 0 : 8) : c.route;
  }

  private fire(c: Comparator): void {
    const level = (c.config & T_LEVEL) !== 0;
    const n = this.comparators.indexOf(c);
    if ((c.config & T_PERIODIC) !== 0 && c.period > 0) {
      const behind = this.counter - c.value;
      c.value += c.period * (Math.floor(behind / c.period) + 1);
    }
    if (level) this.status |= 1 << n;
    if ((c.config & T_INTERRUPT) !== 0) {
      this.options.setIrq(this.lineOf(c), true);
      if (!level) this.options.setIrq(this.lineOf(c), false);
    }
    this.arm(c);
  }

  /** A comparator of 32 bits meets the counter once a turn of those. */
  private arm(c: Comparator): void {
    if ((this.config & ENABLE) === 0) {
      c.timer.set(null);
      return;
    }
    const now = this.counter;
    let at = c.value;
    if ((c.config & T_32_MODE) !== 0) {
      const ahead = ((c.value % LOW) - (now % LOW) + LOW) % LOW;
      at = now + (ahead === 0 ? LOW : ahead);
    }
    c.timer.set(at > now && at < Number.MAX_SAFE_INTEGER / NS_PER_TICK ? (at - this.base) * NS_PER_TICK : null);
  }

  private register(at: number): number {
    if (at === 0x00) return PERIOD_FS * LOW + HPET_ID;
    if (at === 0x10) return this.config;
    if (at === 0x20) return this.status;
    if (at === 0xf0) return this.counter;
    const c = this.comparators[(at - 0x100) >> 5];
    if (at < 0x100 || c === undefined) return 0;
    if ((at & 0x1f) === 0) return T_ROUTES * LOW + c.config;
    return (at & 0x1f) === 8 ? c.value : 0;
  }

  read(gpa: number, data: Uint8Array): void {
    const at = gpa - this.gpa;
    const value = this.register(at & ~7);
    const halves = [value % LOW, Math.floor(value / LOW)];
    for (let i = 0; i < data.length; i++) {
      const byte = (at & 7) + i;
      data[i] = byte < 8 ? halves[byte >> 2]! >>> (8 * (byte & 3)) : 0;
    }
  }

  write(gpa: number, data: Uint8Array): void {
    const at = gpa - this.gpa;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    if (data.length === 8 && (at & 7) === 0) {
      this.writeRegister(at, view.getUint32(0, true), view.getUint32(4, true));
    } else if (data.length === 4 && (at & 3) === 0) {
      const old = this.register(at & ~7);
      const value = view.getUint32(0, true);
      if ((at & 4) === 0) this.writeRegister(at, value, Math.floor(old / LOW));
      else this.writeRegister(at & ~7, at === 0x24 ? 0 : old % LOW, value);
    }
  }

  private writeRegister(at: number, lo: number, hi: number): void {
    const value = (hi % 0x10_0000) * LOW + lo;
    if (at === 0x10) this.writeConfig(lo);
    else if (at === 0x20) this.clearStatus(lo);
    else if (at === 0xf0) {
      if ((this.config & ENABLE) === 0) this.base = value;
    } else {
      const c = this.comparators[(at - 0x100) >> 5];
      if (at < 0x100 || c === undefined) return;
      if ((at & 0x1f) === 0) c.config = (c.config & ~T_WRITABLE) | (lo & T_WRITABLE);
      else if ((at & 0x1f) === 8) this.writeComparator(c, value);
      this.arm(c);
    }
  }

  private writeConfig(value: number): void {
    const was = this.config;
    const counter = this.counter;
    this.config = value & (ENABLE | LEGACY);
    this.base = (this.config & ENABLE) !== 0 ? counter - this.ticks : counter;
    if (((was ^ this.config) & LEGACY) !== 0) this.options.onLegacy((this.config & LEGACY) !== 0);
    for (const c of this.comparators) this.arm(c);
  }

  private clearStatus(bits: number): void {
    this.comparators.forEach((c, n) => {
      const bit = 1 << n;
      if ((this.status & bits & bit) === 0) return;
      this.status &= ~bit;
      this.options.setIrq(this.lineOf(c), false);
    });
  }

  /** Of a periodic comparator the period is written, and the value only after the bit that asks for it. */
  private writeComparator(c: Comparator, value: number): void {
    if ((c.config & T_PERIODIC) === 0 || (c.config & T_SET_VALUE) !== 0) c.value = value;
    if ((c.config & T_PERIODIC) !== 0) c.period = value % LOW;
    c.config &= ~T_SET_VALUE;
  }
}
