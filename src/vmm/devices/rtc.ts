/**
 * The real-time clock and its CMOS memory at 0x70 and 0x71: an MC146818 with the century at 0x32, on IRQ 8. The date is virtual time after
 * one that is given, so that two runs read the same.
 */
import { type DeviceClock, type DeviceTimer, NSEC_PER_SEC } from './device-clock.ts';
import type { PortDevice } from './port-device.ts';

const SECONDS = 0;
const SECONDS_ALARM = 1;
const MINUTES = 2;
const MINUTES_ALARM = 3;
const HOURS = 4;
const HOURS_ALARM = 5;
const DAY_OF_WEEK = 6;
const DAY = 7;
const MONTH = 8;
const YEAR = 9;
const REG_A = 0xa;
const REG_B = 0xb;
const REG_C = 0xc;
const REG_D = 0xd;
const CENTURY = 0x32;

const A_UPDATING = 0x80;
const A_DIVIDER = 0x70;
const A_DIVIDER_RUNS = 0x20;
const B_SET = 0x80;
const B_PERIODIC = 0x40;
const B_ALARM = 0x20;
const B_UPDATE = 0x10;
const B_BINARY = 0x04;
const B_24_HOURS = 0x02;
const C_INTERRUPT = 0x80;
const D_VALID = 0x80;
const INTERRUPTS = B_PERIODIC | B_ALARM | B_UPDATE;
const PM = 0x80;
/** Alarm fields from here on match anything. */
const DONT_CARE = 0xc0;

/** The crystal, and how long before a new second the date must not be read: eight of its periods. */
const CRYSTAL = 32_768;
const UPDATE_NS = Math.floor((8 * NSEC_PER_SEC) / CRYSTAL);
const SECONDS_PER_DAY = 86_400;

export interface RtcOptions {
  readonly clock: DeviceClock;
  /** The date when the machine starts, in seconds since 1970. */
  readonly startSeconds: number;
  /** CMOS memory by its address, as firmware leaves it. */
  readonly memory: ReadonlyMap<number, number>;
  readonly setIrq: (high: boolean) => void;
}

export class Rtc implements PortDevice {
  readonly port = 0x70;
  readonly count = 2;
  /** Hears of every alarm: one wakes a machine that sleeps. */
  onAlarm: (() => void) | null = null;
  private readonly clock: DeviceClock;
  private readonly setIrq: (high: boolean) => void;
  private readonly timer: DeviceTimer;
  private readonly memory = new Uint8Array(128);
  private index = 0;
  private a = 0x26;
  private b = B_24_HOURS;
  private c = 0;
  /** The date, in seconds since 1970, that a second of virtual time stands for is the sum. */
  private offset: number;
  /** The date while it is being set. */
  private frozen = 0;
  /** Seconds and periods that are counted in register C already. */
  private seenSecond = 0;
  private seenPeriod = 0;

  constructor(options: RtcOptions) {
    this.clock = options.clock;
    this.setIrq = options.setIrq;
    this.offset = options.startSeconds;
    this.timer = options.clock.createTimer(() => this.update());
    for (const [address, value] of options.memory) this.memory[address] = value;
  }

  private get second(): number {
    return Math.floor(this.clock.now() / NSEC_PER_SEC);
  }

  /** The date in seconds since 1970. */
  private get date(): number {
    return (this.b & B_SET) !== 0 ? this.frozen : this.second + this.offset;
  }

  private get runs(): boolean {
    return (this.b & B_SET) === 0 && (this.a & A_DIVIDER) === A_DIVIDER_RUNS;
  }

  /** Nanoseconds of the periodic interrupt, 0 for none. */
  private get period(): number {
    const rate = this.a & 0x0f;
    if (rate === 0 || (this.a & A_DIVIDER) !== A_DIVIDER_RUNS) return 0;
    // The two fastest rates are those of 8 and 9.
    return (2 ** ((rate < 3 ? rate + 7 : rate) - 1) * NSEC_PER_SEC) / CRYSTAL;
  }

  /** Date `date`'s time of day is the alarm's. */
  private alarmAt(date: number): boolean {
    const time = new Date(date * 1000);
    const wanted = [
      [SECONDS_ALARM, time.getUTCSeconds()],
      [MINUTES_ALARM, time.getUTCMinutes()],
      [HOURS_ALARM, time.getUTCHours()],
    ] as const;
    return wanted.every(([field, value]) => {
      const alarm = this.memory[field]!;
      return alarm >= DONT_CARE || (field === HOURS_ALARM ? this.toHours(alarm) : this.toBinary(alarm)) === value;
    });
  }

  /** Seconds to the next alarm, Infinity for one that no time of day meets. */
  private secondsToAlarm(): number {
    for (let n = 1; n <= SECONDS_PER_DAY; n++) if (this.alarmAt(this.date + n)) return n;
    return Number.POSITIVE_INFINITY;
  }

  /** What has happened since the last look goes into register C, and the line follows. */
  private update(): void {
    const now = this.second;
    if (this.runs && now > this.seenSecond) {
      this.c |= B_UPDATE;
      const first = Math.max(this.seenSecond + 1, now - SECONDS_PER_DAY);
      for (let s = first; s <= now; s++) {
        if (!this.alarmAt(s + this.offset)) continue;
        this.c |= B_ALARM;
        if ((this.b & B_ALARM) !== 0) this.onAlarm?.();
        break;
      }
    }
    this.seenSecond = now;
    if (this.period !== 0) {
      const periods = Math.floor(this.clock.now() / this.period);
      if (periods > this.seenPeriod) this.c |= B_PERIODIC;
      this.seenPeriod = periods;
    }
    const interrupts = (this.c & this.b & INTERRUPTS) !== 0;
    this.c = interrupts ? this.c | C_INTERRUPT : this.c & ~C_INTERRUPT;
    this.setIrq(interrupts);
    this.arm();
  }

