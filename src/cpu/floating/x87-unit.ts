/**
 * The x87 unit: every instruction by its escape byte and ModRM (@sdm volume 2, table A-7 onwards). Generated code has checked CR0 and
 * pending exceptions, and moves operands to and from memory.
 */
import { FPU_REGS } from '../state.ts';
import * as A from './arithmetic.ts';
import { ASSIST_A, ASSIST_RESULT, ASSIST_STORES } from './fpu-memory.ts';
import {
  DOUBLE,
  EXTENDED,
  FLAG_INEXACT,
  FLAG_INVALID,
  FLAG_OVERFLOW,
  FLAG_UNDERFLOW,
  FLAGS_BEFORE,
  type FloatValue,
  finite,
  INDEFINITE,
  pack,
  ROUND_ZERO,
  SINGLE,
  unpack,
} from './number.ts';
import { X87Functions } from './x87-functions.ts';
import { C1 } from './x87-stack.ts';

export class X87Unit extends X87Functions {
  private pops = 0;

  // Memory operands.

  /** An instruction whose operand has been brought to ASSIST_A: escape byte in bits 10:8, digit in 5:3. */
  withOperand(code: number): void {
    const group = (code >> 8) & 7;
    const digit = (code >> 3) & 7;
    const bits = this.m.u64[ASSIST_A >> 3]!;
    const integer = (width: number): FloatValue => {
      const value = BigInt.asIntN(width, bits);
      return value < 0n ? finite(1, -value, 0) : finite(0, value, 0);
    };
    switch ((group << 3) | digit) {
      case 0o10:
        this.load(() => A.convert(this.env, EXTENDED, unpack(SINGLE, bits & 0xffffffffn)));
        return;
      case 0o50:
        this.load(() => A.convert(this.env, EXTENDED, unpack(DOUBLE, bits)));
        return;
      case 0o30:
        this.load(() => integer(32));
        return;
      case 0o70:
        this.load(() => integer(16));
        return;
      case 0o75:
        this.load(() => integer(64));
        return;
      case 0o35:
        this.loadExtended(bits, this.m.i32[(ASSIST_A + 8) >> 2]! & 0xffff);
        return;
      case 0o74:
        this.load(() => this.fromDecimal(bits, this.m.i32[(ASSIST_A + 8) >> 2]! & 0xffff));
        return;
      case 0o15:
        this.loadControl(Number(bits & 0xffffn));
        return;
    }
    const operand =
      group === 0
        ? unpack(SINGLE, bits & 0xffffffffn)
        : group === 4
          ? unpack(DOUBLE, bits)
          : integer(group === 2 ? 32 : 16);
    if (digit === 2 || digit === 3) this.compareWith(operand, 0, true, digit === 3 ? 1 : 0);
    else this.arithmetic(digit, operand, 0, 0, false);
  }
  private loadExtended(significand: bigint, signExponent: number): void {
    this.begin();
    if (this.isEmpty(7)) this.pushBits(significand, signExponent);
    else if (this.stackFault(true)) this.push(INDEFINITE);
  }
  private loadControl(value: number): void {
    this.m.control = (value & 0x1f3f) | 0x40;
    this.summarize();
  }
  private fromDecimal(low: bigint, high: number): FloatValue {
    let value = 0n;
    for (let n = 17; n >= 0; n--) {
      const digit = n >= 16 ? BigInt((high >> ((n - 16) * 4)) & 15) : (low >> BigInt(n * 4)) & 15n;
      value = value * 10n + digit;
    }
    return finite((high >> 15) & 1, value, 0);
  }

  /** Prepares what an instruction stores, in ASSIST_RESULT; ASSIST_STORES says whether. `commit` then pops. */
  prepareStore(code: number): void {
    const group = (code >> 8) & 7;
    const digit = (code >> 3) & 7;
    const { m, env } = this;
    const key = (group << 3) | digit;
    this.begin();
    const integer = integerBits(group, digit);
    this.pops = [0o12, 0o52, 0o32, 0o72].includes(key) ? 0 : 1;
    const empty = this.isEmpty(0);
    if (empty && !this.stackFault(false)) {
      m.i32[ASSIST_STORES >> 2] = 0;
      return;
    }
    let low: bigint;
    let high = 0n;
    const value = empty ? INDEFINITE : this.st(0);
    if (integer !== undefined) {
      const rounding = digit === 1 ? ROUND_ZERO : env.rounding;
      low = empty ? -(1n << BigInt(integer - 1)) : A.toInteger(env, value, integer, rounding);
    } else if (key === 0o37) {
      low = m.u64[FPU_REGS >> 3]!;
      high = m.u64[(FPU_REGS >> 3) + 1]! & 0xffffn;
      if (empty) [low, high] = [3n << 62n, 0xffffn];
    } else if (key === 0o76) {
      [low, high] = empty ? DECIMAL_INDEFINITE : this.toDecimal(value);
    } else {
      const format = group === 1 ? SINGLE : DOUBLE;
      low = pack(format, empty ? INDEFINITE : this.toFormat(value, format));
    }
    m.u64[ASSIST_RESULT >> 3] = BigInt.asUintN(64, low);
    m.u64[(ASSIST_RESULT >> 3) + 1] = high;
    // Nothing is stored after one of these, so nothing was rounded.
    if ((env.unmasked & (FLAG_OVERFLOW | FLAG_UNDERFLOW)) !== 0) env.flags &= ~FLAG_INEXACT;
    m.i32[ASSIST_STORES >> 2] = empty || this.settle(FLAGS_BEFORE | FLAG_OVERFLOW | FLAG_UNDERFLOW) ? 1 : 0;
  }
  /** A stored value is not a denormal operand: that it is small shows as underflow. */
  private toFormat(value: FloatValue, format: typeof EXTENDED): FloatValue {
    return A.convert(this.env, format, value.kind === 'denormal' ? { ...value, kind: 'normal' } : value);
  }
  private toDecimal(value: FloatValue): [bigint, bigint] {
    const whole = A.toInteger(this.env, value, 64, this.env.rounding);
    const positive = whole < 0n ? -whole : whole;
    if (positive >= 10n ** 18n) {
      this.env.flags = FLAG_INVALID;
      this.env.roundedUp = false;
      return DECIMAL_INDEFINITE;
    }
    let low = 0n;
    let high = BigInt(value.sign) << 15n;
    let rest = positive;
    for (let n = 0; n < 18; n++) {
      if (n < 16) low |= (rest % 10n) << BigInt(n * 4);
      else high |= (rest % 10n) << BigInt((n - 16) * 4);
      rest /= 10n;
    }
    return [low, high];
  }
  /** Ends a store that could be done. */
  commit(): void {
    if (this.pops !== 0) this.pop();
  }

