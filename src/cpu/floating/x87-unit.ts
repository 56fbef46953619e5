/**
 * The x87 unit: the register stack, its exceptions, and every instruction by its escape byte and ModRM (@sdm volume 1, 8; volume 2,
 * table A-7 onwards). Generated code has checked CR0 and pending exceptions, and moves operands to and from memory.
 */
import { FPU_REGS } from '../state.ts';
import * as A from './arithmetic.ts';
import * as E from './elementary.ts';
import { ASSIST_A, ASSIST_RESULT, ASSIST_STORES, type FpuMemory } from './fpu-memory.ts';
import {
  DOUBLE,
  EXTENDED,
  EXTENDED_BY_CONTROL,
  FLAG_INEXACT,
  FLAG_INVALID,
  FLAG_OVERFLOW,
  FLAG_UNDERFLOW,
  FLAG_ZERO_DIVIDE,
  FLAGS_BEFORE,
  FloatEnvironment,
  type FloatValue,
  finite,
  INDEFINITE,
  infinity,
  magnitude,
  overflowed,
  pack,
  packExtended,
  ROUND_ZERO,
  round,
  SINGLE,
  unpack,
  unpackExtended,
  zero,
} from './number.ts';

const C0 = 0x100;
const C1 = 0x200;
const C2 = 0x400;
const C3 = 0x4000;
const CONDITIONS = C0 | C1 | C2 | C3;
const STACK_FAULT = 0x40;
const SUMMARY = 0x8080;

const ONE = finite(0, 1n, 0);
const CONSTANTS: readonly E.Constant[] = [
  { significand: 1n, exponent: 0 },
  E.LOG2_10,
  E.LOG2_E,
  E.PI_CONSTANT,
  E.LOG10_2,
  E.LN_2,
];
type Binary = (env: FloatEnvironment, format: typeof EXTENDED, a: FloatValue, b: FloatValue) => FloatValue;

/** CF, PF and ZF of FCOMI by the order of the operands. */
const FLAGS_OF_ORDER = { [A.GREATER]: 0, [A.LESS]: 1, [A.EQUAL]: 0x40, [A.UNORDERED]: 0x45 } as Record<number, number>;
const CODES_OF_ORDER = { [A.GREATER]: 0, [A.LESS]: C0, [A.EQUAL]: C3, [A.UNORDERED]: C0 | C2 | C3 } as Record<
  number,
  number
>;

export class X87Unit {
  private readonly m: FpuMemory;
  private readonly env = new FloatEnvironment();
  private pops = 0;

  constructor(memory: FpuMemory) {
    this.m = memory;
    this.env.x87 = true;
  }

  // The stack.

  private bit(i: number): number {
    return 1 << ((this.m.top + i) & 7);
  }
  private isEmpty(i: number): boolean {
    return (this.m.tags & this.bit(i)) === 0;
  }
  private st(i: number): FloatValue {
    const at = FPU_REGS + i * 16;
    return unpackExtended(this.m.u64[at >> 3]!, this.m.i32[(at + 8) >> 2]! & 0xffff);
  }
  private put(i: number, v: FloatValue): void {
    const { significand, signExponent } = packExtended(v);
    this.putBits(i, significand, signExponent);
  }
  private putBits(i: number, significand: bigint, signExponent: number): void {
    const at = FPU_REGS + i * 16;
    this.m.u64[at >> 3] = significand;
    this.m.u64[(at >> 3) + 1] = BigInt(signExponent);
    this.m.tags |= this.bit(i);
  }
  private pop(): void {
    this.m.tags &= ~this.bit(0);
    this.m.rotate(1);
    this.m.top = this.m.top + 1;
  }
  private pushBits(significand: bigint, signExponent: number): void {
    this.m.rotate(7);
    this.m.top = this.m.top - 1;
    this.putBits(0, significand, signExponent);
  }
  private push(v: FloatValue): void {
    const { significand, signExponent } = packExtended(v);
    this.pushBits(significand, signExponent);
  }

  // Exceptions.

