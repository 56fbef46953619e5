/** Shifts and rotates (@sdm vol. 2 SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD). A masked count of zero changes no flag. */
import { RFLAGS_CF, RFLAGS_OF } from '../../arch/registers.ts';
import { type I32, type I64, i32, i64 } from '../wasm/code.ts';
import type { Local64 } from '../wasm/function.ts';
import type { Context, ValueEmitter } from './context.ts';
import { FL_RESULT } from './flags.ts';

/** Operand `index` as a count, masked as for `size`. */
const countOf = (c: Context, index: number): Local64 =>
  c.f.i64(i64.and(c.readUnsigned(index).get, i64.const(c.size === 8 ? 63 : 31)));

/** Runs `body` where the count is not zero. */
function whenCounted(c: Context, count: I64, index: number, body: () => void): void {
  const fixed = c.constant(index);
  if (fixed === undefined) c.f.if(i64.ne(count, i64.const(0)), body);
  else if ((fixed & (c.size === 8 ? 63 : 31)) !== 0) body();
}

const bit = (value: I64, position: I64): I64 => i64.and(i64.shrU(value, position), i64.const(1));
/** CF and OF as FLAGS_SRC of FL_RESULT. */
const carryOverflow = (carry: I64, overflow: I64): I64 => i64.or(carry, i64.shl(overflow, i64.const(11)));

/** SHL, SHR, SAR: `last` is the value shifted by one less, whose outgoing bit is CF. */
const shift =
  (
    read: 'signed' | 'unsigned',
    by: (value: I64, count: I64) => I64,
    out: (c: Context, last: I64) => I64,
  ): ValueEmitter =>
  (c) => {
    const count = countOf(c, 1);
    const signed = c.update(0);
    const dst = read === 'signed' ? signed : c.f.i64(c.unsized(signed.get));
    const last = c.f.i64(by(dst.get, i64.sub(count.get, i64.const(1))));
    const res = c.f.i64(c.sized(by(dst.get, count.get)));
    c.write(0, res.get);
    whenCounted(c, count.get, 1, () => {
      const overflow = i64.shrU(i64.xor(c.sized(last.get), res.get), i64.const(63));
      c.setFlags(FL_RESULT, res.get, undefined, carryOverflow(out(c, last.get), overflow));
    });
  };
export const shl = shift('unsigned', i64.shl, (c, last) => bit(last, i64.const(c.size * 8 - 1)));
export const shr = shift('unsigned', i64.shrU, (_c, last) => i64.and(last, i64.const(1)));
export const sar = shift('signed', i64.shrS, (_c, last) => i64.and(last, i64.const(1)));

const setCarryOverflow = (c: Context, carry: I64, overflow: I64): void => {
  const word = i32.wrap(carryOverflow(carry, overflow));
  c.setStatus(i32.or(i32.and(c.status(), i32.const(~(RFLAGS_CF | RFLAGS_OF))), word));
};

/** ROL and ROR of `width` bits by `turn` (already modulo width), on a zero-extended value. */
function rotateLeft(c: Context, value: I64, turn: I64): I64 {
  const width = c.size * 8;
  if (width === 64) return i64.rotl(value, turn);
  return c.unsized(i64.or(i64.shl(value, turn), i64.shrU(value, i64.sub(i64.const(width), turn))));
}

export const rol: ValueEmitter = (c) => {
  const width = c.size * 8;
  const count = countOf(c, 1);
  const dst = c.update(0);
  const turn = i64.and(count.get, i64.const(width - 1));
  const res = c.f.i64(rotateLeft(c, c.unsized(dst.get), turn));
  c.write(0, res.get);
  whenCounted(c, count.get, 1, () => {
    const carry = i64.and(res.get, i64.const(1));
    setCarryOverflow(c, carry, i64.xor(carry, bit(res.get, i64.const(width - 1))));
  });
};

export const ror: ValueEmitter = (c) => {
  const width = c.size * 8;
  const count = countOf(c, 1);
  const dst = c.update(0);
  const turn = i64.and(i64.sub(i64.const(0), count.get), i64.const(width - 1));
  const res = c.f.i64(rotateLeft(c, c.unsized(dst.get), turn));
  c.write(0, res.get);
  whenCounted(c, count.get, 1, () => {
    const top = bit(res.get, i64.const(width - 1));
    setCarryOverflow(c, top, i64.xor(top, bit(res.get, i64.const(width - 2))));
  });
};

/** Shifts right by a count that may be 64. */
const farShrU = (value: I64, count: I64): I64 => i64.shrU(i64.shrU(value, i64.sub(count, i64.const(1))), i64.const(1));
const farShl = (value: I64, count: I64): I64 => i64.shl(i64.shl(value, i64.sub(count, i64.const(1))), i64.const(1));

