/**
 * SSE floating point. What is certain to deliver a normal result and to change no flag of MXCSR is done by WebAssembly; everything
 * else (an operand that is a NaN, infinite or denormal, another rounding mode, a flag not yet set) by src/cpu/floating/sse-unit.ts.
 */
import { RFLAGS_CF, RFLAGS_ZF } from '../../arch/registers.ts';
import { ASSIST_SSE } from '../floating/assist.ts';
import { ASSIST_A, ASSIST_B, ASSIST_RESULT } from '../floating/fpu-memory.ts';
import * as S from '../floating/sse-unit.ts';
import { ACCESS_READ, MXCSR_AT } from '../state.ts';
import { type Code, type I32, type I64, i32, i64, type V128, v128 } from '../wasm/code.ts';
import type { Local32 } from '../wasm/function.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { setState32, state32, state64 } from './state-access.ts';
import { enterMmx, markMmx, requireNothingPending, requireVector } from './vector.ts';

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
const ZERO = i32.const(0);

/** Address of the second operand. */
function sourceAddress(c: MachineContext, bytes: number, index = 1): Local32 {
  if (!c.isMemory(index)) return c.f.i32(c.vector(index));
  if (bytes === 16) c.requireAligned(16);
  return c.pointer(bytes, ACCESS_READ);
}
const loadBytes = (bytes: number, at: I32): V128 =>
  bytes === 16 ? v128.load(at) : bytes === 4 ? v128.load32Zero(at) : v128.load64Zero(at);
const loadLanes = (lanes: Lanes, at: I32): V128 => loadBytes(lanes.scalar ? lanes.bytes : 16, at);
/** Keeps what a scalar instruction does not touch. */
export const mergeLanes = (lanes: Lanes, result: V128, dst: V128): V128 =>
  lanes.scalar
    ? v128.shuffle(
        result,
        dst,
        Array.from({ length: 16 }, (_, i) => (i < lanes.bytes ? i : 16 + i)),
      )
    : result;

// Certainty.

const ROUNDING_AND_INEXACT = 0x6000 | 0x1000 | 0x20;
/** Rounding to nearest, and inexactness is neither news nor an exception. */
const ordinary = (): I32 =>
  i32.eq(i32.and(state32(MXCSR_AT), i32.const(ROUNDING_AND_INEXACT)), i32.const(0x1000 | 0x20));
const laneBits = (bytes: number, at: I32, lane: number): I64 =>
  bytes === 4 ? i64.load32U(at, lane * 4) : i64.load(at, lane * 8);
const exponent = (bytes: number, bits: I64): I64 =>
  bytes === 4
    ? i64.and(i64.shrU(bits, i64.const(23)), i64.const(0xff))
    : i64.and(i64.shrU(bits, i64.const(52)), i64.const(0x7ff));
/** Zero or normal. */
const plain = (bytes: number, bits: I64): I32 =>
  i32.or(
    i64.ltU(i64.sub(exponent(bytes, bits), i64.const(1)), i64.const(bytes === 4 ? 0xfe : 0x7fe)),
    i64.eqz(i64.shl(bits, i64.const(bytes === 4 ? 33 : 1))),
  );
/** Normal, and so far above the smallest that it was not rounded up to it; or zero where that is exact. */
const settled = (bytes: number, bits: I64, zeroIsExact: boolean): I32 => {
  const far = i64.ltU(i64.sub(exponent(bytes, bits), i64.const(2)), i64.const(bytes === 4 ? 0xfd : 0x7fd));
  return zeroIsExact ? i32.or(far, i64.eqz(i64.shl(bits, i64.const(bytes === 4 ? 33 : 1)))) : far;
};
/** `test` on each lane of `lanes` at `at`. */
function everyLane(c: MachineContext, lanes: Lanes, at: I32, test: (bits: I64) => I32): I32 {
  const count = lanes.scalar ? 1 : 16 / lanes.bytes;
  const tests = Array.from({ length: count }, (_, n) => {
    const bits = c.f.i64(laneBits(lanes.bytes, at, n));
    return c.f.i32(test(bits.get)).get;
  });
  return tests.reduce((a, b) => i32.and(a, b));
}