  private begin(): void {
    const { env, m } = this;
    env.masks = m.control & 0x3f;
    env.rounding = (m.control >> 10) & 3;
    env.flags = 0;
    env.roundedUp = false;
    m.status &= ~C1;
  }
  private get format(): typeof EXTENDED {
    return EXTENDED_BY_CONTROL[(this.m.control >> 8) & 3]!;
  }
  /** Adds the exceptions met to the status word. False when one of `unmasked` kinds keeps the result from being stored. */
  private settle(preventing: number): boolean {
    const { env, m } = this;
    const before = env.flags & FLAGS_BEFORE & ~env.masks;
    // What is computed after an unmasked exception is not there to be flagged.
    const flags = before !== 0 ? env.flags & FLAGS_BEFORE : env.flags;
    m.status |= flags | (env.roundedUp && (flags & FLAG_INEXACT) !== 0 ? C1 : 0);
    this.summarize();
    return (flags & ~env.masks & preventing) === 0;
  }
  /** ES and B: an exception is flagged and not masked. */
  private summarize(): void {
    const { m } = this;
    const pending = (m.status & ~m.control & 0x3f) !== 0;
    m.status = pending ? m.status | SUMMARY : m.status & ~SUMMARY;
  }
  /** A stack fault; C1 tells overflow from underflow. True when it is masked. */
  private stackFault(overflow: boolean): boolean {
    this.m.status &= ~C1;
    this.m.status |= FLAG_INVALID | STACK_FAULT | (overflow ? C1 : 0);
    this.summarize();
    return (this.m.control & FLAG_INVALID) !== 0;
  }

  // Shapes of instructions.

  /** Pushes what `make` answers; a full stack gets the indefinite. */
  private load(make: () => FloatValue): void {
    this.begin();
    if (!this.isEmpty(7)) {
      if (this.stackFault(true)) this.push(INDEFINITE);
      return;
    }
    const value = make();
    // A denormal operand is loaded even when that is not masked.
    if (this.settle(FLAG_INVALID)) this.push(value);
  }
  /** ST(`to`) <- op(ST(0), operand), or with the operands exchanged; then pops. */
  private combine(
    op: Binary,
    other: FloatValue | undefined,
    i: number,
    to: number,
    reversed: boolean,
    pops: boolean,
  ): void {
    this.begin();
    let result = INDEFINITE;
    if (this.isEmpty(0) || (other === undefined && this.isEmpty(i))) {
      if (!this.stackFault(false)) return;
    } else {
      const a = this.st(0);
      const b = other ?? this.st(i);
      result = reversed ? op(this.env, this.format, b, a) : op(this.env, this.format, a, b);
      if (!this.settle(FLAGS_BEFORE)) return;
    }
    this.put(to, result);
    if (pops) this.pop();
  }
  /** D8, DC, DE and their memory forms by ModRM.reg; `other` undefined for ST(i). */
  private arithmetic(digit: number, other: FloatValue | undefined, i: number, to: number, pops: boolean): void {
    const op: Binary = digit === 0 ? A.add : digit === 1 ? A.multiply : digit < 6 ? A.subtract : A.divide;
    this.combine(op, other, i, to, digit === 5 || digit === 7, pops);
  }
  private compareWith(other: FloatValue | undefined, i: number, signals: boolean, pops: number): void {
    this.begin();
    const { m } = this;
    m.status &= ~CONDITIONS;
    let order = A.UNORDERED;
    if (this.isEmpty(0) || (other === undefined && this.isEmpty(i))) {
      const masked = this.stackFault(false);
      m.status |= CODES_OF_ORDER[order]!;
      if (!masked) return;
    } else {
      order = A.compare(this.env, this.st(0), other ?? this.st(i), signals);
      const done = this.settle(FLAGS_BEFORE);
      m.status |= CODES_OF_ORDER[order]!;
      if (!done) return;
    }
    for (let n = 0; n < pops; n++) this.pop();
  }
  /** FCOMI and kin: the flags word is the result, even of an unmasked exception. C1 stays but for a stack fault. */
  private compareFlags(i: number, signals: boolean, pops: boolean): void {
    const { m } = this;
    const c1 = m.status & C1;
    this.begin();
    let order = A.UNORDERED;
    let done: boolean;
    if (this.isEmpty(0) || this.isEmpty(i)) {
      done = this.stackFault(false);
    } else {
      order = A.compare(this.env, this.st(0), this.st(i), signals);
      done = this.settle(FLAGS_BEFORE);
      m.status |= c1;
    }
    m.i32[ASSIST_RESULT >> 2] = FLAGS_OF_ORDER[order]!;
    if (done && pops) this.pop();
  }
  /** ST(0) <- op(ST(0)). */
  private unary(op: (v: FloatValue) => FloatValue): void {
    this.begin();
    let result = INDEFINITE;
    if (this.isEmpty(0)) {
      if (!this.stackFault(false)) return;
    } else {
      result = op(this.st(0));
      if (!this.settle(FLAGS_BEFORE)) return;
    }
    this.put(0, result);
  }

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

