/**
 * Lazy flags: an instruction stores what it computed, and whoever wants a flag derives it.
 *
 * FLAGS_OP says how, FLAGS_RES FLAGS_DST FLAGS_SRC hold result, destination and source sign-extended to 64 bits, so that no derivation
 * depends on the operand size: order and sign of the extended values are those of the originals. Flags that the manuals leave
 * undefined have the values that QEMU gives them.
 *
 *   kind      CF                      AF                 OF                        ZF SF PF
 *   EXPLICIT  bits of SRC, in their RFLAGS positions ............................................
 *   ADD       carry out of the sign   res ^ dst ^ src    res differs from both     from RES
 *   SUB       dst < src               same               dst differs from both
 *   SBB       borrow out of the sign  same               same
 *   LOGIC     0                       0                  0
 *   INC, DEC  SRC bit 0               res ^ dst          sign flipped upwards, downwards
 *   RESULT    SRC bit 0               SRC bit 4          SRC bit 11
 */
import { RFLAGS_AF, RFLAGS_CF, RFLAGS_OF, RFLAGS_PF, RFLAGS_SF, RFLAGS_ZF } from '../../arch/registers.ts';
import { FLAGS_DST, FLAGS_OP, FLAGS_RES, FLAGS_SRC } from '../state.ts';
import { type Code, type I32, type I64, i32, i64, T_I32 } from '../wasm/code.ts';
import { call, type FunctionBuilder, type FunctionRef } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { setState32, setState64, state32, state64 } from './state-access.ts';

export const FL_EXPLICIT = 0;
export const FL_ADD = 1;
export const FL_SUB = 2;
export const FL_SBB = 3;
export const FL_LOGIC = 4;
export const FL_INC = 5;
export const FL_DEC = 6;
export const FL_RESULT = 7;

/** CF PF AF ZF SF OF. */
export const STATUS_FLAGS = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;

/** Where the operands of the lazy flags are: in the state, or in locals of compiled code. */
export interface FlagValues {
  readonly res: I64;
  readonly dst: I64;
  readonly src: I64;
}
const stored: FlagValues = { res: state64(FLAGS_RES), dst: state64(FLAGS_DST), src: state64(FLAGS_SRC) };
const KINDS = FL_RESULT + 1;

const sign = (value: I64): I32 => i32.wrap(i64.shrU(value, i64.const(63)));
const bitOf = (value: I64, bit: number): I32 => i32.and(i32.shrU(i32.wrap(value), i32.const(bit)), i32.const(1));

/** How a flag follows from the operands of flags of `kind`; 0 or 1. */
export const carryOf = (kind: number, { res, dst, src }: FlagValues): I32 => {
  switch (kind) {
    case FL_ADD:
      return sign(i64.or(i64.and(dst, src), i64.and(i64.or(dst, src), i64.not(res))));
    case FL_SUB:
      return i64.ltU(dst, src);
    case FL_SBB:
      return sign(i64.or(i64.and(i64.not(dst), src), i64.and(i64.or(i64.not(dst), src), res)));
    case FL_LOGIC:
      return i32.const(0);
    default:
      return bitOf(src, 0);
  }
};
export const overflowOf = (kind: number, { res, dst, src }: FlagValues): I32 => {
  switch (kind) {
    case FL_ADD:
      return sign(i64.and(i64.xor(res, dst), i64.xor(res, src)));
    case FL_SUB:
    case FL_SBB:
      return sign(i64.and(i64.xor(dst, src), i64.xor(dst, res)));
    case FL_LOGIC:
      return i32.const(0);
    case FL_INC:
      return sign(i64.and(res, i64.not(dst)));
    case FL_DEC:
      return sign(i64.and(dst, i64.not(res)));
    default:
      return bitOf(src, 11);
  }
};
export const adjustOf = (kind: number, { res, dst, src }: FlagValues): I32 => {
  if (kind === FL_ADD || kind === FL_SUB || kind === FL_SBB) return bitOf(i64.xor(res, i64.xor(dst, src)), 4);
  if (kind === FL_INC || kind === FL_DEC) return bitOf(i64.xor(res, dst), 4);
  return kind === FL_LOGIC ? i32.const(0) : bitOf(src, 4);
};
export const parityOf = (kind: number, { res, src }: FlagValues): I32 => {
  if (kind === FL_EXPLICIT) return bitOf(src, 2);
  const ones = i32.popcnt(i32.and(i32.wrap(res), i32.const(0xff)));
  return i32.xor(i32.and(ones, i32.const(1)), i32.const(1));
};
export const zeroOf = (kind: number, { res, src }: FlagValues): I32 =>
  kind === FL_EXPLICIT ? bitOf(src, 6) : i64.eqz(res);
export const signOf = (kind: number, { res, src }: FlagValues): I32 =>
  kind === FL_EXPLICIT ? bitOf(src, 7) : sign(res);
