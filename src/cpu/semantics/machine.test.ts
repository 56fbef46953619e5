import { expect, test } from 'vitest';
import { BR_VECTOR, DE_VECTOR, GP_VECTOR, NM_VECTOR, SS_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import {
  CR0_EM,
  CR0_TS,
  RAX,
  RBP,
  RBX,
  RCX,
  RDI,
  RDX,
  RFLAGS_CF,
  RFLAGS_ZF,
  RSI,
  RSP,
  SS,
} from '../../arch/registers.ts';
import { FlatMachine, type Mode } from '../interpreter/flat-machine.testing.ts';
import {
  CR0_AT,
  CR4_AT,
  FPU_REGS,
  MXCSR_AT,
  SEG,
  SEG_ATTR,
  SEG_LIMIT,
  SEG_SIZE,
  STATUS_EXCEPTION,
  STATUS_EXIT,
  XMM,
} from '../state.ts';

const CODE = 0x4000;
const STACK = 0x8000;
const HLT = 0xf4;

function machine(code: number[], mode: Mode = 'long64'): FlatMachine {
  const m = new FlatMachine(mode);
  m.load(CODE, [...code, HLT]);
  m.rip = CODE;
  m.setRegister(RSP, STACK);
  return m;
}
const words = (m: FlatMachine, address: number, count: number): number[] => {
  const view = new DataView(m.bytes(address, count * 4).buffer);
  return Array.from({ length: count }, (_, i) => view.getUint32(i * 4, true));
};

test.each([
  [100, 0x20000 + 12, 0x10],
  [-1, 0x20000 - 1, 0x80],
  [-4097, 0x20000 - 513, 0x80],
  [0x7fffffff, -1, 0],
])('BTS of memory by a register reaches the byte of bit %i', (bit, byte, value) => {
  const m = machine([0x0f, 0xab, 0x03]); // bts [rbx],eax
  m.setRegister(RBX, 0x20000);
  m.setRegister(RAX, bit);
  if (byte < 0) {
    expect(m.run(10)).toBe(STATUS_EXCEPTION);
    return;
  }
  expect(m.run(10)).toBe(STATUS_EXIT);
  expect(m.bytes(byte, 1)[0]).toBe(value);
});

test('PUSHA and POPA: order, and the stack pointer that is pushed and skipped', () => {
  const m = machine([0x60, 0x31, 0xff, 0x61], 'protected32');
  [RAX, RCX, RDX, RBX, RBP, RSI, RDI].forEach((r, i) => {
    m.setRegister(r, 0x11 * (i + 1));
  });
  m.run(1);
  expect(words(m, STACK - 32, 8)).toEqual([0x77, 0x66, 0x55, STACK, 0x44, 0x33, 0x22, 0x11]);
  expect(m.run(10)).toBe(STATUS_EXIT);
  expect([m.low(RDI), m.low(RSP)]).toEqual([0x77, STACK]);
});

test('ENTER with nesting copies the display', () => {
  const m = machine([0xc8, 0x10, 0, 3], 'protected32');
  m.setRegister(RBP, 0x7000);
  m.load(0x7000 - 8, [4, 3, 2, 1, 8, 7, 6, 5]);
  m.run(1);
  expect(words(m, STACK - 16, 4)).toEqual([STACK - 4, 0x01020304, 0x05060708, 0x7000]);
  expect([m.low(RBP), m.low(RSP)]).toEqual([STACK - 4, STACK - 16 - 16]);
});

test('a 16-bit stack wraps and keeps the upper half of ESP', () => {
  const m = machine([0x50], 'protected32');
  m.memory.i32[(SEG + SS * SEG_SIZE + SEG_ATTR) >> 2] = 0x93;
  m.memory.i32[(SEG + SS * SEG_SIZE + SEG_LIMIT) >> 2] = 0xffff;
  m.setRegister(RSP, 0x12340000);
  m.setRegister(RAX, 0x55);
  m.run(1);
  expect(m.low(RSP)).toBe(0x1234fffc);
  expect(words(m, 0xfffc, 1)).toEqual([0x55]);
});

test('faults of division, BOUND, and a read beyond the stack segment', () => {
  const fault = (code: number[], mode: Mode, set: (m: FlatMachine) => void = () => {}): number => {
    const m = machine(code, mode);
    set(m);
    expect(m.run(10)).toBe(STATUS_EXCEPTION);
    expect(m.rip).toBe(CODE);
    return m.faultVector;
  };
  expect(fault([0xf7, 0xf1], 'long64')).toBe(DE_VECTOR);
  expect(fault([0xd4, 0], 'protected32')).toBe(DE_VECTOR);
  expect(fault([0x62, 0x03], 'protected32', (m) => m.setRegister(RAX, 5))).toBe(BR_VECTOR);
  const small = (m: FlatMachine): void => {
    m.memory.i32[(SEG + SS * SEG_SIZE + SEG_LIMIT) >> 2] = 0x7fff;
  };
  expect(
    fault([0x8b, 0x45, 0xfd], 'protected32', (m) => {
      small(m);
      m.setRegister(RBP, 0x8000);
    }),
  ).toBe(SS_VECTOR); // prettier-ignore
  expect(fault([0x58], 'protected32', small)).toBe(SS_VECTOR);
});

test('LOOP and JrCXZ count in the address size', () => {
  // 67: loop 1b in 64-bit mode counts ECX
  const m = machine([0xff, 0xc0, 0x67, 0xe2, 0xfb]);
  m.setRegister(RCX, 3, 7);
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect([m.low(RAX), m.low(RCX), m.high(RCX)]).toEqual([3, 0, 0]);
  const j = machine([0xe3, 1, HLT, 0xff, 0xc0]);
  j.setRegister(RCX, 0, 1);
  j.run(100);
  expect(j.low(RAX)).toBe(0);
});

test('XLAT, and CMPXCHG8B both ways', () => {
  const m = machine([0xd7, 0x0f, 0xc7, 0x0b, 0x0f, 0xc7, 0x0b]); // xlatb; cmpxchg8b [rbx]; again
  m.load(0x20000, [1, 2, 3, 4, 5, 6, 7, 8]);
  m.setRegister(RBX, 0x20000);
  m.setRegister(RAX, 7);
  m.run(1);
  expect(m.low(RAX)).toBe(8);
  m.run(1);
  expect([m.low(RAX), m.low(RDX), m.interpreter.readRflags() & RFLAGS_ZF]).toEqual([0x04030201, 0x08070605, 0]);
  m.setRegister(RCX, 0x99);
  m.run(1);
  expect([words(m, 0x20000, 2), m.interpreter.readRflags() & RFLAGS_ZF]).toEqual([[0x20000, 0x99], RFLAGS_ZF]);
});

test('FXSAVE and FXRSTOR carry everything; LDMXCSR refuses reserved bits', () => {
  // fxsave [rbx]; xorps xmm9,xmm9; fxrstor [rbx]; ldmxcsr [rbx+512]
  const m = machine([0x0f, 0xae, 0x03, 0x45, 0x0f, 0x57, 0xc9, 0x0f, 0xae, 0x0b, 0x0f, 0xae, 0x93, 0, 2, 0, 0]);
  const { i32, u8 } = m.memory;
  m.setRegister(RBX, 0x20f00);
  i32[MXCSR_AT >> 2] = 0x1f80;
  i32[(XMM + 9 * 32) >> 2] = 0x12345678;
  u8.fill(0xab, FPU_REGS + 16, FPU_REGS + 26);
  m.load(0x21100, [0, 0, 1, 0]);
  m.run(1);
  expect(words(m, 0x20f00 + 24, 2)).toEqual([0x1f80, 0xffff]);
  expect(words(m, 0x20f00 + 160 + 9 * 16, 1)).toEqual([0x12345678]);
  expect(m.bytes(0x20f00 + 48, 1)[0]).toBe(0xab);
  m.run(1);
  expect(i32[(XMM + 9 * 32) >> 2]).toBe(0);
  m.run(1);
  expect(i32[(XMM + 9 * 32) >> 2]).toBe(0x12345678);
  expect(m.run(1)).toBe(STATUS_EXCEPTION);
  expect(m.faultVector).toBe(GP_VECTOR);
});

test('vector instructions answer to CR0 and CR4', () => {
  const vector = (cr0: number, cr4: number): number => {
    const m = machine([0x0f, 0x57, 0xc0]);
    m.memory.i32[CR0_AT >> 2]! |= cr0;
    m.memory.i32[CR4_AT >> 2] = cr4;
    return m.run(1) === STATUS_EXCEPTION ? m.faultVector : -1;
  };
  expect([vector(0, 0x200), vector(0, 0), vector(CR0_EM, 0x200), vector(CR0_TS, 0x200)]).toEqual([
    -1,
    UD_VECTOR,
    UD_VECTOR,
    NM_VECTOR,
  ]);
  const aligned = machine([0x0f, 0x28, 0x43, 1]);
  aligned.setRegister(RBX, 0x20000);
  expect([aligned.run(1), aligned.faultVector]).toEqual([STATUS_EXCEPTION, GP_VECTOR]);
});

test('flags survive instructions that change one of them', () => {
  // stc; inc eax; setc bl; cmc; adc ecx,0; clc; lahf
  const m = machine([0xf9, 0xff, 0xc0, 0x0f, 0x92, 0xc3, 0xf5, 0x83, 0xd1, 0, 0xf9, 0x9f]);
  m.setRegister(RAX, -1);
  expect(m.run(100)).toBe(STATUS_EXIT);
  expect([m.low(RBX), m.low(RCX), (m.low(RAX) >> 8) & RFLAGS_CF]).toEqual([1, 0, 1]);
});

test('16-bit addressing wraps inside the segment', () => {
  const m = machine([0x8a, 0x40, 0x10], 'real16'); // mov al,[bx+si+0x10]
  m.load(0x8, [0x5a]);
  m.setRegister(RBX, 0xfff0);
  m.setRegister(RSI, 0x8);
  expect(m.run(1)).not.toBe(STATUS_EXCEPTION);
  expect(m.low(RAX)).toBe(0x5a);
});