  /** D9 E0 to FF. */
  private group(modrm: number): void {
    const { m, env } = this;
    switch (modrm) {
      case 0xe0: // FCHS, FABS
      case 0xe1:
        this.begin();
        if (this.isEmpty(0)) {
          if (this.stackFault(false)) this.put(0, INDEFINITE);
        } else {
          const at = (FPU_REGS + 8) >> 2;
          m.i32[at] = modrm === 0xe0 ? m.i32[at]! ^ 0x8000 : m.i32[at]! & ~0x8000;
        }
        return;
      case 0xe4:
        this.compareWith(zero(0), 0, true, 0);
        return;
      case 0xe5:
        this.examine();
        return;
      case 0xe8:
      case 0xe9:
      case 0xea:
      case 0xeb:
      case 0xec:
      case 0xed:
        this.load(() => this.constant(CONSTANTS[modrm - 0xe8]!));
        return;
      case 0xee:
        this.load(() => zero(0));
        return;
      case 0xf0:
        this.unary((v) => this.exponential(v));
        return;
      case 0xf1:
      case 0xf9:
        this.combine((_e, _f, x, y) => this.logarithm(x, y, modrm === 0xf9), undefined, 1, 1, false, true);
        return;
      case 0xf2:
        this.trigonometric('tan');
        return;
      case 0xf3:
        this.combine((_e, _f, x, y) => this.arctangent(y, x), undefined, 1, 1, false, true);
        return;
      case 0xf4:
        this.extract();
        return;
      case 0xf5:
      case 0xf8:
        this.remainder(modrm === 0xf5);
        return;
      case 0xf6:
        m.status &= ~C1;
        m.rotate(7);
        m.top = m.top - 1;
        return;
      case 0xf7:
        m.status &= ~C1;
        m.rotate(1);
        m.top = m.top + 1;
        return;
      case 0xfa:
        this.unary((v) => A.sqrt(env, this.format, v));
        return;
      case 0xfb:
        this.trigonometric('both');
        return;
      case 0xfc:
        this.unary((v) => {
          A.noteDenormal(env, v);
          return A.roundToIntegral(env, v, env.rounding, false);
        });
        return;
      case 0xfd:
        this.combine((_e, _f, a, b) => this.scale(a, b), undefined, 1, 0, false, false);
        return;
      case 0xfe:
        this.trigonometric('sin');
        return;
      case 0xff:
        this.trigonometric('cos');
    }
  }
  /** Constants are rounded by RC, to 64 bits, without flags. */
  private constant(c: E.Constant): FloatValue {
    const value = round(this.env, EXTENDED, 0, c.significand, c.exponent);
    this.env.flags = 0;
    return value;
  }
  private examine(): void {
    const { m } = this;
    const v = this.st(0);
    const code = this.isEmpty(0)
      ? C3 | C0
      : { unsupported: 0, quiet: C0, signalling: C0, normal: C2, infinity: C2 | C0, zero: C3, denormal: C3 | C2 }[
          v.kind
        ];
    const sign = m.i32[(FPU_REGS + 8) >> 2]! & 0x8000;
    m.status = (m.status & ~CONDITIONS) | code | (sign === 0 ? 0 : C1);
  }

