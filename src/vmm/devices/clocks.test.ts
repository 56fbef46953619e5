import { describe, expect, it } from 'vitest';
import { ACPI_DISABLE, AcpiPm, PM_BASE, SmiCommand } from './acpi-pm.ts';
import { TestClock } from './clock.testing.ts';
import { HPET_BASE, Hpet } from './hpet.ts';
import type { PowerRequest } from './power.ts';
import { Rtc } from './rtc.ts';

const SECOND = 1_000_000_000;
const MS = 1_000_000;

function makeRtc(start = Date.parse('2024-02-28T23:59:58Z') / 1000) {
  const clock = new TestClock();
  let line = false;
  let edges = 0;
  const rtc = new Rtc({
    clock,
    startSeconds: start,
    memory: new Map([[0x34, 7]]),
    setIrq: (high) => {
      if (high && !line) edges++;
      line = high;
    },
  });
  const read = (index: number): number => {
    rtc.write(0x70, 1, index);
    return rtc.read(0x71);
  };
  const write = (index: number, value: number): void => {
    rtc.write(0x70, 1, index);
    rtc.write(0x71, 1, value);
  };
  const date = (): string => [0x32, 9, 8, 7, 4, 2, 0].map((i) => read(i).toString(16).padStart(2, '0')).join(' ');
  return { clock, rtc, read, write, date, line: () => line, edges: () => edges };
}

describe('real-time clock', () => {
  it('goes with virtual time over the end of February, in BCD and binary, 12 and 24 hours', () => {
    const { clock, read, write, date } = makeRtc();
    expect(date()).toBe('20 24 02 28 23 59 58');
    clock.pass(2 * SECOND);
    expect(date()).toBe('20 24 02 29 00 00 00');
    expect(read(6)).toBe(5);
    write(0xb, 0x04);
    expect([read(4), read(9)]).toEqual([12, 24]);
    clock.pass(13 * 3600 * SECOND);
    expect(read(4)).toBe(0x81);
    expect(read(0x34)).toBe(7);
    expect(read(0xd)).toBe(0x80);
  });

  it('stands while it is set, and goes on from there', () => {
    const { clock, write, date } = makeRtc();
    write(0xb, 0x82);
    clock.pass(5 * SECOND);
    for (const [field, value] of [
      [0x32, 0x19],
      [9, 0x99],
      [8, 0x12],
      [7, 0x31],
      [4, 0x23],
      [2, 0x59],
      [0, 0x59],
    ] as const) {
      write(field, value);
    }
    write(0xb, 0x02);
    expect(date()).toBe('19 99 12 31 23 59 59');
    clock.pass(SECOND);
    expect(date()).toBe('20 00 01 01 00 00 00');
  });

  it('shows an update just before each second', () => {
    const { clock, read } = makeRtc();
    clock.pass(SECOND - 200_000);
    expect(read(0xa) & 0x80).toBe(0x80);
    clock.pass(200_000);
    expect(read(0xa) & 0x80).toBe(0);
  });

  it('interrupts at the alarm, at each second, and periodically; register C says which and lets go', () => {
    const { clock, read, write, line, edges } = makeRtc();
    write(1, 0x30);
    write(3, 0xff);
    write(5, 0xc0);
    write(0xb, 0x22);
    clock.pass(31 * SECOND);
    expect(line()).toBe(false);
    clock.pass(2 * SECOND);
    expect(line()).toBe(true);
    expect(read(0xc) & 0xb0).toBe(0xb0);
    expect(line()).toBe(false);
    write(0xb, 0x12);
    read(0xc);
    clock.pass(SECOND);
    expect(read(0xc) & 0xb0).toBe(0x90);
    write(0xb, 0x42);
    read(0xc);
    const before = edges();
    for (let ms = 0; ms < 100; ms++) {
      clock.pass(MS);
      read(0xc);
    }
    // 1024 Hz.
    expect(edges() - before).toBeGreaterThan(95);
    write(0xb, 0x02);
    expect(clock.armed).toBe(0);
  });

  it('an alarm that no time of day meets arms nothing', () => {
    const { clock, write } = makeRtc();
    write(1, 0x99);
    write(0xb, 0x22);
    expect(clock.armed).toBe(0);
  });
});

