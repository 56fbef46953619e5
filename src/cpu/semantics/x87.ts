/**
 * The x87 instructions that move values: loads, stores, constants, exchange. Registers hold the 80-bit format; there is no arithmetic.
 * The register stack is FPU_REGS in order from ST(0), as FXSAVE stores it, so a push moves all of them.
 */
import { NM_VECTOR } from '../../arch/exceptions.ts';
import { CR0_EM, CR0_MP, CR0_TS } from '../../arch/registers.ts';
import { ACCESS_READ, ACCESS_WRITE, CR0_AT, FPU_CW_AT, FPU_REGS, FPU_SW_AT, FPU_TAG_AT } from '../state.ts';
import { type I32, type I64, i32, i64, loadSigned, memoryCopy, storeSized } from '../wasm/code.ts';
import type { Local64 } from '../wasm/function.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { setState32, setState64, state32, state64 } from './state-access.ts';

const REGISTER = 16;
const TOP_SHIFT = 11;
const TOP_MASK = 7 << TOP_SHIFT;
const SIGN = 0x8000;
const BIAS = 0x3fff;
const EXPONENT = 0x7fff;

/** x87 instructions want neither emulation nor a task switch in between. */
export function requireX87(c: MachineContext): void {
  c.f.if(i32.and(state32(CR0_AT), i32.const(CR0_EM | CR0_TS)), () => c.fault(NM_VECTOR));
}

/** WAIT: a task switch matters only with CR0.MP. */
export const wait: MachineEmitter = (c) => {
  const bits = CR0_MP | CR0_TS;
  c.f.if(i32.eq(i32.and(state32(CR0_AT), i32.const(bits)), i32.const(bits)), () => c.fault(NM_VECTOR));
};

const top = (): I32 => i32.and(i32.shrU(state32(FPU_SW_AT), i32.const(TOP_SHIFT)), i32.const(7));
const setTop = (c: MachineContext, value: I32): void => {
  const rest = i32.and(state32(FPU_SW_AT), i32.const(~TOP_MASK));
  c.do(setState32(FPU_SW_AT, i32.or(rest, i32.shl(i32.and(value, i32.const(7)), i32.const(TOP_SHIFT)))));
};
const tagBit = (): I32 => i32.shl(i32.const(1), top());

/** Pushes a value: its significand, and its sign and exponent. */
function push(c: MachineContext, significand: I64, signExponent: I64): void {
  const low = c.f.i64(significand);
  const high = c.f.i64(signExponent);
  c.do(memoryCopy(i32.const(FPU_REGS + REGISTER), i32.const(FPU_REGS), i32.const(7 * REGISTER)));
  c.do(setState64(FPU_REGS, low.get), setState64(FPU_REGS + 8, high.get));
  setTop(c, i32.sub(top(), i32.const(1)));
  c.do(setState32(FPU_TAG_AT, i32.or(state32(FPU_TAG_AT), tagBit())));
}
function pop(c: MachineContext): void {
  const low = c.f.i64(state64(FPU_REGS));
  const high = c.f.i64(state64(FPU_REGS + 8));
  c.do(memoryCopy(i32.const(FPU_REGS), i32.const(FPU_REGS + REGISTER), i32.const(7 * REGISTER)));
  c.do(setState64(FPU_REGS + 7 * REGISTER, low.get), setState64(FPU_REGS + 7 * REGISTER + 8, high.get));
  c.do(setState32(FPU_TAG_AT, i32.and(state32(FPU_TAG_AT), i32.xor(tagBit(), i32.const(-1)))));
  setTop(c, i32.add(top(), i32.const(1)));
}

/** A 64-bit magnitude with an exponent, normalised so that its top bit is set; zero stays zero. */
function pushNormalised(c: MachineContext, sign: I64, magnitude: Local64, exponent: I64): void {
  const shift = c.f.i64(i64.clz(magnitude.get));
  const word = i64.or(sign, i64.sub(exponent, shift.get));
  push(c, i64.shl(magnitude.get, shift.get), i64.select(i64.eqz(magnitude.get), sign, word));
}