/** The six flags of `kind` as a word. */
export function statusOf(kind: number, v: FlagValues): I32 {
  if (kind === FL_EXPLICIT) return i32.wrap(v.src);
  const at = (value: I32, bit: number): I32 => i32.shl(value, i32.const(bit));
  return [
    carryOf(kind, v),
    at(parityOf(kind, v), 2),
    at(adjustOf(kind, v), 4),
    at(zeroOf(kind, v), 6),
    at(signOf(kind, v), 7),
    at(overflowOf(kind, v), 11),
  ].reduce((a, b) => i32.or(a, b));
}
/** Condition `cc` of flags of `kind`; a comparison that was a subtraction is decided on its operands. */
export function conditionOf(kind: number, v: FlagValues, cc: number): I32 {
  const direct = (): I32 => {
    const isSub = kind === FL_SUB;
    switch (cc >> 1) {
      case 0:
        return overflowOf(kind, v);
      case 1:
        return carryOf(kind, v);
      case 2:
        return zeroOf(kind, v);
      case 3:
        return isSub ? i64.leU(v.dst, v.src) : i32.or(carryOf(kind, v), zeroOf(kind, v));
      case 4:
        return kind === FL_EXPLICIT ? signOf(kind, v) : i64.ltS(v.res, i64.const(0));
      case 5:
        return parityOf(kind, v);
      case 6:
        return isSub ? i64.ltS(v.dst, v.src) : i32.xor(signOf(kind, v), overflowOf(kind, v));
      default:
        return isSub ? i64.leS(v.dst, v.src) : i32.or(zeroOf(kind, v), i32.xor(signOf(kind, v), overflowOf(kind, v)));
    }
  };
  return (cc & 1) !== 0 ? i32.eqz(direct()) : direct();
}

/** The functions that derive flags; each answers 0 or 1, `status` the whole word. */
export interface FlagFunctions {
  readonly carry: FunctionRef;
  readonly overflow: FunctionRef;
  readonly adjust: FunctionRef;
  readonly parity: FunctionRef;
  readonly zero: FunctionRef;
  readonly sign: FunctionRef;
  readonly status: FunctionRef;
}

/** Adds the flag functions to a module. */
export function defineFlagFunctions(m: ModuleBuilder): FlagFunctions {
  const derive = (flag: (kind: number, v: FlagValues) => I32): FunctionRef =>
    m.function([], [T_I32], (f) => {
      const kinds = Array.from({ length: KINDS - 1 }, (_, kind) => () => f.return(flag(kind, stored)));
      f.switch(state32(FLAGS_OP), kinds, () => f.return(flag(KINDS - 1, stored)));
      f.unreachable();
    });
  const carry = derive(carryOf);
  const overflow = derive(overflowOf);
  const adjust = derive(adjustOf);
  const parity = derive(parityOf);
  const zeroFlag = derive(zeroOf);
  const signFlag = derive(signOf);
  const at = (ref: FunctionRef, bit: number): I32 => i32.shl(call(ref), i32.const(bit));
  const status = m.function([], [T_I32], (f) => {
    f.if(i32.eqz(state32(FLAGS_OP)), () => f.return(i32.wrap(stored.src)));
    f.do(
      [call(carry), at(parity, 2), at(adjust, 4), at(zeroFlag, 6), at(signFlag, 7), at(overflow, 11)].reduce((a, b) =>
        i32.or(a, b),
      ),
    );
  });
  return { carry, overflow, adjust, parity, zero: zeroFlag, sign: signFlag, status };
}

/** Stores the lazy flags of a result; `dstValue` and `srcValue` where the kind wants them. */
export function storeFlags(kind: number, result: I64, dstValue?: I64, srcValue?: I64): Code {
  return [
    setState32(FLAGS_OP, i32.const(kind)),
    setState64(FLAGS_RES, result),
    dstValue === undefined ? [] : setState64(FLAGS_DST, dstValue),
    srcValue === undefined ? [] : setState64(FLAGS_SRC, srcValue),
  ];
}

/** Stores all six status flags as a word. */
export function storeExplicitFlags(word: I32): Code {
  return [
    setState64(FLAGS_SRC, i64.extendU(i32.and(word, i32.const(STATUS_FLAGS)))),
    setState32(FLAGS_OP, i32.const(FL_EXPLICIT)),
  ];
}

/**
 * Condition `cc` (0 to 15, as the low four bits of Jcc) as 0 or 1. A comparison that was a subtraction is decided on its operands.
 */
export function condition(f: FunctionBuilder, flags: FlagFunctions, cc: number): I32 {
  const { res, dst, src } = stored;
  const result = f.i32();
  const isSub = i32.eq(state32(FLAGS_OP), i32.const(FL_SUB));
  const either = (fast: I32, slow: I32): void =>
    f.if(
      isSub,
      () => f.do(result.set(fast)),
      () => f.do(result.set(slow)),
    );
  const known = (fast: I32, slow: FunctionRef): void =>
    f.if(
      state32(FLAGS_OP),
      () => f.do(result.set(fast)),
      () => f.do(result.set(call(slow))),
    );
  const less = i32.xor(call(flags.sign), call(flags.overflow));
  switch (cc >> 1) {
    case 0:
      f.do(result.set(call(flags.overflow)));
      break;
    case 1:
      either(i64.ltU(dst, src), call(flags.carry));
      break;
    case 2:
      known(i64.eqz(res), flags.zero);
      break;
    case 3:
      either(i64.leU(dst, src), i32.or(call(flags.carry), call(flags.zero)));
      break;
    case 4:
      known(i64.ltS(res, i64.const(0)), flags.sign);
      break;
    case 5:
      f.do(result.set(call(flags.parity)));
      break;
    case 6:
      either(i64.ltS(dst, src), less);
      break;
    default:
      either(i64.leS(dst, src), i32.or(call(flags.zero), less));
  }
  return (cc & 1) !== 0 ? i32.eqz(result.get) : result.get;
}