describe('ACPI power management', () => {
  function make() {
    const clock = new TestClock();
    const asked: PowerRequest[] = [];
    let sci = false;
    const pm = new AcpiPm(
      clock,
      (request) => asked.push(request),
      (high) => {
        sci = high;
      },
    );
    return { clock, pm, asked, sci: () => sci };
  }

  it('the timer has 3.579545 MHz and 24 bits, and interrupts each half turn', () => {
    const { clock, pm, sci } = make();
    clock.pass(SECOND);
    expect(pm.read(PM_BASE + 8, 4)).toBe(3_579_545);
    pm.write(PM_BASE + 2, 2, 1);
    expect(sci()).toBe(false);
    clock.pass(1.4 * SECOND);
    expect(sci()).toBe(true);
    expect(pm.read(PM_BASE, 2)).toBe(1);
    pm.write(PM_BASE, 2, 1);
    expect(sci()).toBe(false);
    clock.pass(2.4 * SECOND);
    expect(pm.read(PM_BASE + 8, 4)).toBeLessThan(2 ** 23);
    expect(sci()).toBe(true);
  });

  it('sleeps and powers off; the alarm wakes where it is enabled', () => {
    const { pm, asked } = make();
    pm.write(PM_BASE + 4, 2, 0x2400);
    pm.write(PM_BASE + 4, 2, 0x2000);
    expect(asked).toEqual([{ kind: 'suspend' }, { kind: 'poweroff' }]);
    expect(pm.rtcAlarm()).toBe(false);
    pm.write(PM_BASE + 2, 2, 0x400);
    expect(pm.rtcAlarm()).toBe(true);
    pm.woken();
    expect(pm.read(PM_BASE, 4)).toBe(0x0400_8400);
  });

  it('firmware takes the interrupt back', () => {
    const { pm, sci } = make();
    pm.write(PM_BASE + 2, 2, 0x400);
    pm.rtcAlarm();
    expect(sci()).toBe(true);
    const smi = new SmiCommand(pm, () => {});
    smi.write(0xb2, 1, ACPI_DISABLE);
    expect(sci()).toBe(false);
    expect(pm.read(PM_BASE + 4, 2)).toBe(0);
  });
});

describe('HPET', () => {
  function make() {
    const clock = new TestClock();
    const lines: string[] = [];
    let legacy = false;
    const hpet = new Hpet({
      clock,
      setIrq: (gsi, high) => lines.push(`${gsi}${high ? '+' : '-'}`),
      onLegacy: (on) => {
        legacy = on;
      },
    });
    const write = (at: number, value: number): void => {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
      hpet.write(HPET_BASE + at, bytes);
    };
    const read = (at: number): number => {
      const bytes = new Uint8Array(8);
      hpet.read(HPET_BASE + at, bytes);
      return Number(new DataView(bytes.buffer).getBigUint64(0, true));
    };
    return { clock, lines, write, read, legacy: () => legacy };
  }

  it('counts tens of nanoseconds while it is enabled', () => {
    const { clock, read, write } = make();
    expect(read(0)).toBe(10_000_000 * 2 ** 32 + 0x8086a201);
    clock.pass(SECOND);
    expect(read(0xf0)).toBe(0);
    write(0x10, 1);
    clock.pass(SECOND);
    expect(read(0xf0)).toBe(100_000_000);
    write(0x10, 0);
    clock.pass(SECOND);
    write(0xf0, 5);
    expect(read(0xf0)).toBe(5);
  });

  it('one shot by edge, and by level until it is cleared', () => {
    const { clock, lines, write } = make();
    write(0x10, 1);
    write(0x120, (20 << 9) | 4);
    write(0x128, 100);
    clock.pass(2000);
    expect(lines).toEqual(['20+', '20-']);
    write(0x120, (21 << 9) | 6);
    write(0x128, 300);
    clock.pass(2000);
    write(0x20, 2);
    expect(lines.slice(2)).toEqual(['21+', '21-']);
  });

  it('periodic, in the place of the PIT', () => {
    const { clock, lines, write, legacy } = make();
    write(0x10, 3);
    expect(legacy()).toBe(true);
    write(0x100, 0x4c);
    write(0x108, 1000);
    write(0x108, 1000);
    clock.pass(35_000);
    expect(lines.filter((l) => l === '0+')).toHaveLength(3);
    write(0x10, 0);
    expect(legacy()).toBe(false);
    expect(clock.armed).toBe(0);
  });
});