  // Transcendental functions. Operands are checked first; results are rounded to 64 bits whatever PC says.

  private rounded(v: FloatValue): FloatValue {
    return v.kind === 'normal' ? round(this.env, EXTENDED, v.sign, v.significand, v.exponent) : v;
  }
  private exponential(v: FloatValue): FloatValue {
    const { env } = this;
    const nan = A.nanResult(env, v);
    if (nan !== undefined) return nan;
    if (v.kind === 'infinity') return v.sign === 1 ? finite(1, 1n, 0) : v;
    A.noteDenormal(env, v);
    if (v.kind === 'zero') return v;
    // Outside [-1, 1] the result is undefined; powers of two within reach are exact.
    if (magnitude(v) >= 0) {
      const one = magnitude(v) === 0 && (v.significand & (v.significand - 1n)) === 0n;
      if (!one) env.raise(FLAG_INEXACT);
      return one ? finite(v.sign, 1n, v.sign === 1 ? -1 : 0) : v;
    }
    return this.rounded(E.exp2Minus1(v));
  }
  private logarithm(x: FloatValue, y: FloatValue, plusOne: boolean): FloatValue {
    const { env } = this;
    const nan = A.nanResult(env, y, x);
    if (nan !== undefined) return nan;
    const sign = x.sign ^ y.sign;
    if (plusOne) {
      if (x.kind === 'infinity') {
        if (x.sign === 1 || y.kind === 'zero') return A.invalid(env);
        A.noteDenormal(env, y);
        return infinity(y.sign);
      }
      if (y.kind === 'infinity') {
        if (x.kind === 'zero') return A.invalid(env);
        A.noteDenormal(env, x);
        return infinity(sign);
      }
      A.noteDenormal(env, x, y);
      if (x.kind === 'zero' || y.kind === 'zero') return zero(sign);
      if (magnitude(x) < 0) return this.rounded(E.yLog2xPlus1(x, y));
      if (x.sign === 1) return A.invalid(env);
      // Beyond the range that the manuals define.
      const unit = Math.max(Math.min(x.exponent, 0), -63);
      const sum = (x.significand << BigInt(x.exponent - unit)) + (1n << BigInt(-unit));
      return this.rounded(E.yLog2x(finite(0, sum, unit), y));
    }
    if (x.kind === 'zero') {
      if (y.kind === 'zero') return A.invalid(env);
      if (y.kind === 'infinity') return infinity(y.sign ^ 1);
      env.raise(FLAG_ZERO_DIVIDE);
      return infinity(y.sign ^ 1);
    }
    if (x.sign === 1) return A.invalid(env);
    const toOne = x.kind === 'infinity' ? A.GREATER : A.order(x, ONE);
    if (x.kind === 'infinity') {
      if (y.kind === 'zero') return A.invalid(env);
      A.noteDenormal(env, y);
      return infinity(y.sign);
    }
    if (y.kind === 'infinity') {
      if (toOne === A.EQUAL) return A.invalid(env);
      A.noteDenormal(env, x);
      return infinity(y.sign ^ (toOne === A.LESS ? 1 : 0));
    }
    A.noteDenormal(env, x, y);
    const resultSign = y.sign ^ (toOne === A.LESS ? 1 : 0);
    if (toOne === A.EQUAL || y.kind === 'zero') return zero(resultSign);
    return this.rounded(E.yLog2x(x, y));
  }
  private arctangent(y: FloatValue, x: FloatValue): FloatValue {
    const { env } = this;
    const nan = A.nanResult(env, y, x);
    if (nan !== undefined) return nan;
    A.noteDenormal(env, x, y);
    if (y.kind === 'infinity') {
      return this.rounded(E.quarterPi(y.sign, x.kind !== 'infinity' ? 2n : x.sign === 1 ? 3n : 1n));
    }
    if (x.kind === 'infinity' || y.kind === 'zero') {
      return x.sign === 1 ? this.rounded(E.quarterPi(y.sign, 4n)) : zero(y.sign);
    }
    if (x.kind === 'zero') return this.rounded(E.quarterPi(y.sign, 2n));
    return this.rounded(E.arctan2(y, x));
  }
  private trigonometric(which: 'sin' | 'cos' | 'both' | 'tan'): void {
    const { env, m } = this;
    this.begin();
    m.status &= ~C2;
    const two = which === 'both' || which === 'tan';
    const full = two && !this.isEmpty(7);
    if (this.isEmpty(0) || full) {
      if (!this.stackFault(full && !this.isEmpty(0))) return;
      this.put(0, INDEFINITE);
      if (two) this.push(INDEFINITE);
      return;
    }
    const v = this.st(0);
    let first = A.nanResult(env, v);
    let second = first;
    if (first === undefined && v.kind === 'infinity') first = second = A.invalid(env);
    if (first === undefined && v.kind === 'normal' && magnitude(v) >= 63) {
      m.status |= C2;
      return;
    }
    if (first === undefined) {
      A.noteDenormal(env, v);
      const { sin, cos } = v.kind === 'zero' ? { sin: v, cos: ONE } : E.sinCos(v);
      if (which === 'tan') {
        first = v.kind === 'zero' ? v : this.rounded(E.tangent(v));
        second = ONE;
      } else if (which === 'cos') {
        first = v.kind === 'zero' ? ONE : this.rounded(cos);
      } else {
        second = v.kind === 'zero' ? ONE : which === 'both' ? this.rounded(cos) : cos;
        first = v.kind === 'zero' ? v : this.rounded(sin);
      }
    }
    if (!this.settle(FLAGS_BEFORE)) return;
    this.put(0, first);
    if (two) this.push(second!);
  }

