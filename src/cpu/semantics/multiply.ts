/** Multiplication and division, and the conversions that prepare a dividend. */
import { DE_VECTOR } from '../../arch/exceptions.ts';
import { RAX, RDX } from '../../arch/registers.ts';
import { type I32, type I64, i32, i64, signExtend } from '../wasm/code.ts';
import type { Local64 } from '../wasm/function.ts';
import type { Context, ValueEmitter } from './context.ts';
import { FL_RESULT } from './flags.ts';

const C0 = i64.const(0);
const C32 = i64.const(32);
const LOW = i64.const(0xffffffff);

/** The upper 64 bits of an unsigned 64 by 64 bit product. */
function multiplyHigh(c: Context, a: I64, b: I64): Local64 {
  const f = c.f;
  const aLow = f.i64(i64.and(a, LOW));
  const aHigh = f.i64(i64.shrU(a, C32));
  const bLow = f.i64(i64.and(b, LOW));
  const bHigh = f.i64(i64.shrU(b, C32));
  const carry = i64.shrU(i64.mul(aLow.get, bLow.get), C32);
  const middle = f.i64(i64.add(i64.mul(aHigh.get, bLow.get), carry));
  const other = f.i64(i64.add(i64.mul(aLow.get, bHigh.get), i64.and(middle.get, LOW)));
  return f.i64(i64.add(i64.add(i64.mul(aHigh.get, bHigh.get), i64.shrU(middle.get, C32)), i64.shrU(other.get, C32)));
}

/** The upper 64 bits of a signed product. */
function multiplyHighSigned(c: Context, a: I64, b: I64): Local64 {
  const high = multiplyHigh(c, a, b);
  const signMask = (x: I64): I64 => i64.shrS(x, i64.const(63));
  c.do(high.set(i64.sub(i64.sub(high.get, i64.and(signMask(a), b)), i64.and(signMask(b), a))));
  return high;
}

const overflowBits = (overflow: I32): I64 => i64.extendU(i32.mul(overflow, i32.const((1 << 11) | 1)));

/** Writes a double-width product: AX, or rDX:rAX. */
function writeProduct(c: Context, low: I64, high: I64): void {
  if (c.size === 1) {
    c.setGpr(RAX, 2, low);
    return;
  }
  c.setGpr(RAX, c.size, low);
  c.setGpr(RDX, c.size, high);
}

export const mul: ValueEmitter = (c) => {
  const src = c.readUnsigned(0);
  const a = c.f.i64(c.gpr(RAX, c.size));
  const low = c.f.i64(i64.mul(a.get, src.get));
  const high = c.size === 8 ? multiplyHigh(c, a.get, src.get) : c.f.i64(i64.shrU(low.get, i64.const(c.size * 8)));
  writeProduct(c, low.get, high.get);
  c.setFlags(FL_RESULT, c.sized(low.get), undefined, overflowBits(i64.ne(high.get, C0)));
};

/** Whether a product needs more than `size` bytes with its sign. */
const doesNotFit = (c: Context, low: Local64, high: Local64 | undefined): I32 =>
  high === undefined ? i64.ne(low.get, c.sized(low.get)) : i64.ne(high.get, i64.shrS(low.get, i64.const(63)));

export const imul: ValueEmitter = (c) => {
  const src = c.read(0);
  const a = c.f.i64(c.gprSigned(RAX, c.size));
  const low = c.f.i64(i64.mul(a.get, src.get));
  const high = c.size === 8 ? multiplyHighSigned(c, a.get, src.get) : undefined;
  writeProduct(c, low.get, high === undefined ? i64.shrS(low.get, i64.const(c.size * 8)) : high.get);
  c.setFlags(FL_RESULT, c.sized(low.get), undefined, overflowBits(doesNotFit(c, low, high)));
};

/** IMUL with two and three operands: first operand <- product of the last two. */
const imulTruncated =
  (left: number, right: number): ValueEmitter =>
  (c) => {
    const a = c.read(left);
    const b = c.read(right);
    const low = c.f.i64(i64.mul(a.get, b.get));
    const high = c.size === 8 ? multiplyHighSigned(c, a.get, b.get) : undefined;
    c.write(0, low.get);
    c.setFlags(FL_RESULT, c.sized(low.get), undefined, overflowBits(doesNotFit(c, low, high)));
  };
export const imul2 = imulTruncated(0, 1);
export const imul3 = imulTruncated(1, 2);

/** BMI2 MULX: unsigned, no flags; the high half wins when both destinations are one register. */
export const mulx: ValueEmitter = (c) => {
  const src = c.readUnsigned(2);
  const d = c.f.i64(c.gpr(RDX, c.size));
  const low = c.f.i64(i64.mul(d.get, src.get));
  const high = c.size === 8 ? multiplyHigh(c, d.get, src.get) : c.f.i64(i64.shrU(low.get, C32));
  c.write(1, low.get);
  c.write(0, high.get);
};

/** Stores quotient and remainder where division leaves them. */
function writeQuotient(c: Context, quotient: I64, remainder: I64): void {
  c.setGpr(RAX, c.size, quotient);
  if (c.size === 1) c.setAh(remainder);
  else c.setGpr(RDX, c.size, remainder);
}

