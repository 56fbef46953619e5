/** Bit tests, scans, counts and the BMI instructions. */
import { RFLAGS_CF, RFLAGS_ZF } from '../../arch/registers.ts';
import { type I32, type I64, i32, i64 } from '../wasm/code.ts';
import type { Local64 } from '../wasm/function.ts';
import type { Context, ValueEmitter } from './context.ts';
import { FL_LOGIC, FL_RESULT } from './flags.ts';

const ONE = i64.const(1);
const ZERO = i64.const(0);
const flagWhen = (when: I32, flag: number): I32 => i32.select(when, i32.const(flag), i32.const(0));

const bitTest =
  (change: ((value: I64, mask: I64) => I64) | undefined): ValueEmitter =>
  (c) => {
    const number = c.f.i64(i64.and(c.readUnsigned(1).get, i64.const(c.size * 8 - 1)));
    const dst = change === undefined ? c.read(0) : c.update(0);
    const bit = c.f.i32(i32.wrap(i64.and(i64.shrU(dst.get, number.get), ONE)));
    if (change !== undefined) c.write(0, change(dst.get, i64.shl(ONE, number.get)));
    c.setCarry(bit.get);
  };
/** With a register as bit number, a memory operand has been moved to the word that holds the bit: see `Context` subclasses. */
export const bt = bitTest(undefined);
export const bts = bitTest((v, m) => i64.or(v, m));
export const btr = bitTest((v, m) => i64.and(v, i64.not(m)));
export const btc = bitTest((v, m) => i64.xor(v, m));

/** BSF and BSR keep the destination of a zero source (as AMD documents it) and derive the other flags from the source. */
const scan =
  (find: (c: Context, value: I64) => I64): ValueEmitter =>
  (c) => {
    const src = c.readUnsigned(1);
    c.f.if(i64.ne(src.get, ZERO), () => c.write(0, find(c, src.get)));
    c.setFlags(FL_LOGIC, c.sized(src.get));
  };
export const bsf = scan((_c, v) => i64.ctz(v));
export const bsr = scan((_c, v) => i64.sub(i64.const(63), i64.clz(v)));

/** TZCNT and LZCNT: CF when the source was zero, ZF when the result is. */
const count =
  (find: (c: Context, value: I64) => I64): ValueEmitter =>
  (c) => {
    const src = c.readUnsigned(1);
    const res = c.f.i64(find(c, src.get));
    c.write(0, res.get);
    c.setStatus(i32.or(flagWhen(i64.eqz(src.get), RFLAGS_CF), flagWhen(i64.eqz(res.get), RFLAGS_ZF)));
  };
/** A bit above the operand stops the count at its width. */
export const tzcnt = count((c, v) => (c.size === 8 ? i64.ctz(v) : i64.ctz(i64.or(v, i64.const(2 ** (c.size * 8))))));
export const lzcnt = count((c, v) => i64.sub(i64.clz(v), i64.const(64 - c.size * 8)));

export const popcnt: ValueEmitter = (c) => {
  const src = c.readUnsigned(1);
  c.write(0, i64.popcnt(src.get));
  c.setStatus(flagWhen(i64.eqz(src.get), RFLAGS_ZF));
};

/** Reverses the bytes of the low `size` bytes; what is above is lost. */
function byteSwap(c: Context, size: number, value: I64): Local64 {
  const v = c.f.i64(value);
  const step = (shift: number, maskLow: number, maskHigh: number): void => {
    const mask = i64.or(i64.shl(i64.const(maskHigh), i64.const(32)), i64.const(maskLow));
    const up = i64.shl(i64.and(v.get, mask), i64.const(shift));
    const down = i64.and(i64.shrU(v.get, i64.const(shift)), mask);
    c.do(v.set(i64.or(up, down)));
  };
  step(8, 0x00ff00ff, 0x00ff00ff);
  step(16, 0x0000ffff, 0x0000ffff);
  c.do(v.set(i64.rotl(v.get, i64.const(32))));
  if (size !== 8) c.do(v.set(i64.shrU(v.get, i64.const(64 - size * 8))));
  return v;
}
/** BSWAP of a 16-bit register is undefined; it gives zero here. */
export const bswap: ValueEmitter = (c) => {
  if (c.size === 2) c.write(0, ZERO);
  else c.write(0, byteSwap(c, c.size, c.update(0).get).get);
};
export const movbe: ValueEmitter = (c) => {
  c.write(0, byteSwap(c, c.size, c.readUnsigned(1).get).get);
};

export const andn: ValueEmitter = (c) => {
  const inverted = c.read(1);
  const res = c.f.i64(i64.and(i64.not(inverted.get), c.read(2).get));
  c.write(0, res.get);
  c.setFlags(FL_LOGIC, res.get);
};