  /** FXTRACT: the exponent, and above it the significand. */
  private extract(): void {
    const { env } = this;
    this.begin();
    const full = !this.isEmpty(7);
    if (this.isEmpty(0) || full) {
      if (!this.stackFault(full && !this.isEmpty(0))) return;
      this.put(0, INDEFINITE);
      this.push(INDEFINITE);
      return;
    }
    const v = this.st(0);
    let exponent = A.nanResult(env, v);
    let significand = exponent ?? v;
    if (exponent === undefined) {
      if (v.kind === 'infinity') exponent = infinity(0);
      else if (v.kind === 'zero') {
        env.raise(FLAG_ZERO_DIVIDE);
        exponent = infinity(1);
      } else {
        A.noteDenormal(env, v);
        const e = magnitude(v);
        exponent = finite(e < 0 ? 1 : 0, BigInt(Math.abs(e)), 0);
        significand = finite(v.sign, v.significand, v.exponent - e);
      }
    }
    if (!this.settle(FLAGS_BEFORE)) return;
    this.put(0, exponent);
    this.push(significand);
  }

  /** FPREM (truncating) and FPREM1 (to nearest): exact, in steps when the exponents are 64 or more apart. */
  private remainder(nearest: boolean): void {
    const { env, m } = this;
    this.begin();
    if (this.isEmpty(0) || this.isEmpty(1)) {
      m.status &= ~C2;
      if (this.stackFault(false)) this.put(0, INDEFINITE);
      return;
    }
    const [a, b] = [this.st(0), this.st(1)];
    let result = A.nanResult(env, a, b);
    let codes = 0;
    let quotientKnown = false;
    if (result === undefined) {
      if (a.kind === 'infinity' || b.kind === 'zero') result = A.invalid(env);
      else {
        A.noteDenormal(env, a, b);
        quotientKnown = (env.unmasked & FLAGS_BEFORE) === 0;
        if (a.kind === 'zero' || b.kind === 'infinity') result = a;
        else {
          const gap = magnitude(a) - magnitude(b);
          const unit = Math.min(a.exponent, b.exponent);
          if (gap >= 64) {
            // Takes off a multiple of b that brings the exponent down by 32 to 63.
            const n = (gap & 31) | 32;
            const step = b.significand << BigInt(b.exponent - unit + gap - n);
            const value = a.significand << BigInt(a.exponent - unit);
            result = finite(a.sign, value % step, unit);
            codes = C2;
          } else {
            const divisor = b.significand << BigInt(b.exponent - unit);
            const value = a.significand << BigInt(a.exponent - unit);
            let quotient = value / divisor;
            let rest = value - quotient * divisor;
            let sign = a.sign;
            if (nearest && (2n * rest > divisor || (2n * rest === divisor && (quotient & 1n) === 1n))) {
              rest = divisor - rest;
              quotient++;
              sign ^= 1;
            }
            if (rest === 0n) sign = a.sign;
            result = finite(sign, rest, unit);
            const q = Number(quotient & 7n);
            codes = ((q & 1) !== 0 ? C1 : 0) | ((q & 2) !== 0 ? C3 : 0) | ((q & 4) !== 0 ? C0 : 0);
          }
          if (result.kind === 'normal' && (env.unmasked & FLAGS_BEFORE) === 0) {
            result = round(env, EXTENDED, result.sign, result.significand, result.exponent);
          }
        }
      }
    }
    // Without a quotient its bits stay what they were.
    m.status &= ~(quotientKnown ? CONDITIONS : C1 | C2);
    if (!this.settle(FLAGS_BEFORE)) return;
    m.status |= codes;
    this.put(0, result);
  }

