import { describe, expect, it } from 'vitest';
import { FwCfg } from './fw-cfg.ts';
import { PortBus } from './port-device.ts';
import { AcpiPowerOff, DebugExit, KeyboardReset, type PowerRequest, ResetControl, SystemControlPort } from './power.ts';
import { COM1, SerialPort } from './serial.ts';
import { EchoPort, FlushPage, IrqLines } from './test-device.ts';

describe('serial port', () => {
  it('sends what is written, and is always ready', () => {
    const sent: number[] = [];
    const com = new SerialPort((b) => sent.push(b));
    com.write(COM1 + 3, 1, 0x80);
    com.write(COM1, 1, 1);
    com.write(COM1 + 1, 1, 0);
    expect(com.read(COM1, 1)).toBe(1);
    com.write(COM1 + 3, 1, 3);
    expect(com.read(COM1 + 5, 1)).toBe(0x60);
    com.write(COM1, 1, 0x41);
    expect(sent).toEqual([0x41]);
  });

  it('gives input with data ready, and loops back', () => {
    const sent: number[] = [];
    const com = new SerialPort((b) => sent.push(b));
    com.receive(Uint8Array.of(1, 2));
    expect(com.read(COM1 + 5, 1)).toBe(0x61);
    expect([com.read(COM1, 1), com.read(COM1, 1), com.read(COM1, 1)]).toEqual([1, 2, 0]);
    com.write(COM1 + 4, 1, 0x1e);
    com.write(COM1, 1, 0xae);
    expect(com.read(COM1, 1)).toBe(0xae);
    expect(sent).toEqual([]);
  });
});

describe('interrupts of the serial port', () => {
  function make() {
    const com = new SerialPort(() => {});
    const line: boolean[] = [];
    com.setIrq = (high) => {
      if (line.at(-1) !== high) line.push(high);
    };
    com.write(COM1 + 4, 1, 0x0b);
    return { com, line };
  }

  it('an empty transmitter is told once, and again after each byte', () => {
    const { com, line } = make();
    com.write(COM1 + 1, 1, 2);
    expect(line).toEqual([false, true]);
    expect([com.read(COM1 + 2, 1), com.read(COM1 + 2, 1)]).toEqual([2, 1]);
    com.write(COM1, 1, 0x41);
    com.write(COM1, 1, 0x42);
    // An edge each, as the interrupt is edge-triggered.
    expect(line).toEqual([false, true, false, true, false, true]);
    com.write(COM1 + 1, 1, 0);
    expect(line.at(-1)).toBe(false);
  });

  it('input is told until it is read, before anything else, where OUT2 lets it', () => {
    const { com, line } = make();
    com.write(COM1 + 1, 1, 3);
    com.receive(Uint8Array.of(5, 6));
    expect(com.read(COM1 + 2, 1)).toBe(4);
    com.read(COM1, 1);
    expect(com.read(COM1 + 2, 1)).toBe(4);
    com.read(COM1, 1);
    expect([com.read(COM1 + 2, 1), com.read(COM1 + 2, 1)]).toEqual([2, 1]);
    com.receive(Uint8Array.of(7));
    expect(line.at(-1)).toBe(true);
    com.write(COM1 + 4, 1, 0);
    expect(line.at(-1)).toBe(false);
  });
});

describe('ports that end the run', () => {
  it('say what was asked for', () => {
    const asked: PowerRequest[] = [];
    const bus = new PortBus();
    for (const Device of [DebugExit, AcpiPowerOff, ResetControl, SystemControlPort, KeyboardReset])
      bus.add(new Device((r) => asked.push(r)));
    bus.write(0x604, 2, 1);
    bus.write(0x64, 1, 0xd1);
    bus.write(0xcf9, 1, 2);
    bus.write(0x92, 1, 0);
    expect(asked).toEqual([]);
    bus.write(0xf4, 4, 3);
    bus.write(0x604, 2, 0x2000);
    bus.write(0xcf9, 1, 6);
    bus.write(0x64, 1, 0xfe);
    bus.write(0x92, 1, 3);
    expect(asked).toEqual([
      { kind: 'debug-exit', value: 3 },
      { kind: 'poweroff' },
      { kind: 'reset' },
      { kind: 'reset' },
      { kind: 'reset' },
    ]);
  });

  it('a port without a device reads as ones', () => {
    expect(new PortBus().read(0x80, 2)).toBe(0xffff);
  });
});

describe('fw_cfg', () => {
  it('gives the bytes of the selected item, then zeros', () => {
    const cfg = new FwCfg({ memoryBytes: 128 * 1024 * 1024, vcpus: 1 });
    const item = (key: number, size: number): number[] => {
      cfg.write(0x510, 2, key);
      return Array.from({ length: size }, () => cfg.read(0x511));
    };
    expect(String.fromCharCode(...item(0, 4))).toBe('QEMU');
    expect(item(3, 9)).toEqual([0, 0, 0, 8, 0, 0, 0, 0, 0]);
    expect(item(5, 2)).toEqual([1, 0]);
    expect(item(0x8000, 2)).toEqual([0, 0]);
  });
});

describe('test device', () => {
  it('echoes bytes, words and double words', () => {
    const echo = new EchoPort(0xe0);
    echo.write(0xe0, 4, 0x89abcdef);
    expect([echo.read(0xe0, 4), echo.read(0xe1, 1), echo.read(0xe2, 2)]).toEqual([0x89abcdef, 0xcd, 0x89ab]);
    echo.write(0xe1, 1, 0x12);
    expect(echo.read(0xe0, 4)).toBe(0x89ab12ef);
  });

  it('drives interrupt lines, and refaults the page that an address names', () => {
    const heard: unknown[] = [];
    new IrqLines((line, high) => heard.push([line, high])).write(0x200b, 4, 1);
    new FlushPage((gpa) => heard.push(gpa)).write(0xe4, 4, 0x9000_1234);
    expect(heard).toEqual([[11, true], 0x9000_1000]);
  });
});
