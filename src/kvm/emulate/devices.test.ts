import { describe, expect, it } from 'vitest';
import { RAX, RBX, RCX, RDI, RDX, RIP, RSI, TR } from '../../arch/registers.ts';
import { accesses, CODE, DATA, DEVICE, get, machineWith, put, run, type Setup } from './snippet.testing.ts';

describe('devices', () => {
  it('leaves for a read, then finishes with the answer and no second read', () => {
    const machine = machineWith('0303', (m) => {
      m.setReg(RBX, BigInt(DEVICE));
      m.setReg(RAX, 1n);
    });
    expect(machine.step()).toMatchObject({ kind: 'mmio-read', address: DEVICE, bytes: 4 });
    expect(machine.reg(RIP)).toBe(BigInt(CODE));
    expect(machine.resume(Uint8Array.of(2, 0, 0, 0)).kind).toBe('done');
    expect(machine.reg(RAX)).toBe(3n);
    expect(machine.reg(RIP)).toBe(BigInt(CODE + 2));
  });

  it('reads, then writes', () => {
    const machine = machineWith('ff03', (m) => m.setReg(RBX, BigInt(DEVICE)));
    expect(machine.step().kind).toBe('mmio-read');
    expect(machine.resume(Uint8Array.of(0xff, 0, 0, 0))).toMatchObject({
      kind: 'mmio-write',
      data: Uint8Array.of(0, 1, 0, 0),
    });
    expect(machine.reg(RIP)).toBe(BigInt(CODE + 2));
  });

  it('finds both reads in the cache when an instruction that read twice runs a third time', () => {
    const machine = machineWith('a7', (m) => {
      m.setReg(RSI, BigInt(DEVICE));
      m.setReg(RDI, BigInt(DEVICE + 0x100));
    });
    expect(machine.step()).toMatchObject({ kind: 'mmio-read', address: DEVICE });
    expect(machine.resume(Uint8Array.of(1, 0, 0, 0))).toMatchObject({ kind: 'mmio-read', address: DEVICE + 0x100 });
    expect(machine.resume(Uint8Array.of(1, 0, 0, 0)).kind).toBe('done');
    expect(machine.eflags & 0x40).toBe(0x40);
    const reads = accesses(machine);
    expect(reads.filter((line) => line.startsWith(`read 0x${DEVICE.toString(16)}+`)).length).toBe(2);
  });

  it('splits a wide write', () => {
    const machine = machineWith('0f1103', (m) => {
      m.setReg(RBX, BigInt(DEVICE));
      m.xmm[0]!.fill(9);
    });
    expect(machine.step()).toMatchObject({ kind: 'mmio-write', address: DEVICE, bytes: 8 });
    expect(machine.resume(new Uint8Array(8))).toMatchObject({ kind: 'mmio-write', address: DEVICE + 8 });
  });

  it('repeats string instructions until the count, and lets the guest in every 1024', () => {
    const machine = machineWith('f3aa', (m) => {
      m.setReg(RDI, BigInt(DATA));
      m.setReg(RAX, 0x5an);
      m.setReg(RCX, 1030n);
    });
    expect(machine.step().kind).toBe('done');
    expect(machine.reg(RCX)).toBe(1024n);
    expect(machine.reg(RIP)).toBe(BigInt(CODE));
    expect(machine.eflags & 0x1_0000).not.toBe(0);
    machine.setReg(RCX, 0n);
    expect(machine.step().kind).toBe('done');
    expect(machine.reg(RIP)).toBe(BigInt(CODE + 2));
    expect(machine.eflags & 0x1_0000).toBe(0);
  });

  it('ends REPE when ZF is clear', () => {
    const machine = machineWith('f3a6', (m) => {
      put(m, DATA, '0101');
      put(m, DATA + 0x100, '0102');
      m.setReg(RSI, BigInt(DATA));
      m.setReg(RDI, BigInt(DATA + 0x100));
      m.setReg(RCX, 5n);
    });
    expect(machine.step().kind).toBe('done');
    expect(machine.reg(RCX)).toBe(3n);
    expect(machine.reg(RIP)).toBe(BigInt(CODE + 2));
  });

  it('reads ports ahead for REP INS and stores them at once', () => {
    const machine = machineWith('f36c', (m) => {
      m.setReg(RDI, BigInt(DATA));
      m.setReg(RDX, 0x60n);
      m.setReg(RCX, 4n);
    });
    expect(machine.step()).toEqual({ kind: 'io-in', bytes: 4 });
    machine.resume(Uint8Array.of(1, 2, 3, 4));
    expect(get(machine, DATA, 4)).toBe('01020304');
    expect(machine.reg(RCX)).toBe(0n);
    expect(machine.reg(RDI)).toBe(BigInt(DATA + 4));
    expect(accesses(machine)).toEqual(['in 0x60 1*4', 'in 0x60 1*4', 'write 0x4000+4']);
  });

  it('lets an unprivileged port access pass or fail by the bitmap', () => {
    const setup =
      (bits: string): Setup =>
      (m) => {
        m.privilege = 3;
        Object.assign(m.segments[TR]!, { baseLo: 0x5000, limit: 0xff, p: 1, g: 0 });
        put(m, 0x5000 + 102, '6800');
        put(m, 0x5068 + 0x0c, bits);
      };
    expect(run('e660', setup('deff')).outcome.kind).toBe('io-out');
    expect(run('e665', setup('2000')).outcome).toEqual({ kind: 'exception', vector: 13 });
  });
});