  /** FSCALE: ST(0) times two to the truncated ST(1). */
  private scale(a: FloatValue, b: FloatValue): FloatValue {
    const { env } = this;
    const nan = A.nanResult(env, a, b);
    if (nan !== undefined) return nan;
    if (b.kind === 'infinity') {
      if (a.kind === 'infinity') return b.sign === 1 ? A.invalid(env) : a;
      if (a.kind === 'zero') return b.sign === 1 ? a : A.invalid(env);
      A.noteDenormal(env, a);
      return b.sign === 1 ? zero(a.sign) : infinity(a.sign);
    }
    A.noteDenormal(env, a, b);
    if (a.kind === 'infinity' || a.kind === 'zero' || (env.unmasked & FLAGS_BEFORE) !== 0) return a;
    if (b.kind === 'zero' || magnitude(b) < 0) return this.rounded({ ...a, kind: 'normal' });
    const far = magnitude(b) > 16;
    const by = far
      ? 0x20000
      : Number(b.exponent >= 0 ? b.significand << BigInt(b.exponent) : b.significand >> BigInt(-b.exponent));
    const moved = a.exponent + (b.sign === 1 ? -by : by);
    // Too far even for a scaled result: infinity or zero.
    if (b.sign === 0 && moved + 63 > 16383 + 24576 && (env.masks & FLAG_OVERFLOW) === 0) {
      overflowed(env, EXTENDED, a.sign);
      env.roundedUp = true;
      return infinity(a.sign);
    }
    if (b.sign === 1 && moved + 63 < -16445 - 24576 && (env.masks & FLAG_UNDERFLOW) === 0) {
      env.raise(FLAG_UNDERFLOW | FLAG_INEXACT);
      return zero(a.sign);
    }
    return this.rounded(finite(a.sign, a.significand, moved));
  }

  // State images.

  /** The tag word with two bits a register, as FNSTENV stores it. */
  fullTags(): number {
    let word = 0;
    for (let i = 0; i < 8; i++) {
      const { kind } = this.st(i);
      const tag = this.isEmpty(i) ? 3 : kind === 'zero' ? 1 : kind === 'normal' ? 0 : 2;
      word |= tag << (((this.m.top + i) & 7) * 2);
    }
    return word;
  }
  loadEnvironment(control: number, status: number, fullTags: number): void {
    const { m } = this;
    const { top } = m;
    m.control = (control & 0x1f3f) | 0x40;
    m.status = status & 0xffff;
    // Registers keep their places; FPU_REGS is in order from ST(0).
    m.rotate((m.top - top) & 7);
    let tags = 0;
    for (let i = 0; i < 8; i++) if (((fullTags >> (i * 2)) & 3) !== 3) tags |= 1 << i;
    m.tags = tags;
    this.summarize();
  }
  maskAll(): void {
    this.m.control |= 0x3f;
    this.summarize();
  }
  initialize(): void {
    const { m } = this;
    m.rotate((8 - m.top) & 7);
    m.control = 0x37f;
    m.status = 0;
    m.tags = 0;
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
