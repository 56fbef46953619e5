/**
 * SSE and SSE2 floating point, on WebAssembly's own. It rounds to nearest and masks every exception whatever MXCSR says, and leaves
 * MXCSR's sticky bits alone: enough for compiled code that does not look at them.
 */
import { RFLAGS_CF, RFLAGS_PF, RFLAGS_ZF } from '../../arch/registers.ts';
import { ACCESS_READ } from '../state.ts';
import { type Code, type I32, type I64, i32, i64, type V128, v128 } from '../wasm/code.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { requireVector } from './vector.ts';

/** What a floating-point instruction works on: all lanes, or the lowest one, of 4 or 8 bytes. */
export interface Lanes {
  readonly bytes: 4 | 8;
  readonly scalar: boolean;
}
export const PS: Lanes = { bytes: 4, scalar: false };
export const PD: Lanes = { bytes: 8, scalar: false };
export const SS: Lanes = { bytes: 4, scalar: true };
export const SD: Lanes = { bytes: 8, scalar: true };

type Binary = (dst: V128, src: V128) => V128;

/** Address of the second operand. */
function sourceAddress(c: MachineContext, bytes: number): I32 {
  if (!c.isMemory(1)) return c.vector(1);
  if (bytes === 16) c.requireAligned(16);
  return c.pointer(bytes, ACCESS_READ).get;
}
const loadLanes = (lanes: Lanes, at: I32): V128 =>
  !lanes.scalar ? v128.load(at) : lanes.bytes === 4 ? v128.load32Zero(at) : v128.load64Zero(at);
/** Keeps what a scalar instruction does not touch. */
const merge = (lanes: Lanes, result: V128, dst: V128): V128 =>
  lanes.scalar
    ? v128.shuffle(
        result,
        dst,
        Array.from({ length: 16 }, (_, i) => (i < lanes.bytes ? i : 16 + i)),
      )
    : result;

const arithmetic =
  (lanes: Lanes, op: Binary): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = sourceAddress(c, lanes.scalar ? lanes.bytes : 16);
    const dst = v128.load(c.vector(0));
    c.do(v128.store(c.vector(0), 0, merge(lanes, op(dst, loadLanes(lanes, src)), dst)));
  };
/** By the opcode of the f32x4 operation; f64x2 ones are 12 higher. */
const simd = (lanes: Lanes, opcode: number): Binary => v128.binary(lanes.bytes === 4 ? opcode : opcode + 12);
export const addf = (l: Lanes): MachineEmitter => arithmetic(l, simd(l, 228));
export const subf = (l: Lanes): MachineEmitter => arithmetic(l, simd(l, 229));
export const mulf = (l: Lanes): MachineEmitter => arithmetic(l, simd(l, 230));
export const divf = (l: Lanes): MachineEmitter => arithmetic(l, simd(l, 231));
/** The second operand when the two are equal or unordered: WebAssembly's pmin and pmax with the operands exchanged. */
export const minf = (l: Lanes): MachineEmitter => arithmetic(l, (d, s) => simd(l, 234)(s, d));
export const maxf = (l: Lanes): MachineEmitter => arithmetic(l, (d, s) => simd(l, 235)(s, d));
const unary = (opcode: number, a: V128): V128 => v128.unary(opcode)(a);
export const sqrtf = (l: Lanes): MachineEmitter => arithmetic(l, (_d, s) => unary(l.bytes === 4 ? 227 : 239, s));

/** CMPPS and kin: eight predicates in the immediate. */
export const cmpf =
  (l: Lanes): MachineEmitter =>
  (c) => {
    const { f } = c;
    requireVector(c, 16);
    const src = f.i32(sourceAddress(c, l.scalar ? l.bytes : 16));
    const by = (opcode: number): Binary => v128.binary(l.bytes === 4 ? opcode : opcode + 6);
    const not = (a: V128): V128 => unary(77, a);
    const unordered: Binary = (d, s) => v128.binary(80)(by(66)(d, d), by(66)(s, s));
    const predicates: Binary[] = [by(65), by(67), by(69), unordered];
    const both = [
      ...predicates,
      ...predicates.map(
        (p): Binary =>
          (d, s) =>
            not(p(d, s)),
      ),
    ];
    const apply = (p: Binary) => (): void => {
      const dst = v128.load(c.vector(0));
      c.do(v128.store(c.vector(0), 0, merge(l, p(dst, loadLanes(l, src.get)), dst)));
    };
    f.switch(i32.and(i32.wrap(c.immediate()), i32.const(7)), both.slice(0, 7).map(apply), apply(both[7]!));
  };