/** Has TypeScript do `operation`; operands are the first vector register and `src`. */
function slow(c: MachineContext, operation: number, argument: I32, src: V128, dst?: V128): void {
  if (dst !== undefined) c.do(v128.store(ZERO, ASSIST_A, dst));
  c.do(v128.store(ZERO, ASSIST_B, src));
  c.assist(ASSIST_SSE + operation, argument);
}
const result = (): V128 => v128.load(ZERO, ASSIST_RESULT);

interface Arithmetic {
  readonly op: Binary;
  readonly code: number;
  /** Whether the second operand alone is looked at, and must not be negative. */
  readonly unary?: boolean;
  readonly zeroIsExact?: boolean;
}
const arithmetic =
  (l: Lanes, { op, code, unary = false, zeroIsExact = false }: Arithmetic): MachineEmitter =>
  (c) => {
    const { f } = c;
    requireVector(c, 16);
    const src = sourceAddress(c, l.scalar ? l.bytes : 16);
    const certain = f.i32(ordinary());
    f.if(certain.get, () => {
      f.do(v128.store(ZERO, ASSIST_RESULT, op(v128.load(c.vector(0)), loadLanes(l, src.get))));
      const test = (bits: I64): I32 => plain(l.bytes, bits);
      const operands = everyLane(c, l, src.get, test);
      const both = unary ? operands : i32.and(operands, everyLane(c, l, c.vector(0), test));
      const results = everyLane(c, l, i32.const(ASSIST_RESULT), (bits) => settled(l.bytes, bits, zeroIsExact));
      f.do(certain.set(i32.and(both, results)));
    });
    f.if(i32.eqz(certain.get), () =>
      slow(c, S.shaped(code, l.bytes, l.scalar), ZERO, loadLanes(l, src.get), v128.load(c.vector(0))),
    );
    c.do(v128.store(c.vector(0), 0, mergeLanes(l, result(), v128.load(c.vector(0)))));
  };
/** By the opcode of the f32x4 operation; f64x2 ones are 12 higher. */
const simd = (l: Lanes, opcode: number): Binary => v128.binary(l.bytes === 4 ? opcode : opcode + 12);
export const addf = (l: Lanes): MachineEmitter =>
  arithmetic(l, { op: simd(l, 228), code: S.SSE_ADD, zeroIsExact: true });
export const subf = (l: Lanes): MachineEmitter =>
  arithmetic(l, { op: simd(l, 229), code: S.SSE_SUB, zeroIsExact: true });
export const mulf = (l: Lanes): MachineEmitter => arithmetic(l, { op: simd(l, 230), code: S.SSE_MUL });
export const divf = (l: Lanes): MachineEmitter => arithmetic(l, { op: simd(l, 231), code: S.SSE_DIV });
const unary = (opcode: number, a: V128): V128 => v128.unary(opcode)(a);
/** A negative operand shows as a NaN. */
export const sqrtf = (l: Lanes): MachineEmitter =>
  arithmetic(l, { op: (_d, s) => unary(l.bytes === 4 ? 227 : 239, s), code: S.SSE_SQRT, unary: true });

