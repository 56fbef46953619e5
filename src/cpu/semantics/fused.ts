/** FMA and F16C: by the assist alone. FMA's emitter is written for 128 bits; see vex.ts. */
import { ASSIST_SSE } from '../floating/assist.ts';
import { ASSIST_A, ASSIST_B, ASSIST_C, ASSIST_RESULT } from '../floating/fpu-memory.ts';
import * as S from '../floating/sse-unit.ts';
import { ACCESS_READ, ACCESS_WRITE, MXCSR_AT, VECTOR_STAGE } from '../state.ts';
import { type I32, i32, i64, v128 } from '../wasm/code.ts';
import type { Lanes } from './floating.ts';
import { mergeLanes } from './floating.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { setState32, state32 } from './state-access.ts';
import { clearUpper, requireAvx, writeStage } from './vex.ts';

const ZERO = i32.const(0);

/** Address of a source of `bytes`. */
const sourceAddress = (c: MachineContext, index: number, bytes: number): I32 =>
  c.isMemory(index) ? c.pointer(bytes, ACCESS_READ).get : c.f.i32(c.vector(index)).get;

/**
 * VFMADD and kin on destination, second and third operand (0, 1, 2): `order` is 132, 213 or 231, the operands that are multiplied and
 * the one that is added; `signs` as SSE_FUSED has them.
 */
export const fused =
  (l: Lanes, order: '132' | '213' | '231', signs: number): MachineEmitter =>
  (c) => {
    const third = sourceAddress(c, 2, l.scalar ? l.bytes : 16);
    const load = (n: number) => {
      if (n !== 3) return v128.load(c.vector(n - 1));
      return l.scalar ? (l.bytes === 4 ? v128.load32Zero(third) : v128.load64Zero(third)) : v128.load(third);
    };
    [ASSIST_A, ASSIST_B, ASSIST_C].forEach((at, n) => {
      c.do(v128.store(ZERO, at, load(Number(order[n]))));
    });
    c.assist(ASSIST_SSE + S.shaped(S.SSE_FUSED, l.bytes, l.scalar), i32.const(signs));
    c.do(v128.store(c.vector(0), 0, mergeLanes(l, v128.load(ZERO, ASSIST_RESULT), v128.load(c.vector(0)))));
  };

const toSingle = ASSIST_SSE + S.shaped(S.SSE_FROM_HALF, 4, false);
/** VCVTPH2PS, four lanes. */
export const fromHalf: MachineEmitter = (c) => {
  c.do(v128.store(ZERO, ASSIST_B, v128.load64Zero(sourceAddress(c, 1, 8))));
  c.assist(toSingle, ZERO);
  c.do(v128.store(c.vector(0), 0, v128.load(ZERO, ASSIST_RESULT)));
};
const toHalf = ASSIST_SSE + S.shaped(S.SSE_TO_HALF, 4, false);
/** VCVTPS2PH, of four lanes. */
export const toHalves: MachineEmitter = (c) => {
  c.do(v128.store(ZERO, ASSIST_B, v128.load(c.vector(1))));
  c.assist(toHalf, i32.wrap(c.immediate()));
  c.do(v128.store(c.vector(0), 0, v128.load(ZERO, ASSIST_RESULT)));
};
/** What follows VCVTPS2PH: the halves are in VECTOR_STAGE and go to a register or to memory, `bytes` of them. */
export const storeHalves =
  (convert: MachineEmitter, bytes: 8 | 16): MachineEmitter =>
  (c) => {
    requireAvx(c);
    if (!c.isMemory(0)) {
      convert(c);
      writeStage(c, 0, 16);
      clearUpper(c, 0);
      return;
    }
    // An unmasked exception of the conversion comes before a fault of the store, and that before the flags of masked ones.
    const before = c.f.i32(state32(MXCSR_AT));
    convert(c);
    const after = c.f.i32(state32(MXCSR_AT));
    c.do(setState32(MXCSR_AT, before.get));
    const to = c.pointer(bytes, ACCESS_WRITE);
    c.do(setState32(MXCSR_AT, after.get));
    for (let at = 0; at < bytes; at += 8) c.do(i64.store(to.get, at, i64.load(ZERO, VECTOR_STAGE + at)));
    c.finish();
  };