  /** The timer goes to the next interrupt; while one waits to be read there is none. */
  private arm(): void {
    const wanted = this.b & INTERRUPTS & ~this.c;
    let at = Number.POSITIVE_INFINITY;
    if ((wanted & B_PERIODIC) !== 0 && this.period !== 0) at = Math.ceil((this.seenPeriod + 1) * this.period);
    if (this.runs && (wanted & B_UPDATE) !== 0) at = Math.min(at, (this.seenSecond + 1) * NSEC_PER_SEC);
    if (this.runs && (wanted & B_ALARM) !== 0) {
      at = Math.min(at, (this.seenSecond + this.secondsToAlarm()) * NSEC_PER_SEC);
    }
    this.timer.set(at === Number.POSITIVE_INFINITY ? null : at);
  }

  private toBinary(value: number): number {
    return (this.b & B_BINARY) !== 0 ? value : (value >> 4) * 10 + (value & 0x0f);
  }

  private fromBinary(value: number): number {
    return (this.b & B_BINARY) !== 0 ? value : (Math.floor(value / 10) << 4) | (value % 10);
  }

  private toHours(value: number): number {
    if ((this.b & B_24_HOURS) !== 0) return this.toBinary(value);
    return (this.toBinary(value & ~PM) % 12) + ((value & PM) !== 0 ? 12 : 0);
  }

  private fromHours(hours: number): number {
    if ((this.b & B_24_HOURS) !== 0) return this.fromBinary(hours);
    return this.fromBinary(hours % 12 === 0 ? 12 : hours % 12) | (hours >= 12 ? PM : 0);
  }

  private readDate(field: number): number {
    const time = new Date(this.date * 1000);
    switch (field) {
      case SECONDS:
        return this.fromBinary(time.getUTCSeconds());
      case MINUTES:
        return this.fromBinary(time.getUTCMinutes());
      case HOURS:
        return this.fromHours(time.getUTCHours());
      case DAY_OF_WEEK:
        return this.fromBinary(time.getUTCDay() + 1);
      case DAY:
        return this.fromBinary(time.getUTCDate());
      case MONTH:
        return this.fromBinary(time.getUTCMonth() + 1);
      case YEAR:
        return this.fromBinary(time.getUTCFullYear() % 100);
      default:
        return this.fromBinary(Math.floor(time.getUTCFullYear() / 100));
    }
  }

  /** One field of the date is set, the others stay; the day of the week follows from the date. */
  private writeDate(field: number, value: number): void {
    const time = new Date(this.date * 1000);
    const number = this.toBinary(value);
    const year = time.getUTCFullYear();
    if (field === SECONDS) time.setUTCSeconds(number);
    else if (field === MINUTES) time.setUTCMinutes(number);
    else if (field === HOURS) time.setUTCHours(this.toHours(value));
    else if (field === DAY) time.setUTCDate(number);
    else if (field === MONTH) time.setUTCMonth(number - 1);
    else if (field === YEAR) time.setUTCFullYear(year - (year % 100) + number);
    else if (field === CENTURY) time.setUTCFullYear(number * 100 + (year % 100));
    const date = Math.floor(time.getTime() / 1000);
    if ((this.b & B_SET) !== 0) this.frozen = date;
    else this.offset = date - this.second;
  }

  private isDate(index: number): boolean {
    return index === CENTURY || (index <= YEAR && ![SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM].includes(index));
  }

  /** The index reads as ones. */
  read(port: number): number {
    if (port === this.port) return 0xff;
    const { index } = this;
    if (this.isDate(index)) return this.readDate(index);
    switch (index) {
      case REG_A: {
        const updating = this.runs && this.clock.now() % NSEC_PER_SEC >= NSEC_PER_SEC - UPDATE_NS;
        return updating ? this.a | A_UPDATING : this.a;
      }
      case REG_B:
        return this.b;
      case REG_C: {
        this.update();
        const { c } = this;
        this.c = 0;
        this.setIrq(false);
        this.arm();
        return c;
      }
      case REG_D:
        return D_VALID;
      default:
        return this.memory[index]!;
    }
  }

  write(port: number, _size: number, value: number): void {
    const byte = value & 0xff;
    if (port === this.port) {
      this.index = byte & 0x7f;
      return;
    }
    const { index } = this;
    if (this.isDate(index)) this.writeDate(index, byte);
    else if (index === REG_A) this.a = byte & ~A_UPDATING;
    else if (index === REG_B) this.writeB(byte);
    else if (index !== REG_C && index !== REG_D) this.memory[index] = byte;
    if (index <= REG_B) this.update();
  }

  /** While SET is on the date stands still, and there is no update interrupt. */
  private writeB(value: number): void {
    const { date } = this;
    const set = (value & B_SET) !== 0;
    if (set) this.frozen = date;
    else if ((this.b & B_SET) !== 0) this.offset = date - this.second;
    this.b = set ? value & ~B_UPDATE : value;
  }
}