/** With plain operands nothing can be flagged: `fast`; else the assist. Both leave the result in ASSIST_RESULT. */
const comparing = (c: MachineContext, l: Lanes, code: number, argument: I32, src: I32, fast: () => void): void => {
  const test = (bits: I64): I32 => plain(l.bytes, bits);
  const certain = c.f.i32(i32.and(everyLane(c, l, src, test), everyLane(c, l, c.vector(0), test)));
  c.f.if(certain.get, fast, () =>
    slow(c, S.shaped(code, l.bytes, l.scalar), argument, loadLanes(l, src), v128.load(c.vector(0))),
  );
};
/** The second operand when the two are equal or unordered: WebAssembly's pmin and pmax with the operands exchanged. */
const extreme =
  (l: Lanes, opcode: number, code: number): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = sourceAddress(c, l.scalar ? l.bytes : 16);
    comparing(c, l, code, ZERO, src.get, () =>
      c.do(v128.store(ZERO, ASSIST_RESULT, simd(l, opcode)(loadLanes(l, src.get), v128.load(c.vector(0))))),
    );
    c.do(v128.store(c.vector(0), 0, mergeLanes(l, result(), v128.load(c.vector(0)))));
  };
export const minf = (l: Lanes): MachineEmitter => extreme(l, 234, S.SSE_MIN);
export const maxf = (l: Lanes): MachineEmitter => extreme(l, 235, S.SSE_MAX);

/** CMPPS and kin: eight predicates in the immediate, 32 with VEX. */
export const cmpf =
  (l: Lanes): MachineEmitter =>
  (c) => {
    const { f } = c;
    requireVector(c, 16);
    const src = sourceAddress(c, l.scalar ? l.bytes : 16);
    const by = (opcode: number): Binary => v128.binary(l.bytes === 4 ? opcode : opcode + 6);
    const not = (a: V128): V128 => unary(77, a);
    // Of plain operands none is unordered.
    const predicates: Binary[] = [by(65), by(67), by(69), () => v128.zero()];
    const both = [
      ...predicates,
      ...predicates.map(
        (p): Binary =>
          (d, s) =>
            not(p(d, s)),
      ),
    ];
    // VEX's further predicates differ in what they make of unordered operands.
    const predicate = i32.and(i32.wrap(c.immediate()), i32.const(7));
    const all = i32.and(i32.wrap(c.immediate()), i32.const(c.isVex ? 31 : 7));
    comparing(c, l, S.SSE_COMPARE, all, src.get, () => {
      const apply = (p: Binary) => (): void =>
        c.do(v128.store(ZERO, ASSIST_RESULT, p(v128.load(c.vector(0)), loadLanes(l, src.get))));
      f.switch(predicate, both.slice(0, 7).map(apply), apply(both[7]!));
    });
    c.do(v128.store(c.vector(0), 0, mergeLanes(l, result(), v128.load(c.vector(0)))));
  };

// Scalars as WebAssembly's f32 and f64; an expression of either is plain code here.
const loadFloat = (bytes: number, at: I32): Code => [at, bytes === 4 ? 0x2a : 0x2b, 0, 0];
const storeFloat = (bytes: number, at: I32, value: Code): Code => [at, value, bytes === 4 ? 0x38 : 0x39, 0, 0];
const compare = (bytes: number, a: Code, b: Code, f32Opcode: number): I32 => [
  a,
  b,
  bytes === 4 ? f32Opcode : f32Opcode + 6,
];

/** UCOMISx and COMISx: unordered sets ZF PF CF, less CF, equal ZF. A quiet NaN is an exception of COMISx. */
export const comis =
  (bytes: 4 | 8, signals: boolean): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = sourceAddress(c, bytes);
    const l = bytes === 4 ? SS : SD;
    comparing(c, l, signals ? S.SSE_COMI : S.SSE_UCOMI, ZERO, src.get, () => {
      const [a, b] = [loadFloat(bytes, c.vector(0)), loadFloat(bytes, src.get)];
      const less = i32.select(compare(bytes, a, b, 0x5d), i32.const(RFLAGS_CF), ZERO);
      const equal = i32.select(compare(bytes, a, b, 0x5b), i32.const(RFLAGS_ZF), ZERO);
      c.do(setState32(ASSIST_RESULT, i32.or(less, equal)));
    });
    c.setStatus(state32(ASSIST_RESULT));
  };