/** FLD of 4 or 8 bytes: exact. */
export const fld =
  (bytes: 4 | 8): MachineEmitter =>
  (c) => {
    const { f } = c;
    requireX87(c);
    const value = f.i64(loadSigned(bytes, c.pointer(bytes, ACCESS_READ).get));
    const [fraction, exponentBits] = bytes === 4 ? [23, 8] : [52, 11];
    const bias = 2 ** (exponentBits - 1) - 1;
    const sign = f.i64(i64.and(i64.shrU(value.get, i64.const(48)), i64.const(SIGN)));
    const exponent = f.i64(i64.and(i64.shrU(value.get, i64.const(fraction)), i64.const(2 ** exponentBits - 1)));
    const significand = f.i64(i64.shl(i64.and(value.get, i64.const(2 ** fraction - 1)), i64.const(63 - fraction)));
    f.if(
      i64.eqz(exponent.get),
      () => pushNormalised(c, sign.get, significand, i64.const(BIAS - bias + 1)),
      () => {
        const special = i64.eq(exponent.get, i64.const(2 ** exponentBits - 1));
        const widened = i64.select(special, i64.const(EXPONENT), i64.add(exponent.get, i64.const(BIAS - bias)));
        push(c, i64.or(significand.get, i64.const(-(2 ** 63))), i64.or(sign.get, widened));
      },
    );
  };
export const fld80: MachineEmitter = (c) => {
  requireX87(c);
  const at = c.pointer(10, ACCESS_READ);
  push(c, i64.load(at.get), i64.load16U(at.get, 8));
};
/** FILD of 2, 4, 8 bytes. */
export const fild =
  (bytes: 2 | 4 | 8): MachineEmitter =>
  (c) => {
    requireX87(c);
    const value = c.f.i64(loadSigned(bytes, c.pointer(bytes, ACCESS_READ).get));
    const negative = i64.ltS(value.get, i64.const(0));
    const magnitude = c.f.i64(i64.select(negative, i64.sub(i64.const(0), value.get), value.get));
    pushNormalised(c, i64.select(negative, i64.const(SIGN), i64.const(0)), magnitude, i64.const(BIAS + 63));
  };
export const fldz: MachineEmitter = (c) => {
  requireX87(c);
  push(c, i64.const(0), i64.const(0));
};
export const fld1: MachineEmitter = (c) => {
  requireX87(c);
  push(c, i64.const(-(2 ** 63)), i64.const(BIAS));
};

/** FST and FSTP of 4 or 8 bytes: rounded to nearest, ties to even. */
export const fst =
  (bytes: 4 | 8, pops: boolean): MachineEmitter =>
  (c) => {
    const { f } = c;
    requireX87(c);
    const [fraction, exponentBits] = bytes === 4 ? [23, 8] : [52, 11];
    const bias = 2 ** (exponentBits - 1) - 1;
    const most = 2 ** exponentBits - 1;
    const word = f.i64(i64.and(state64(FPU_REGS + 8), i64.const(0xffff)));
    const significand = f.i64(state64(FPU_REGS));
    const sign = f.i64(i64.shl(i64.shrU(word.get, i64.const(15)), i64.const(fraction + exponentBits)));
    const wide = f.i64(i64.and(word.get, i64.const(EXPONENT)));
    const exponent = f.i64(i64.sub(wide.get, i64.const(BIAS - bias)));
    // Below the normal range the significand moves right and the exponent field is that of a subnormal.
    const drop = f.i64(i64.const(63 - fraction));
    f.if(i64.leS(exponent.get, i64.const(0)), () => {
      f.do(drop.set(i64.add(drop.get, i64.sub(i64.const(1), exponent.get))), exponent.set(i64.const(1)));
    });
    const kept = f.i64(i64.const(0));
    f.if(i64.leS(drop.get, i64.const(64)), () => {
      const rest = i64.shl(significand.get, i64.sub(i64.const(64), drop.get));
      const half = i64.const(-(2 ** 63));
      // In two steps, because the whole significand may go.
      f.do(kept.set(i64.shrU(i64.shrU(significand.get, i64.sub(drop.get, i64.const(1))), i64.const(1))));
      const odd = i64.and(kept.get, i64.const(1));
      const up = i32.or(i64.gtU(rest, half), i32.and(i64.eq(rest, half), i32.wrap(odd)));
      f.do(kept.set(i64.add(kept.get, i64.extendU(up))));
    });
    // The implicit bit, and a carry out of rounding, add themselves to the exponent field.
    const field = i64.shl(i64.sub(exponent.get, i64.const(1)), i64.const(fraction));
    const value = f.i64(i64.add(field, kept.get));
    f.if(i64.geU(i64.shrU(value.get, i64.const(fraction)), i64.const(most)), () =>
      f.do(value.set(i64.shl(i64.const(most), i64.const(fraction)))),
    );
    f.if(i64.eq(wide.get, i64.const(EXPONENT)), () => {
      const payload = i64.and(i64.shrU(significand.get, i64.const(63 - fraction)), i64.const(2 ** fraction - 1));
      const isNan = i64.ne(i64.shl(significand.get, i64.const(1)), i64.const(0));
      const quiet = i64.select(isNan, i64.const(2 ** (fraction - 1)), i64.const(0));
      f.do(value.set(i64.or(i64.or(payload, quiet), i64.shl(i64.const(most), i64.const(fraction)))));
    });
    const out = i64.or(value.get, sign.get);
    const at = c.pointer(bytes, ACCESS_WRITE);
    c.do(bytes === 4 ? i64.store32(at.get, 0, out) : i64.store(at.get, 0, out));
    c.finish();
    if (pops) pop(c);
  };