  // Register operands.

  /** An instruction without memory operand: escape byte in bits 10:8, ModRM in 7:0. */
  registers(code: number): void {
    const group = (code >> 8) & 7;
    const modrm = code & 0xff;
    const digit = (modrm >> 3) & 7;
    const i = modrm & 7;
    switch (group) {
      case 0:
        if (digit === 2 || digit === 3) this.compareWith(undefined, i, true, digit - 2);
        else this.arithmetic(digit, undefined, i, 0, false);
        return;
      case 1:
        if (digit === 0) this.loadRegister(i);
        else if (digit === 1) this.exchange(i);
        else if (digit >= 4) this.group(modrm);
        return;
      case 2:
        this.compareWith(undefined, 1, false, 2); // FUCOMPP
        return;
      case 3:
        this.compareFlags(i, digit === 6, false);
        return;
      case 4:
        if (digit === 2 || digit === 3) this.compareWith(undefined, i, true, digit - 2);
        else this.arithmetic(digit, undefined, i, i, false);
        return;
      case 5:
        if (digit === 0) this.free(i);
        else if (digit === 1) this.exchange(i);
        else if (digit === 2 || digit === 3) this.storeRegister(i, digit === 3);
        else this.compareWith(undefined, i, false, digit - 4);
        return;
      case 6:
        if (digit === 3) this.compareWith(undefined, 1, true, 2);
        else this.arithmetic(digit, undefined, i, i, true);
        return;
      default:
        if (digit >= 5) this.compareFlags(i, digit === 6, true);
        else if (digit === 1) this.exchange(i);
        else if (digit >= 2) this.storeRegister(i, true);
        else {
          this.free(i);
          this.pop();
        }
    }
  }
  private free(i: number): void {
    this.m.status &= ~C1;
    this.m.tags &= ~this.bit(i);
  }
  private loadRegister(i: number): void {
    this.begin();
    const full = !this.isEmpty(7);
    if (full || this.isEmpty(i)) {
      if (this.stackFault(full && !this.isEmpty(i))) this.push(INDEFINITE);
      return;
    }
    const at = FPU_REGS + i * 16;
    this.pushBits(this.m.u64[at >> 3]!, this.m.i32[(at + 8) >> 2]! & 0xffff);
  }
  private exchange(i: number): void {
    this.begin();
    if (this.isEmpty(0) || this.isEmpty(i)) {
      if (!this.stackFault(false)) return;
      if (this.isEmpty(0)) this.put(0, INDEFINITE);
      if (this.isEmpty(i)) this.put(i, INDEFINITE);
    }
    const { u8 } = this.m;
    const [a, b] = [FPU_REGS, FPU_REGS + i * 16];
    const kept = u8.slice(a, a + 16);
    u8.copyWithin(a, b, b + 16);
    u8.set(kept, b);
  }
  private storeRegister(i: number, pops: boolean): void {
    this.begin();
    if (this.isEmpty(0)) {
      if (!this.stackFault(false)) return;
      this.put(i, INDEFINITE);
    } else {
      this.putBits(i, this.m.u64[FPU_REGS >> 3]!, this.m.i32[(FPU_REGS + 8) >> 2]! & 0xffff);
    }
    if (pops) this.pop();
  }
  /** FCMOVcc with its condition fulfilled: `i`; not fulfilled: an empty register is a fault all the same. */
  conditionalMove(i: number, taken: boolean): void {
    if (this.isEmpty(0) || this.isEmpty(i)) {
      if (this.stackFault(false)) this.put(0, INDEFINITE);
    } else if (taken) {
      const at = FPU_REGS + i * 16;
      this.putBits(0, this.m.u64[at >> 3]!, this.m.i32[(at + 8) >> 2]! & 0xffff);
    }
  }
}

/** Bits of the integer that a store writes; undefined for the other formats. */
function integerBits(group: number, digit: number): number | undefined {
  if ((group === 5 && digit === 1) || (group === 7 && digit === 7)) return 64;
  if (digit < 1 || digit > 3) return undefined;
  return group === 3 ? 32 : group === 7 ? 16 : undefined;
}

/** Packed BCD indefinite. */
const DECIMAL_INDEFINITE: [bigint, bigint] = [0xc000000000000000n, 0xffffn];