/** The double-width dividend of sizes 1, 2 and 4, as 64 bits. */
const dividend = (c: Context): I64 =>
  c.size === 1 ? c.gpr(RAX, 2) : i64.or(i64.shl(c.gpr(RDX, c.size), i64.const(c.size * 8)), c.gpr(RAX, c.size));

/**
 * Divides the unsigned 128-bit `high`:`low` by `divisor`, where high < divisor: bit by bit, remainder in `high`, quotient in `low`.
 */
function divideWide(c: Context, high: Local64, low: Local64, divisor: Local64): void {
  const f = c.f;
  f.if(
    i64.eqz(high.get),
    () => {
      f.do(high.set(i64.remU(low.get, divisor.get)), low.set(i64.divU(low.get, divisor.get)));
    },
    () => {
      const steps = f.i32(i32.const(64));
      const out = f.i64();
      f.loop((again) => {
        f.do(out.set(i64.shrU(high.get, i64.const(63))));
        f.do(high.set(i64.or(i64.shl(high.get, i64.const(1)), i64.shrU(low.get, i64.const(63)))));
        f.do(low.set(i64.shl(low.get, i64.const(1))));
        f.if(i32.or(i64.ne(out.get, C0), i64.geU(high.get, divisor.get)), () => {
          f.do(high.set(i64.sub(high.get, divisor.get)), low.set(i64.or(low.get, i64.const(1))));
        });
        f.brIf(again, steps.tee(i32.sub(steps.get, i32.const(1))));
      });
    },
  );
}

export const div: ValueEmitter = (c) => {
  const f = c.f;
  const src = c.readUnsigned(0);
  f.if(i64.eqz(src.get), () => c.fault(DE_VECTOR));
  if (c.size === 8) {
    const high = f.i64(c.gpr(RDX, 8));
    const low = f.i64(c.gpr(RAX, 8));
    f.if(i64.geU(high.get, src.get), () => c.fault(DE_VECTOR));
    divideWide(c, high, low, src);
    writeQuotient(c, low.get, high.get);
    return;
  }
  const all = f.i64(dividend(c));
  const quotient = f.i64(i64.divU(all.get, src.get));
  f.if(i64.ne(quotient.get, c.unsized(quotient.get)), () => c.fault(DE_VECTOR));
  writeQuotient(c, quotient.get, i64.remU(all.get, src.get));
};

export const idiv: ValueEmitter = (c) => {
  const f = c.f;
  const src = c.read(0);
  f.if(i64.eqz(src.get), () => c.fault(DE_VECTOR));
  if (c.size !== 8) {
    const all = f.i64(c.size === 4 ? dividend(c) : signExtend(c.size * 2, dividend(c)));
    const lowest = i64.const(-(2 ** 63));
    // The one division that WebAssembly traps on besides zero.
    f.if(i32.and(i64.eq(src.get, i64.const(-1)), i64.eq(all.get, lowest)), () => c.fault(DE_VECTOR));
    const quotient = f.i64(i64.divS(all.get, src.get));
    f.if(i64.ne(quotient.get, c.sized(quotient.get)), () => c.fault(DE_VECTOR));
    writeQuotient(c, quotient.get, i64.remS(all.get, src.get));
    return;
  }
  const high = f.i64(c.gpr(RDX, 8));
  const low = f.i64(c.gpr(RAX, 8));
  const negative = f.i64(i64.shrS(high.get, i64.const(63)));
  const quotientNegative = f.i64(i64.xor(negative.get, i64.shrS(src.get, i64.const(63))));
  f.if(i64.ne(negative.get, C0), () => {
    f.do(high.set(i64.not(high.get)), low.set(i64.sub(C0, low.get)));
    f.do(high.set(i64.add(high.get, i64.extendU(i64.eqz(low.get)))));
  });
  const divisor = f.i64(i64.select(i64.ltS(src.get, C0), i64.sub(C0, src.get), src.get));
  f.if(i64.geU(high.get, divisor.get), () => c.fault(DE_VECTOR));
  divideWide(c, high, low, divisor);
  // Apply the sign, then see whether it stuck.
  const quotient = f.i64(i64.sub(i64.xor(low.get, quotientNegative.get), quotientNegative.get));
  const wrongSign = i64.ltS(i64.xor(quotient.get, quotientNegative.get), C0);
  f.if(i32.and(i64.ne(low.get, C0), wrongSign), () => c.fault(DE_VECTOR));
  writeQuotient(c, quotient.get, i64.sub(i64.xor(high.get, negative.get), negative.get));
};

/** CBW, CWDE, CDQE: the lower half of the accumulator, sign-extended into all of it. */
export const extendAccumulator: ValueEmitter = (c) => {
  c.setGpr(RAX, c.size, c.gprSigned(RAX, c.size >> 1));
};
/** CWD, CDQ, CQO: the accumulator's sign into rDX. */
export const signIntoDx: ValueEmitter = (c) => {
  c.setGpr(RDX, c.size, i64.shrS(c.gprSigned(RAX, c.size), i64.const(63)));
};