// Scalars as WebAssembly's f32 and f64; an expression of either is plain code here.
const loadFloat = (bytes: number, at: I32): Code => [at, bytes === 4 ? 0x2a : 0x2b, 0, 0];
const storeFloat = (bytes: number, at: I32, value: Code): Code => [at, value, bytes === 4 ? 0x38 : 0x39, 0, 0];
const compare = (bytes: number, a: Code, b: Code, f32Opcode: number): I32 => [
  a,
  b,
  bytes === 4 ? f32Opcode : f32Opcode + 6,
];

/** UCOMISx and COMISx: unordered sets ZF PF CF, less CF, equal ZF. */
export const comis =
  (bytes: 4 | 8): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = c.f.i32(sourceAddress(c, bytes));
    const [a, b] = [loadFloat(bytes, c.vector(0)), loadFloat(bytes, src.get)];
    const unordered = i32.or(compare(bytes, a, a, 0x5c), compare(bytes, b, b, 0x5c));
    const word = i32.or(
      i32.select(compare(bytes, a, b, 0x5d), i32.const(RFLAGS_CF), i32.const(0)),
      i32.select(compare(bytes, a, b, 0x5b), i32.const(RFLAGS_ZF), i32.const(0)),
    );
    c.setStatus(i32.select(unordered, i32.const(RFLAGS_CF | RFLAGS_PF | RFLAGS_ZF), word));
  };

/** CVTSI2SS, CVTSI2SD from a general register or memory of the operand size. */
export const fromInteger =
  (bytes: 4 | 8): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const value = c.read(1);
    c.do(storeFloat(bytes, c.vector(0), [value.get, bytes === 4 ? 0xb4 : 0xb9]));
  };

/** CVTTxx2SI and CVTxx2SI (to nearest): what does not fit gives the lowest integer. */
export const toInteger =
  (bytes: 4 | 8, nearest: boolean): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = sourceAddress(c, bytes);
    const value = loadFloat(bytes, src);
    const wide: Code = bytes === 4 ? [value, 0xbb] : value;
    const rounded: Code = nearest ? [wide, 0x9e] : wide;
    // i64.trunc_sat_f64_s; saturation upwards and NaN are told by a second look.
    const result = c.f.i64([rounded, 0xfc, 6] as I64);
    const lowest = i64.const(c.size === 8 ? -(2 ** 63) : -(2 ** 31));
    const top: Code = [0x44, 0, 0, 0, 0, 0, 0, 0xe0, 0x43];
    const fits = c.size === 8 ? ([wide, top, 0x63] as I32) : i64.eq(result.get, i64.extend32S(result.get));
    const ordered: I32 = [wide, wide, 0x61];
    c.write(0, i64.select(i32.and(fits, ordered), result.get, lowest));
  };

/** CVTSS2SD and CVTSD2SS. */
export const convertScalar =
  (from: 4 | 8): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const value = loadFloat(from, sourceAddress(c, from));
    c.do(storeFloat(12 - from, c.vector(0), [value, from === 4 ? 0xbb : 0xb6]));
  };

/** Conversions of whole vectors by opcode; `bytes` of a memory source. */
const convert =
  (opcode: number, bytes: 8 | 16): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = sourceAddress(c, bytes);
    c.do(v128.store(c.vector(0), 0, unary(opcode, bytes === 8 ? v128.load64Zero(src) : v128.load(src))));
  };
export const cvtdq2ps = convert(250, 16);
export const cvtdq2pd = convert(254, 8);
export const cvtps2pd = convert(95, 8);
export const cvtpd2ps = convert(94, 16);
/** Truncating to int32: lanes out of range become 80000000. */
export const cvttps2dq: MachineEmitter = (c) => {
  requireVector(c, 16);
  const src = c.f.i32(sourceAddress(c, 16));
  for (let lane = 0; lane < 4; lane++) {
    const value = c.f.i64([loadFloat(4, i32.add(src.get, i32.const(lane * 4))), 0xfc, 4] as I64);
    const at = i32.add(src.get, i32.const(lane * 4));
    const ordered = compare(4, loadFloat(4, at), loadFloat(4, at), 0x5b);
    const fits = i32.and(ordered, i64.eq(value.get, i64.extend32S(value.get)));
    c.do(i64.store32(c.vector(0), lane * 4, i64.select(fits, value.get, i64.const(-(2 ** 31)))));
  }
};
