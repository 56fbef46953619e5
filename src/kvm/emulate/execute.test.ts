import { describe, expect, it } from 'vitest';
import { CS, DS, RBP, RBX } from '../../arch/registers.ts';
import { EMULATION_FAILED } from './ctxt.ts';
import { emulatorCanUseGpa, initDecodeCache, x86DecodeInsn, x86PageTableWritingInsn } from './emulate.ts';
import type { FlatMachine } from './flat-machine.testing.ts';
import { CODE, machineWith, run } from './snippet.testing.ts';

describe('what is refused', () => {
  it.each([
    ['cpuid is fine, monitor is not', '0f01c8'],
    ['addps', '0f5803'],
    ['fld', 'd903'],
    ['vmrun', '0f01d8'],
    ['vex', 'c5f81003'],
    ['enter with levels', 'c8080001'],
    ['int3 in protected mode', 'cc'],
    ['iretq', '48cf'],
    ['cmpxchg16b', '480fc70b'],
    ['icebp', 'f1'],
    ['reserved no-op 0f 19', '0f1903'],
    ['fxsave in 64-bit mode', '0fae03'],
    ['ud2', '0f0b'],
    ['operand-size and repeat prefix on a vector move', '66f30f6f03'],
  ])('not emulated: %s', (_, code) => {
    expect(run(code, (m) => m.msrs.set(0xc000_0080, 0x1d01n)).outcome.kind).toBe('failed');
  });

  it.each([
    ['lock on a register', 'f0ffc0', 6, (): void => {}],
    ['lock on mov', 'f08903', 6, (): void => {}],
    ['lock cmp', 'f03903', 6, (): void => {}],
    ['c7 /1', 'c70b', 6, (): void => {}],
    ['push es in 64-bit mode', '06', 6, (): void => {}],
    ['jmp far through a register', 'ffe8', 6, (): void => {}],
    ['mov to cs', '8ecb', 6, (): void => {}],
    ['mov from cr1', '0f20c8', 6, (): void => {}],
    [
      'wrmsr unprivileged',
      '0f30',
      13,
      (m: FlatMachine): void => {
        m.privilege = 3;
      },
    ],
    ['rdmsr of nothing', '0f32', 13, (): void => {}],
    [
      'cli without IOPL',
      'fa',
      13,
      (m: FlatMachine): void => {
        m.privilege = 3;
      },
    ],
    ['movdqa unaligned', '660f6f4301', 13, (): void => {}],
    ['cmpxchg16b unaligned', '480fc74b08', 13, (): void => {}],
    ['not canonical', '8b03', 13, (m: FlatMachine): void => m.setReg(RBX, 0x8000_0000_0000n)],
    ['not canonical, on the stack', '8b4500', 12, (m: FlatMachine): void => m.setReg(RBP, 0x8000_0000_0000n)],
    [
      'vector move with CR0.EM',
      '0f1003',
      6,
      (m: FlatMachine): void => {
        m.cr[0] = 0x8001_0037n;
      },
    ],
    [
      'vector move with CR0.TS',
      '0f1003',
      7,
      (m: FlatMachine): void => {
        m.cr[0] = 0x8001_003bn;
      },
    ],
    [
      'vector move without CR4.OSFXSR',
      '0f1003',
      6,
      (m: FlatMachine): void => {
        m.cr[4] = 0x20n;
      },
    ],
    ['lldt in real mode', '0f0013', 6, (m: FlatMachine): void => m.real()],
    ['aam 0', 'd400', 0, (m: FlatMachine): void => m.protect(1)],
    [
      'beyond a segment',
      '8b03',
      13,
      (m: FlatMachine): void => {
        m.protect(1);
        m.segments[DS]!.limit = 0x4002;
      },
    ],
    [
      'write to a read-only segment',
      '8903',
      13,
      (m: FlatMachine): void => {
        m.protect(1);
        m.segments[DS]!.type = 1;
      },
    ],
    [
      'read of an execute-only segment',
      '2e8b03',
      13,
      (m: FlatMachine): void => {
        m.protect(1);
        m.segments[CS]!.type = 9;
      },
    ],
    [
      'below an expand-down segment',
      '8b03',
      13,
      (m: FlatMachine): void => {
        m.protect(1);
        Object.assign(m.segments[DS]!, { type: 7, limit: 0x5000 });
      },
    ],
  ])('%s raises', (_, code, vector, setup) => {
    expect(run(code, setup).outcome).toEqual({ kind: 'exception', vector });
  }); // prettier-ignore

  it('tells what kind of instruction it was', () => {
    const decode = (code: string) => {
      const machine = machineWith(code);
      machine.ctxt.mode = machine.mode;
      machine.ctxt.eipLo = CODE;
      initDecodeCache(machine.ctxt);
      expect(x86DecodeInsn(machine.ctxt, null, 0, 0)).not.toBe(EMULATION_FAILED);
      return machine.ctxt;
    };
    expect(x86PageTableWritingInsn(decode('8903'))).toBe(true);
    expect(x86PageTableWritingInsn(decode('8b03'))).toBe(false);
    expect(emulatorCanUseGpa(decode('8903'))).toBe(true);
    expect(emulatorCanUseGpa(decode('a4'))).toBe(false);
    expect(emulatorCanUseGpa(decode('f3aa'))).toBe(false);
  });
});