/** CVTSI2SS, CVTSI2SD from a general register or memory of the operand size. */
export const fromInteger =
  (bytes: 4 | 8): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const value = c.read(1);
    const fast = (): void => c.do(storeFloat(bytes, c.vector(0), [value.get, bytes === 4 ? 0xb4 : 0xb9]));
    if (bytes === 8 && c.size === 4) {
      fast();
      return;
    }
    c.f.if(ordinary(), fast, () => {
      c.do(i64.store(ZERO, ASSIST_B, value.get));
      c.assist(ASSIST_SSE + S.shaped(S.SSE_FROM_INT64, bytes, true), i32.const(1));
      const store = bytes === 4 ? i64.store32 : i64.store;
      c.do(store(c.vector(0), 0, state64(ASSIST_RESULT)));
    });
  };

/** CVTTxx2SI and, with `rounds`, CVTxx2SI: what does not fit gives the lowest integer. */
export const toInteger =
  (bytes: 4 | 8, rounds: boolean): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = sourceAddress(c, bytes);
    const value = loadFloat(bytes, src.get);
    const wide: Code = bytes === 4 ? [value, 0xbb] : value;
    const rounded: Code = rounds ? [wide, 0x9e] : wide;
    // i64.trunc_sat_f64_s: what saturates, and NaN, is left to the assist.
    const out = c.f.i64([rounded, 0xfc, 6] as I64);
    const fits =
      c.size === 8
        ? i64.ltU(exponent(bytes, laneBits(bytes, src.get, 0)), i64.const(bytes === 4 ? 127 + 62 : 1023 + 62))
        : i64.eq(out.get, i64.extend32S(out.get));
    const operand = plain(bytes, laneBits(bytes, src.get, 0));
    c.f.if(i32.eqz(i32.and(i32.and(fits, operand), ordinary())), () => {
      const code = c.size === 8 ? S.SSE_TO_INT64 : S.SSE_TO_INT32;
      slow(c, S.shaped(code, bytes, true), i32.const(rounds ? 1 : 17), loadBytes(bytes, src.get));
      c.do(out.set(c.size === 8 ? state64(ASSIST_RESULT) : i64.extend32S(state64(ASSIST_RESULT))));
    });
    c.write(0, out.get);
  };

/** CVTSS2SD and CVTSD2SS. */
export const convertScalar =
  (from: 4 | 8): MachineEmitter =>
  (c) => {
    const { f } = c;
    requireVector(c, 16);
    const src = sourceAddress(c, from);
    const to = 12 - from;
    c.do(storeFloat(to, i32.const(ASSIST_RESULT), [loadFloat(from, src.get), from === 4 ? 0xbb : 0xb6]));
    const operand = plain(from, laneBits(from, src.get, 0));
    const certain =
      from === 4
        ? operand
        : i32.and(i32.and(operand, ordinary()), settled(to, laneBits(to, i32.const(ASSIST_RESULT), 0), false));
    f.if(i32.eqz(certain), () => slow(c, S.shaped(S.SSE_TO_OTHER, from, true), i32.const(1), loadBytes(from, src.get)));
    const store = to === 4 ? i64.store32 : i64.store;
    c.do(store(c.vector(0), 0, state64(ASSIST_RESULT)));
  };

/** Conversions of whole vectors, by the assist: `lanes` of them, from the format of `bytes`; a memory source has `size` bytes. */
const convert =
  (operation: number, bytes: 4 | 8, lanes: number, size: 8 | 16, truncates = false): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = sourceAddress(c, size);
    const argument = i32.const(lanes | (truncates ? 16 : 0));
    slow(c, S.shaped(operation, bytes, false), argument, loadBytes(size, src.get));
    c.do(v128.store(c.vector(0), 0, result()));
  };
