import { describe, expect, it } from 'vitest';
import { RAX, RCX, RDX, RIP } from '../../arch/registers.ts';
import type { FlatMachine } from './flat-machine.testing.ts';
import { accesses, CODE, DATA, get, put, run, type Setup } from './snippet.testing.ts';

describe('arithmetic', () => {
  const value = (m: FlatMachine) => get(m, DATA, 4);
  const forms: [what: string, code: string, setup: Setup, check: (m: FlatMachine) => unknown, want: unknown][] = [
    [
      'add [rbx], eax',
      '0103',
      (m) => {
        put(m, DATA, '01000000');
        m.setReg(RAX, 2n);
      },
      value,
      '03000000',
    ],
    ['lock inc dword [rbx]', 'f0ff03', (m) => put(m, DATA, 'ff000000'), value, '00010000'],
    ['lock bts [rbx], ecx beyond the word', 'f00fab0b', (m) => m.setReg(RCX, 65n), (m) => get(m, DATA + 8, 1), '02'],
    [
      'bt with a negative offset',
      '480fa30b',
      (m) => {
        put(m, DATA - 1, '80');
        m.setReg(RCX, 0xffffffffffffffffn);
      },
      (m) => m.eflags & 1,
      1,
    ],
    [
      'mul word [rbx]',
      '66f723',
      (m) => {
        put(m, DATA, '0010');
        m.setReg(RAX, 0x1000n);
      },
      (m) => m.reg(RDX),
      0x100n,
    ],
    [
      'mul byte [rbx]',
      'f623',
      (m) => {
        put(m, DATA, '10');
        m.setReg(RAX, 0x31n);
      },
      (m) => m.reg(RAX),
      0x310n,
    ],
    [
      'div dword [rbx]',
      'f733',
      (m) => {
        put(m, DATA, '07000000');
        m.setReg(RAX, 100n);
      },
      (m) => [m.reg(RAX), m.reg(RDX)],
      [14n, 2n],
    ],
    [
      'div byte [rbx]',
      'f633',
      (m) => {
        put(m, DATA, '07');
        m.setReg(RAX, 100n);
      },
      (m) => m.reg(RAX),
      0x20en,
    ],
    ['imul eax, [rbx], -2', '6b03fe', (m) => put(m, DATA, '05000000'), (m) => m.reg(RAX), 0xfffffff6n],
    [
      'shl dword [rbx], cl',
      'd323',
      (m) => {
        put(m, DATA, '01000000');
        m.setReg(RCX, 4n);
      },
      value,
      '10000000',
    ],
    ['sar dword [rbx], 1', 'd13b', (m) => put(m, DATA, '00000080'), value, '000000c0'],
    [
      'shld [rbx], eax, 8',
      '0fa40308',
      (m) => {
        put(m, DATA, '44332211');
        m.setReg(RAX, 0xaa000000n);
      },
      value,
      'aa443322',
    ],
    [
      'xadd [rbx], eax',
      '0fc103',
      (m) => {
        put(m, DATA, '05000000');
        m.setReg(RAX, 3n);
      },
      (m) => [value(m), m.reg(RAX)],
      ['08000000', 5n],
    ],
    [
      'cmpxchg equal',
      'f00fb10b',
      (m) => {
        put(m, DATA, '05000000');
        m.setReg(RAX, 5n);
        m.setReg(RCX, 9n);
      },
      (m) => [value(m), m.eflags & 0x40],
      ['09000000', 0x40],
    ],
    [
      'cmpxchg unequal',
      '0fb10b',
      (m) => {
        put(m, DATA, '05000000');
        m.setReg(RAX, 6n);
        m.setReg(RCX, 9n);
      },
      (m) => [value(m), m.reg(RAX)],
      ['05000000', 5n],
    ],
    [
      'cmpxchg8b equal',
      '0fc70b',
      (m) => {
        put(m, DATA, '0100000002000000');
        m.setReg(RAX, 1n);
        m.setReg(RDX, 2n);
        m.setReg(RCX, 7n);
      },
      (m) => get(m, DATA, 8),
      '0040000007000000',
    ],
    [
      'bsf of zero leaves the register',
      '0fbc03',
      (m) => m.setReg(RAX, 77n),
      (m) => [m.reg(RAX), m.eflags & 0x40],
      [77n, 0x40],
    ],
    ['test sets flags only', 'f60380', (m) => put(m, DATA, '80'), (m) => m.eflags & 0x80, 0x80],
    [
      'xchg [rbx], eax is locked',
      '8703',
      (m) => {
        put(m, DATA, '01000000');
        m.setReg(RAX, 2n);
      },
      (m) => accesses(m),
      ['read 0x4000+4', 'cmpxchg 0x4000+4'],
    ],
  ]; // prettier-ignore
  it.each(forms)('%s', (_, code, setup, check, want) => {
    const { machine, outcome } = run(code, setup);
    expect(outcome.kind).toBe('done');
    expect(check(machine)).toEqual(want);
  });

  it('divides by zero with #DE and changes nothing', () => {
    const { machine, outcome } = run('f733', (m) => m.setReg(RAX, 100n));
    expect(outcome).toEqual({ kind: 'exception', vector: 0 });
    expect(machine.reg(RAX)).toBe(100n);
    expect(machine.reg(RIP)).toBe(BigInt(CODE));
  });
});
