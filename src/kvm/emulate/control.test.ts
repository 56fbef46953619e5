import { describe, expect, it } from 'vitest';
import { CS, LDTR, RAX, RBP, RCX, RIP, RSP, SS, TR } from '../../arch/registers.ts';
import { EMULATION_OK, SHADOW_INT_MOV_SS, SHADOW_INT_STI } from './ctxt.ts';
import { emulateIntReal, emulatorTaskSwitch, TASK_SWITCH_CALL } from './emulate.ts';
import type { FlatMachine } from './flat-machine.testing.ts';
import { accesses, CODE, DATA, get, machineWith, put, run, type Setup, STACK } from './snippet.testing.ts';

describe('stack and control', () => {
  const forms: [what: string, code: string, setup: Setup, check: (m: FlatMachine) => unknown, want: unknown][] = [
    [
      'push [rbx]',
      'ff33',
      (m) => put(m, DATA, '0102030405060708'),
      (m) => [m.reg(RSP), get(m, STACK - 8, 8)],
      [0x7ff8n, '0102030405060708'],
    ],
    [
      'pop [rsp] addresses behind the pop',
      '8f0424',
      (m) => put(m, STACK, '1122334455667788'),
      (m) => get(m, STACK + 8, 8),
      '1122334455667788',
    ],
    [
      'call [rbx]',
      'ff13',
      (m) => put(m, DATA, '0030000000000000'),
      (m) => [m.reg(RIP), get(m, STACK - 8, 8)],
      [0x3000n, '0210000000000000'],
    ],
    ['call rel', 'e8fb0f0000', () => {}, (m) => m.reg(RIP), 0x2000n],
    ['ret 16', 'c21000', (m) => put(m, STACK, '0030000000000000'), (m) => [m.reg(RIP), m.reg(RSP)], [0x3000n, 0x8018n]],
    [
      'jz taken',
      '740e',
      (m) => {
        m.eflags = 0x42;
      },
      (m) => m.reg(RIP),
      0x1010n,
    ],
    ['loop', 'e20e', (m) => m.setReg(RCX, 2n), (m) => [m.reg(RIP), m.reg(RCX)], [0x1010n, 1n]],
    ['jrcxz', 'e30e', () => {}, (m) => m.reg(RIP), 0x1010n],
    [
      'enter 32, 0',
      'c8200000',
      (m) => m.setReg(RBP, 0x1234n),
      (m) => [m.reg(RBP), m.reg(RSP), get(m, 0x7ff8, 2)],
      [0x7ff8n, 0x7fd8n, '3412'],
    ],
    [
      'leave',
      'c9',
      (m) => {
        m.setReg(RBP, 0x7000n);
        put(m, 0x7000, '0807060504030201');
      },
      (m) => [m.reg(RBP), m.reg(RSP)],
      [0x0102030405060708n, 0x7008n],
    ],
    [
      'pushfq',
      '9c',
      (m) => {
        m.eflags = 0x246;
      },
      (m) => get(m, 0x7ff8, 8),
      '4602000000000000',
    ],
    [
      'popfq at CPL 3 keeps IF and IOPL',
      '9d',
      (m) => {
        put(m, STACK, 'd73e');
        m.privilege = 3;
      },
      (m) => m.eflags & 0x3eff,
      0xcd5 | 2,
    ],
  ]; // prettier-ignore
  it.each(forms)('%s', (_, code, setup, check, want) => {
    const { machine, outcome } = run(code, setup);
    expect(outcome.kind).toBe('done');
    expect(check(machine)).toEqual(want);
  });

  it('casts a shadow for STI and loads of SS', () => {
    const gdt: Setup = (m) => {
      m.gdt = { limit: 0xff, baseLo: 0x2000, baseHi: 0 };
      put(m, 0x2010, 'ffff00000092cf00');
      put(m, DATA, '1000');
    };
    expect(run('fb').machine.ctxt.interruptibility).toBe(SHADOW_INT_STI);
    const { machine, outcome } = run('8e13', gdt);
    expect(outcome.kind).toBe('done');
    expect(machine.ctxt.interruptibility).toBe(SHADOW_INT_MOV_SS);
    expect(machine.segments[SS]).toMatchObject({ selector: 0x10, type: 3, limit: 0xffff_ffff });
    expect(accesses(machine)).toEqual(['read 0x4000+2', 'read-std 0x2010+8', 'write-std 0x2010+8']);
  });

  it.each([
    ['null SS outside CPL 0..2 in 64-bit mode', '8e13', '0300', 13, 0],
    ['beyond the table', '8e1b', '0001', 13, 0x100],
    ['not present', '8e1b', '1800', 11, 0x18],
    ['system descriptor', '8e1b', '2000', 13, 0x20],
  ])('refuses a segment: %s', (_, code, selector, vector, errorCode) => {
    const { machine, outcome } = run(code, (m) => {
      m.gdt = { limit: 0xff, baseLo: 0x2000, baseHi: 0 };
      put(m, 0x2018, 'ffff00000012cf00');
      put(m, 0x2020, 'ffff00000089cf00');
      put(m, DATA, selector);
    });
    expect(outcome).toEqual({ kind: 'exception', vector });
    expect(machine.ctxt.exception.errorCode).toBe(errorCode);
  });

  it('jumps far between modes', () => {
    const { machine, outcome } = run('ff2b', (m) => {
      m.gdt = { limit: 0xff, baseLo: 0x2000, baseHi: 0 };
      put(m, 0x2008, 'ffff0000009bcf00');
      put(m, DATA, '00300000 0800');
    });
    expect(outcome.kind).toBe('done');
    expect(machine.segments[CS]).toMatchObject({ l: 0, db: 1 });
    expect(machine.reg(RIP)).toBe(0x3000n);
  });

  it('pushes in the widths of 32-bit code', () => {
    const { machine } = run('0e', (m) => {
      m.protect(1);
      m.segments[CS]!.selector = 0x1b;
    });
    expect(machine.reg(RSP)).toBe(0x7ffcn);
    expect(accesses(machine)).toEqual(['write 0x7ffc+2']);
    const { machine: all } = run('60', (m) => m.protect(1));
    expect(all.reg(RSP)).toBe(0x7fe0n);
    expect(get(all, 0x7fec, 4)).toBe('00800000');
    expect(all.step).toBeDefined();
  });

  it('delivers interrupts and returns in real mode', () => {
    const machine = machineWith('cd21', (m) => {
      m.real();
      put(m, 0x21 * 4, '0030 0000');
      m.eflags = 0x302;
    });
    expect(machine.step().kind).toBe('done');
    expect(machine.reg(RIP)).toBe(0x3000n);
    expect(machine.eflags & 0x300).toBe(0);
    put(machine, 0x3000, 'cf');
    expect(machine.step().kind).toBe('done');
    expect(machine.reg(RIP)).toBe(0x1002n);
    expect(machine.eflags).toBe(0x302);
    expect(machine.nmiMasked).toBe(false);
    const { ctxt } = machine;
    ctxt.opBytes = ctxt.adBytes = 2;
    ctxt.mode = machine.mode;
    expect(emulateIntReal(ctxt, 0x21)).toBe(0);
    expect(ctxt.nextEipLo).toBe(0x3000);
  });

  it('switches to another task', () => {
    const machine = machineWith('', (m) => {
      m.protect(1);
      m.gdt = { limit: 0xff, baseLo: 0x2000, baseHi: 0 };
      put(m, 0x2008, 'ffff0000009bcf00 ffff00000093cf00');
      put(m, 0x2018, '67000050008b0000 6700005100890000');
      Object.assign(m.segments[TR]!, { selector: 0x18, baseLo: 0x5000, limit: 0x67 });
      m.setReg(RAX, 0x55n);
      const tss = new DataView(m.memory.buffer, 0x5100);
      tss.setUint32(32, 0x3000, true);
      tss.setUint32(36, 2, true);
      tss.setUint32(40, 0x77, true);
      tss.setUint32(56, 0x9000, true);
      [0x10, 0x08, 0x10, 0x10, 0, 0].forEach((selector, i) => {
        tss.setUint32(72 + 4 * i, selector, true);
      });
    });
    const { ctxt } = machine;
    ctxt.mode = machine.mode;
    ctxt.eflags = machine.eflags;
    ctxt.eipLo = CODE;
    expect(emulatorTaskSwitch(ctxt, 0x20, -1, TASK_SWITCH_CALL, 0x11)).toBe(EMULATION_OK);
    expect(ctxt.eipLo).toBe(0x3000);
    expect(machine.reg(RAX)).toBe(0x77n);
    expect(get(machine, 0x5000 + 40, 1)).toBe('55');
    expect(get(machine, 0x5100, 2)).toBe('1800');
    expect(machine.segments[TR]).toMatchObject({ selector: 0x20, type: 11, baseLo: 0x5100 });
    expect(machine.segments[LDTR]!.selector).toBe(0);
    expect(get(machine, 0x9000 - 4, 4)).toBe('11000000');
    expect(ctxt.eflags & 0x4000).toBe(0x4000);
  });
});
