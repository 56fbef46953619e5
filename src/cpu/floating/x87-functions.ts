/** The x87 instructions D9 E0 to FF: what works on the top of the stack alone, and the transcendental functions. */
import { FPU_REGS } from '../state.ts';
import * as A from './arithmetic.ts';
import * as E from './elementary.ts';
import {
  EXTENDED,
  FLAG_INEXACT,
  FLAG_OVERFLOW,
  FLAG_UNDERFLOW,
  FLAG_ZERO_DIVIDE,
  FLAGS_BEFORE,
  type FloatValue,
  finite,
  INDEFINITE,
  infinity,
  magnitude,
  overflowed,
  round,
  zero,
} from './number.ts';
import { C0, C1, C2, C3, CONDITIONS, X87Stack } from './x87-stack.ts';

const ONE = finite(0, 1n, 0);
const CONSTANTS: readonly E.Constant[] = [
  { significand: 1n, exponent: 0 },
  E.LOG2_10,
  E.LOG2_E,
  E.PI_CONSTANT,
  E.LOG10_2,
  E.LN_2,
];

export class X87Functions extends X87Stack {
  /** D9 E0 to FF. */
  protected group(modrm: number): void {
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
}
