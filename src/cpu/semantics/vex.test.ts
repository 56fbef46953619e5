import { expect, test } from 'vitest';
import { GP_VECTOR, NM_VECTOR, PF_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { CR0_TS, CR4_OSFXSR, CR4_OSXSAVE, RBX } from '../../arch/registers.ts';
import { COMPILED_AT_ONCE, INTERPRETER } from '../compiler/engine.ts';
import { FlatMachine, type Mode } from '../interpreter/flat-machine.testing.ts';
import {
  CR0_AT,
  CR4_AT,
  FAULT_ADDRESS,
  MXCSR_AT,
  STATUS_EXCEPTION,
  STATUS_EXIT,
  XCR0_AT,
  XMM,
  XMM_SIZE,
} from '../state.ts';

const CODE = 0x4000;
const DATA = 0x20000;
const bytesOf = (hex: string): number[] => [...Buffer.from(hex.replace(/ /g, ''), 'hex')];

function machine(hex: string, mode: Mode = 'long64', engine = INTERPRETER): FlatMachine {
  const m = new FlatMachine(mode, engine);
  m.load(CODE, [...bytesOf(hex), 0xf4]);
  m.rip = CODE;
  m.setRegister(RBX, DATA);
  return m;
}
/** Fills YMM `n` with 32 bytes from `first` on. */
function fill(m: FlatMachine, n: number, first: number): void {
  for (let i = 0; i < 32; i++) m.memory.u8[XMM + n * XMM_SIZE + i] = first + i;
}
const ymm = (m: FlatMachine, n: number): number[] => [
  ...m.memory.u8.slice(XMM + n * XMM_SIZE, XMM + n * XMM_SIZE + 32),
];
const from = (first: number, count = 32): number[] => Array.from({ length: count }, (_, i) => first + i);
const faultOf = (m: FlatMachine): number => (m.run(4) === STATUS_EXCEPTION ? m.faultVector : -1);

test.each([
  ['66 before', '66 c5f5fec2'],
  ['F2 before', 'f2 c5f5fec2'],
  ['F3 before', 'f3 c5f5fec2'],
  ['LOCK before', 'f0 c5f5fec2'],
  ['REX before', '40 c5f5fec2'],
  ['REX.W before', '48 c5f5fec2'],
  ['VEX.vvvv of VPABSB is not 1111', 'c4e2711cc2'],
  ['VEX.L of VPHMINPOSUW', 'c4e27d41c2'],
  ['VEX.L of ANDN', 'c4e27cf2c2'],
  ['VEX.W of VPERMD', 'c4e2f536c2'],
  ['map 0', 'c4e071fec2'],
  ['map 4', 'c4e471fec2'],
  ['memory only: VBROADCASTF128 of a register', 'c4e27d1ac2'],
  ['a gather without SIB', 'c4e2719003'],
  ['a gather whose mask is its destination', 'c4e27190040b'],
  ['a gather whose index is its mask', 'c4e261901c1b'],
])('#UD: %s', (_, hex) => {
  expect(faultOf(machine(hex))).toBe(UD_VECTOR);
});

test('VEX is #UD without OSXSAVE, without AVX state, in real mode; #NM by CR0.TS; BMI asks for none of them but the mode', () => {
  const add = 'c5f5fec2';
  expect(faultOf(machine(add))).toBe(-1);
  const withoutOs = machine(add);
  withoutOs.memory.i32[CR4_AT >> 2] = CR4_OSFXSR;
  expect(faultOf(withoutOs)).toBe(UD_VECTOR);
  for (const xcr0 of [1, 3]) {
    const m = machine(add);
    m.memory.i32[XCR0_AT >> 2] = xcr0;
    expect(faultOf(m)).toBe(UD_VECTOR);
  }
  const switched = machine(add);
  switched.memory.i32[CR0_AT >> 2]! |= CR0_TS;
  expect(faultOf(switched)).toBe(NM_VECTOR);
  const andn = 'c4e270f2c2';
  const plain = machine(andn);
  plain.memory.i32[XCR0_AT >> 2] = 1;
  plain.memory.i32[CR4_AT >> 2] = CR4_OSXSAVE;
  expect(faultOf(plain)).toBe(-1);
  for (const hex of [add, andn]) {
    const real = machine(hex, 'real16');
    real.memory.i32[CR0_AT >> 2] = 0x10;
    expect(faultOf(real)).toBe(UD_VECTOR);
    expect(faultOf(machine(hex, 'protected32'))).toBe(-1);
  }
});

test('128 bits clear the upper half, 256 bits have two lanes; SSE keeps the upper half', () => {
  const m = machine('c5f16fda c5fd6fe2 660f6fea'); // vmovdqa xmm3,xmm2 with vvvv: #UD
  expect(faultOf(m)).toBe(UD_VECTOR);
  const moves = machine('c5f96fda c5fd6fe2 660f6fea');
  for (const n of [2, 3, 4, 5]) fill(moves, n, 10 * n);
  expect(moves.run(4)).toBe(STATUS_EXIT);
  expect(ymm(moves, 3)).toEqual([...from(20, 16), ...new Array<number>(16).fill(0)]);
  expect(ymm(moves, 4)).toEqual(from(20));
  expect(ymm(moves, 5)).toEqual([...from(20, 16), ...from(66, 16)]);
});

test('memory need not be aligned, except for VMOVDQA, by the width of the register', () => {
  const unaligned = machine('c5f5fe5301'); // vpaddd ymm2,ymm1,[rbx+1]
  expect(faultOf(unaligned)).toBe(-1);
  const half = machine('c5fd6f5310'); // vmovdqa ymm2,[rbx+16]
  expect(faultOf(half)).toBe(GP_VECTOR);
  expect(faultOf(machine('c5f96f5310'))).toBe(-1);
});

test('a store of 256 bits across a page is made whole or not at all', () => {
  const m = machine('c5fe7f13'); // vmovdqu [rbx],ymm2
  m.setRegister(RBX, DATA + 4096 - 7);
  fill(m, 2, 1);
  expect(m.run(2)).toBe(STATUS_EXIT);
  expect([...m.bytes(DATA + 4096 - 7, 32)]).toEqual(from(1));
  const cut = machine('c5fe7f13');
  cut.setRegister(RBX, DATA + 4096 - 7);
  cut.absent.add((DATA >> 12) + 1);
  fill(cut, 2, 1);
  expect(faultOf(cut)).toBe(PF_VECTOR);
  expect([...cut.bytes(DATA + 4096 - 7, 7)]).toEqual(new Array(7).fill(0));
});

test('VMASKMOV does not touch what its mask leaves out', () => {
  const load = machine('c4e2752c13'); // vmaskmovps ymm2,ymm1,[rbx]
  load.setRegister(RBX, DATA + 4096 - 16);
  load.absent.add((DATA >> 12) + 1);
  load.load(DATA + 4096 - 16, from(1, 16));
  const mask = load.memory.i32;
  mask.fill(0, (XMM + XMM_SIZE) >> 2, (XMM + 2 * XMM_SIZE) >> 2);
  mask[((XMM + XMM_SIZE) >> 2) + 1] = -1;
  mask[((XMM + XMM_SIZE) >> 2) + 3] = 1 << 31;
  expect(load.run(2)).toBe(STATUS_EXIT);
  expect(ymm(load, 2)).toEqual([0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0, 13, 14, 15, 16, ...new Array<number>(16).fill(0)]);
  const store = machine('c4e2752e13');
  store.setRegister(RBX, DATA + 4096 - 16);
  store.absent.add((DATA >> 12) + 1);
  fill(store, 2, 1);
  store.memory.i32[((XMM + XMM_SIZE) >> 2) + 2] = -1;
  store.memory.i32[((XMM + XMM_SIZE) >> 2) + 5] = -1;
  expect(faultOf(store)).toBe(PF_VECTOR);
  expect([...store.bytes(DATA + 4096 - 16, 16)]).toEqual(new Array(16).fill(0));
});

test.each([INTERPRETER, COMPILED_AT_ONCE])(
  'a gather keeps what it has when an element faults, and goes on from there',
  (engine) => {
    const m = machine('c4e27590040b', 'long64', engine); // vpgatherdd ymm0,[rbx+ymm1],ymm1: index is mask
    expect(faultOf(m)).toBe(UD_VECTOR);
    const g = machine('c4e26d900c03 ebfe', 'long64', engine); // vpgatherdd ymm1,[rbx+ymm0],ymm2
    const words = g.memory.i32;
    const index = XMM >> 2;
    const mask = (XMM + 2 * XMM_SIZE) >> 2;
    const to = (XMM + XMM_SIZE) >> 2;
    for (let n = 0; n < 8; n++) {
      words[index + n] = n === 5 ? 4096 : 4 * n;
      words[mask + n] = n === 2 ? 0 : -1;
      words[to + n] = 1000 + n;
      g.load(DATA + 4 * n, [n + 1]);
    }
    g.load(DATA + 4096, [99]);
    g.absent.add((DATA >> 12) + 1);
    expect(faultOf(g)).toBe(PF_VECTOR);
    expect(words[FAULT_ADDRESS >> 2]).toBe(DATA + 4096);
    expect(g.rip).toBe(CODE);
    expect([...words.slice(to, to + 8)]).toEqual([1, 2, 1002, 4, 5, 1005, 1006, 1007]);
    expect([...words.slice(mask, mask + 8)]).toEqual([0, 0, 0, 0, 0, -1, -1, -1]);
    g.absent.clear();
    g.run(4);
    expect([...words.slice(to, to + 8)]).toEqual([1, 2, 1002, 4, 5, 99, 7, 8]);
    expect([...words.slice(mask, mask + 8)]).toEqual(new Array(8).fill(0));
  },
);

test('VZEROUPPER and VZEROALL: eight registers outside 64-bit mode', () => {
  const upper = machine('c5f877');
  const all = machine('c5fc77', 'protected32');
  for (const m of [upper, all]) for (let n = 0; n < 16; n++) fill(m, n, n);
  upper.run(2);
  all.run(2);
  expect(ymm(upper, 15)).toEqual([...from(15, 16), ...new Array<number>(16).fill(0)]);
  expect(ymm(all, 7)).toEqual(new Array(32).fill(0));
  expect(ymm(all, 8)).toEqual(from(8));
});

test('flags of both halves: an unmasked exception in one leaves the inexactness of the other out', () => {
  const m = machine('c5fc5ed1'); // vdivps ymm2,ymm0,ymm1
  const words = m.memory.i32;
  const one = 0x3f800000;
  const three = 0x40400000;
  // 1/3 in the lower half, 1/0 in the upper one.
  for (let n = 0; n < 8; n++) {
    words[(XMM >> 2) + n] = one;
    words[((XMM + XMM_SIZE) >> 2) + n] = n < 4 ? three : 0;
  }
  words[MXCSR_AT >> 2] = 0x1f80 & ~0x200;
  fill(m, 2, 1);
  expect(faultOf(m)).toBe(19);
  expect(words[MXCSR_AT >> 2]! & 0x3f).toBe(4);
  expect(ymm(m, 2)).toEqual(from(1));
});

test('VCMPPS knows 32 predicates', () => {
  const holds = (predicate: number, a: number, b: number): boolean => {
    const m = machine(`c5f8c2d1${predicate.toString(16).padStart(2, '0')}`); // vcmpps xmm2,xmm0,xmm1
    m.memory.i32[XMM >> 2] = a;
    m.memory.i32[(XMM + XMM_SIZE) >> 2] = b;
    m.run(2);
    return m.memory.i32[(XMM + 2 * XMM_SIZE) >> 2] !== 0;
  };
  const [one, two, nan] = [0x3f800000, 0x40000000, 0x7fc00000];
  expect([8, 9, 10, 11, 12, 13, 14, 15].map((p) => holds(p, one, two))).toEqual([
    false,
    true,
    true,
    false,
    true,
    false,
    false,
    true,
  ]); // prettier-ignore
  expect([8, 9, 10, 11, 12, 13, 14, 15].map((p) => holds(p, one, nan))).toEqual([
    true,
    true,
    true,
    false,
    false,
    false,
    false,
    true,
  ]); // prettier-ignore
  expect([0, 3, 4, 7].map((p) => holds(p, one, nan))).toEqual([false, true, true, false]);
  expect(holds(31, nan, nan)).toBe(true);
});