export const fstp80: MachineEmitter = (c) => {
  requireX87(c);
  const at = c.pointer(10, ACCESS_WRITE);
  c.do(i64.store(at.get, 0, state64(FPU_REGS)), i64.store16(at.get, 8, state64(FPU_REGS + 8)));
  c.finish();
  pop(c);
};

/** FIST, FISTP of 2, 4, 8 bytes in the rounding mode of the control word, FISTTP towards zero; what does not fit gives the lowest integer. */
export const fist =
  (bytes: 2 | 4 | 8, pops: boolean, truncates = false): MachineEmitter =>
  (c) => {
    const { f } = c;
    requireX87(c);
    const word = f.i64(i64.and(state64(FPU_REGS + 8), i64.const(0xffff)));
    const significand = f.i64(state64(FPU_REGS));
    const negative = f.i32(i32.wrap(i64.shrU(word.get, i64.const(15))));
    const drop = f.i64(i64.sub(i64.const(BIAS + 63), i64.and(word.get, i64.const(EXPONENT))));
    const whole = f.i64(i64.const(0));
    /** What is dropped, as a fraction of 2^64. */
    const rest = f.i64(i64.extendU(i64.ne(significand.get, i64.const(0))));
    const outOfRange = f.i32(i64.ltS(drop.get, i64.const(0)));
    f.if(i64.eqz(drop.get), () => f.do(whole.set(significand.get), rest.set(i64.const(0))));
    f.if(i32.and(i64.gtS(drop.get, i64.const(0)), i64.leS(drop.get, i64.const(64))), () => {
      const less = i64.sub(drop.get, i64.const(1));
      f.do(whole.set(i64.shrU(i64.shrU(significand.get, less), i64.const(1))));
      f.do(rest.set(i64.shl(significand.get, i64.sub(i64.const(64), drop.get))));
    });
    if (!truncates) {
      const half = i64.const(-(2 ** 63));
      const inexact = i64.ne(rest.get, i64.const(0));
      const odd = i32.wrap(i64.and(whole.get, i64.const(1)));
      const up = f.i32();
      f.switch(
        i32.and(i32.shrU(state32(FPU_CW_AT), i32.const(10)), i32.const(3)),
        [
          () => f.do(up.set(i32.or(i64.gtU(rest.get, half), i32.and(i64.eq(rest.get, half), odd)))),
          () => f.do(up.set(i32.and(inexact, negative.get))),
          () => f.do(up.set(i32.and(inexact, i32.eqz(negative.get)))),
        ],
        () => f.do(up.set(i32.const(0))),
      );
      f.do(whole.set(i64.add(whole.get, i64.extendU(up.get))));
    }
    const limit = i64.add(i64.const(-(2 ** 63)), i64.extendU(negative.get));
    const most = i64.sub(
      bytes === 8 ? limit : i64.add(i64.const(2 ** (bytes * 8 - 1)), i64.extendU(negative.get)),
      i64.const(1),
    );
    f.do(outOfRange.set(i32.or(outOfRange.get, i64.gtU(whole.get, most))));
    const value = i64.select(negative.get, i64.sub(i64.const(0), whole.get), whole.get);
    const out = f.i64(i64.select(outOfRange.get, i64.const(-(2 ** (bytes * 8 - 1))), value));
    const at = c.pointer(bytes, ACCESS_WRITE);
    c.do(storeSized(bytes, at.get, 0, out.get));
    c.finish();
    if (pops) pop(c);
  };