export const cvtdq2ps: MachineEmitter = (c) => {
  requireVector(c, 16);
  const src = sourceAddress(c, 16);
  c.f.if(
    ordinary(),
    () => c.do(v128.store(c.vector(0), 0, unary(250, v128.load(src.get)))),
    () => {
      slow(c, S.shaped(S.SSE_FROM_INT32, 4, false), i32.const(4), v128.load(src.get));
      c.do(v128.store(c.vector(0), 0, result()));
    },
  );
};
/** Always exact. */
export const cvtdq2pd: MachineEmitter = (c) => {
  requireVector(c, 16);
  const src = sourceAddress(c, 8);
  c.do(v128.store(c.vector(0), 0, unary(254, v128.load64Zero(src.get))));
};
export const cvtps2pd = convert(S.SSE_TO_OTHER, 4, 2, 8);
export const cvtpd2ps = convert(S.SSE_TO_OTHER, 8, 2, 16);
export const cvtps2dq = convert(S.SSE_TO_INT32, 4, 4, 16);
export const cvttps2dq = convert(S.SSE_TO_INT32, 4, 4, 16, true);
export const cvtpd2dq = convert(S.SSE_TO_INT32, 8, 2, 16);
export const cvttpd2dq = convert(S.SSE_TO_INT32, 8, 2, 16, true);

/** CVTPI2PS, CVTPI2PD: two 32-bit integers from an MMX register; a memory operand leaves the x87 state alone. */
export const fromMmx =
  (bytes: 4 | 8): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    if (!c.isMemory(1)) {
      enterMmx(c);
      markMmx(c, 8);
    }
    const src = sourceAddress(c, 8);
    slow(c, S.shaped(S.SSE_FROM_INT32, bytes, false), i32.const(2), v128.load64Zero(src.get));
    if (bytes === 8) c.do(v128.store(c.vector(0), 0, result()));
    else c.do(i64.store(c.vector(0), 0, state64(ASSIST_RESULT)));
  };
/** CVTPS2PI, CVTPD2PI and the truncating ones. As on processors, the x87 state changes even when a floating-point exception follows. */
export const toMmx =
  (bytes: 4 | 8, truncates: boolean): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    requireNothingPending(c);
    const src = sourceAddress(c, bytes === 4 ? 8 : 16);
    enterMmx(c);
    markMmx(c, 8);
    const argument = i32.const(2 | (truncates ? 16 : 0));
    slow(c, S.shaped(S.SSE_TO_INT32, bytes, false), argument, loadBytes(bytes === 4 ? 8 : 16, src.get));
    c.do(i64.store(c.vector(0), 0, state64(ASSIST_RESULT)), i32.store16(c.vector(0), 8, i32.const(0xffff)));
  };

/** By the assist alone, with the immediate when there is one. */
const assisted =
  (l: Lanes, code: number, immediate = false): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = sourceAddress(c, l.scalar ? l.bytes : 16);
    const argument = immediate ? i32.wrap(c.immediate()) : ZERO;
    slow(c, S.shaped(code, l.bytes, l.scalar), argument, loadLanes(l, src.get), v128.load(c.vector(0)));
    c.do(v128.store(c.vector(0), 0, mergeLanes(l, result(), v128.load(c.vector(0)))));
  };
export const roundf = (l: Lanes): MachineEmitter => assisted(l, S.SSE_ROUND, true);
export const dotf = (l: Lanes): MachineEmitter => assisted(l, S.SSE_DOT, true);
export const rcpf = (l: Lanes): MachineEmitter => assisted(l, S.SSE_RECIPROCAL);
export const rsqrtf = (l: Lanes): MachineEmitter => assisted(l, S.SSE_RECIPROCAL_ROOT);
export const addsubf = (l: Lanes): MachineEmitter => assisted(l, S.SSE_ADD_SUBTRACT);
export const haddf = (l: Lanes): MachineEmitter => assisted(l, S.SSE_HORIZONTAL_ADD);
export const hsubf = (l: Lanes): MachineEmitter => assisted(l, S.SSE_HORIZONTAL_SUBTRACT);