/** RCL and RCR: rotation through CF of width + 1 bits; counts are 1 to width here. */
const rotateThroughCarry =
  (left: boolean): ValueEmitter =>
  (c) => {
    const width = c.size * 8;
    const raw = countOf(c, 1);
    const dst = c.f.i64(c.unsized(c.update(0).get));
    const count = width < 32 ? c.f.i64(i64.remU(raw.get, i64.const(width + 1))) : raw;
    const carryIn = c.f.i64(i64.extendU(c.carry()));
    const res = c.f.i64(dst.get);
    const carry = c.f.i64();
    c.f.if(i64.ne(count.get, i64.const(0)), () => {
      const back = c.f.i64(i64.sub(i64.const(width), count.get));
      if (left) {
        c.do(carry.set(bit(dst.get, back.get)));
        const carried = i64.shl(carryIn.get, i64.sub(count.get, i64.const(1)));
        const wrapped = farShrU(dst.get, i64.add(back.get, i64.const(1)));
        const high = i64.select(i64.eq(count.get, i64.const(1)), i64.const(0), wrapped);
        c.do(res.set(c.unsized(i64.or(i64.or(i64.shl(dst.get, count.get), carried), high))));
      } else {
        c.do(carry.set(bit(dst.get, i64.sub(count.get, i64.const(1)))));
        const carried = i64.shl(carryIn.get, back.get);
        const wrapped = farShl(dst.get, i64.add(back.get, i64.const(1)));
        const high = i64.select(i64.eq(count.get, i64.const(1)), i64.const(0), wrapped);
        c.do(res.set(c.unsized(i64.or(i64.or(i64.shrU(dst.get, count.get), carried), high))));
      }
    });
    c.write(0, res.get);
    c.f.if(i64.ne(count.get, i64.const(0)), () => {
      setCarryOverflow(c, carry.get, bit(i64.xor(dst.get, res.get), i64.const(width - 1)));
    });
  };
export const rcl = rotateThroughCarry(true);
export const rcr = rotateThroughCarry(false);

/** SHLD and SHRD; a 16-bit operand with a count above 16 takes its bits from dst:src:dst, as most processors do. */
const doubleShift =
  (left: boolean): ValueEmitter =>
  (c) => {
    const width = c.size * 8;
    const count = countOf(c, 2);
    const src = c.readUnsigned(1);
    const dst = c.f.i64(c.unsized(c.update(0).get));
    const res = c.f.i64(dst.get);
    const last = c.f.i64();
    const nonZero: I32 = i64.ne(count.get, i64.const(0));
    c.f.if(nonZero, () => {
      const less = i64.sub(count.get, i64.const(1));
      if (width === 16) {
        // 48 bits: the operand, its filler, the operand again.
        const wide = left
          ? i64.or(i64.shl(dst.get, i64.const(32)), i64.or(i64.shl(src.get, i64.const(16)), dst.get))
          : i64.or(dst.get, i64.or(i64.shl(src.get, i64.const(16)), i64.shl(dst.get, i64.const(32))));
        const all = c.f.i64(wide);
        const by = (n: I64): I64 => (left ? i64.shrU(i64.shl(all.get, n), i64.const(32)) : i64.shrU(all.get, n));
        c.do(last.set(c.unsized(by(less))), res.set(c.unsized(by(count.get))));
        return;
      }
      const back = i64.sub(i64.const(width), count.get);
      if (left) {
        c.do(last.set(c.unsized(i64.shl(dst.get, less))));
        c.do(res.set(c.unsized(i64.or(i64.shl(dst.get, count.get), i64.shrU(src.get, back)))));
      } else {
        c.do(last.set(i64.shrU(dst.get, less)));
        c.do(res.set(c.unsized(i64.or(i64.shrU(dst.get, count.get), i64.shl(src.get, back)))));
      }
    });
    c.write(0, res.get);
    c.f.if(nonZero, () => {
      const carry = left ? bit(last.get, i64.const(width - 1)) : i64.and(last.get, i64.const(1));
      const overflow = bit(i64.xor(last.get, res.get), i64.const(width - 1));
      c.setFlags(FL_RESULT, c.sized(res.get), undefined, carryOverflow(carry, overflow));
    });
  };
export const shld = doubleShift(true);
export const shrd = doubleShift(false);

/** BMI2 shifts: no flags. */
const plainShift =
  (signed: boolean, by: (value: I64, count: I64) => I64): ValueEmitter =>
  (c) => {
    const value = signed ? c.read(1) : c.readUnsigned(1);
    const count = i64.and(c.readUnsigned(2).get, i64.const(c.size * 8 - 1));
    c.write(0, by(value.get, count));
  };
export const shlx = plainShift(false, i64.shl);
export const shrx = plainShift(false, i64.shrU);
export const sarx = plainShift(true, i64.shrS);
export const rorx: ValueEmitter = (c) => {
  const value = c.readUnsigned(1);
  const count = c.readUnsigned(2);
  c.write(0, rotateLeft(c, value.get, i64.and(i64.sub(i64.const(0), count.get), i64.const(c.size * 8 - 1))));
};