/** BLSR, BLSMSK, BLSI: CF tells whether the source was zero, or not, as `carryWhen` says. */
const lowestBit =
  (combine: (v: I64) => I64, carryWhen: (v: I64) => I32): ValueEmitter =>
  (c) => {
    const src = c.read(1);
    const res = c.f.i64(c.sized(combine(src.get)));
    const carry = c.f.i64(i64.extendU(carryWhen(src.get)));
    c.write(0, res.get);
    c.setFlags(FL_RESULT, res.get, undefined, carry.get);
  };
export const blsr = lowestBit((v) => i64.and(v, i64.sub(v, ONE)), i64.eqz);
export const blsmsk = lowestBit((v) => i64.xor(v, i64.sub(v, ONE)), i64.eqz);
export const blsi = lowestBit(
  (v) => i64.and(v, i64.sub(ZERO, v)),
  (v) => i64.ne(v, ZERO),
);

/** The low `n` bits set, for n from 0 to 255. */
const lowMask = (n: I64): I64 => i64.select(i64.gtU(n, i64.const(63)), i64.const(-1), i64.sub(i64.shl(ONE, n), ONE));

export const bextr: ValueEmitter = (c) => {
  const src = c.readUnsigned(1);
  const control = c.readUnsigned(2);
  const start = c.f.i64(i64.and(control.get, i64.const(0xff)));
  const length = c.f.i64(i64.and(i64.shrU(control.get, i64.const(8)), i64.const(0xff)));
  const moved = i64.select(i64.gtU(start.get, i64.const(63)), ZERO, i64.shrU(src.get, start.get));
  const res = c.f.i64(i64.and(moved, lowMask(length.get)));
  c.write(0, res.get);
  c.setStatus(flagWhen(i64.eqz(c.unsized(res.get)), RFLAGS_ZF));
};

export const bzhi: ValueEmitter = (c) => {
  const src = c.readUnsigned(1);
  const n = c.f.i64(i64.and(c.readUnsigned(2).get, i64.const(0xff)));
  const res = c.f.i64(c.sized(i64.and(src.get, lowMask(n.get))));
  c.write(0, res.get);
  c.setFlags(FL_RESULT, res.get, undefined, i64.extendU(i64.gtU(n.get, i64.const(c.size * 8 - 1))));
};

/** PDEP scatters the low bits of a source to the places of a mask; PEXT gathers them. */
const throughMask =
  (deposit: boolean): ValueEmitter =>
  (c) => {
    const f = c.f;
    const src = f.i64(c.readUnsigned(1).get);
    const mask = f.i64(c.readUnsigned(2).get);
    const res = f.i64(ZERO);
    const from = f.i64(ONE);
    f.block((end) => {
      f.loop((again) => {
        f.brIf(end, i64.eqz(mask.get));
        const lowest = i64.and(mask.get, i64.sub(ZERO, mask.get));
        const [seen, set] = deposit ? [from.get, lowest] : [lowest, from.get];
        f.if(i64.ne(i64.and(src.get, seen), ZERO), () => f.do(res.set(i64.or(res.get, set))));
        f.do(mask.set(i64.and(mask.get, i64.sub(mask.get, ONE))), from.set(i64.shl(from.get, ONE)));
        f.br(again);
      });
    });
    c.write(0, res.get);
  };
export const pdep = throughMask(true);
export const pext = throughMask(false);

/** CRC32 (polynomial 11EDC6F41, reflected) of the second operand into the first. */
export const crc32: ValueEmitter = (c) => {
  const f = c.f;
  const data = c.readUnsigned(1);
  const crc = f.i64(i64.and(c.readUnsigned(0).get, i64.const(0xffffffff)));
  const steps = f.i32(i32.const(c.sizeOf(1) * 8));
  f.do(crc.set(i64.xor(crc.get, data.get)));
  f.loop((again) => {
    const odd = i64.sub(ZERO, i64.and(crc.get, ONE));
    f.do(crc.set(i64.xor(i64.shrU(crc.get, ONE), i64.and(odd, i64.const(0x82f63b78)))));
    f.brIf(again, steps.tee(i32.sub(steps.get, i32.const(1))));
  });
  c.write(0, i64.and(crc.get, i64.const(0xffffffff)));
};

/** CLC, STC, CMC. */
export const clc: ValueEmitter = (c) => c.setCarry(i32.const(0));
export const stc: ValueEmitter = (c) => c.setCarry(i32.const(1));
export const cmc: ValueEmitter = (c) => c.setStatus(i32.xor(c.status(), i32.const(RFLAGS_CF)));
