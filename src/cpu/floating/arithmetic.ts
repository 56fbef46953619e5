/** Arithmetic on numbers taken apart: exact results, rounded once; NaNs and invalid operands as x87 and SSE treat them (@sdm volume 1, 4.8.3.5). */
import {
  bitLength,
  FLAG_DENORMAL,
  FLAG_INVALID,
  FLAG_ZERO_DIVIDE,
  FLAGS_BEFORE,
  type FloatEnvironment,
  type FloatFormat,
  type FloatValue,
  finite,
  INDEFINITE,
  infinity,
  isNan,
  lastInexact,
  lastRoundedUp,
  magnitude,
  negate,
  quieted,
  ROUND_DOWN,
  round,
  roundToUnit,
  zero,
} from './number.ts';

export function invalid(env: FloatEnvironment): FloatValue {
  env.raise(FLAG_INVALID);
  return INDEFINITE;
}

/** Of two NaNs, x87 takes a quiet one before a signalling one, then the larger significand, then the positive one; SSE the first. */
function chooseNan(env: FloatEnvironment, a: FloatValue, b: FloatValue): FloatValue {
  if (a.kind === 'signalling' || b.kind === 'signalling') env.raise(FLAG_INVALID);
  if (!isNan(b)) return quieted(a);
  if (!isNan(a)) return quieted(b);
  if (!env.x87) return quieted(a);
  if (a.kind !== b.kind) return a.kind === 'quiet' ? a : b;
  const [x, y] = [quieted(a), quieted(b)];
  if (x.significand !== y.significand) return x.significand > y.significand ? x : y;
  return x.sign <= y.sign ? x : y;
}

/** The result when an operand is a NaN or no number at all; else undefined. */
export function nanResult(env: FloatEnvironment, a: FloatValue, b: FloatValue = a): FloatValue | undefined {
  if (a.kind === 'unsupported' || b.kind === 'unsupported') return invalid(env);
  return isNan(a) || isNan(b) ? chooseNan(env, a, b) : undefined;
}
/** Notes denormal operands. */
export function noteDenormal(env: FloatEnvironment, a: FloatValue, b: FloatValue = a): void {
  if (a.kind === 'denormal' || b.kind === 'denormal') env.raise(FLAG_DENORMAL);
}
/** An exception before the computation is unmasked: there will be no result, and nothing more is noted. */
const stopped = (env: FloatEnvironment): boolean => (env.unmasked & FLAGS_BEFORE) !== 0;

/** More bits than any format has: what lies farther below only counts as being there. */
const GUARD = 140;

export function add(env: FloatEnvironment, format: FloatFormat, a: FloatValue, b: FloatValue): FloatValue {
  const nan = nanResult(env, a, b);
  if (nan !== undefined) return nan;
  if (a.kind === 'infinity' && b.kind === 'infinity' && a.sign !== b.sign) return invalid(env);
  noteDenormal(env, a, b);
  if (stopped(env)) return INDEFINITE;
  if (a.kind === 'infinity') return a;
  if (b.kind === 'infinity') return b;
  const cancelled = env.rounding === ROUND_DOWN ? 1 : 0;
  if (a.significand === 0n && b.significand === 0n) return zero(a.sign === b.sign ? a.sign : cancelled);
  if (a.significand === 0n) return round(env, format, b.sign, b.significand, b.exponent);
  if (b.significand === 0n) return round(env, format, a.sign, a.significand, a.exponent);
  let [x, y] = [a, b];
  if (magnitude(x) < magnitude(y)) [x, y] = [y, x];
  let low = y.significand;
  let unit = Math.min(x.exponent, y.exponent);
  let high: bigint;
  if (magnitude(x) - magnitude(y) > GUARD) {
    unit = x.exponent - GUARD;
    high = x.significand << BigInt(GUARD);
    low = 1n;
  } else {
    high = x.significand << BigInt(x.exponent - unit);
    low <<= BigInt(y.exponent - unit);
  }
  const sum = x.sign === y.sign ? high + low : high - low;
  if (sum === 0n) return zero(cancelled);
  return sum > 0n ? round(env, format, x.sign, sum, unit) : round(env, format, y.sign, -sum, unit);
}

export function subtract(env: FloatEnvironment, format: FloatFormat, a: FloatValue, b: FloatValue): FloatValue {
  return add(env, format, a, isNan(b) ? b : negate(b));
}

export function multiply(env: FloatEnvironment, format: FloatFormat, a: FloatValue, b: FloatValue): FloatValue {
  const nan = nanResult(env, a, b);
  if (nan !== undefined) return nan;
  const infinite = a.kind === 'infinity' || b.kind === 'infinity';
  if (infinite && (a.kind === 'zero' || b.kind === 'zero')) return invalid(env);
  noteDenormal(env, a, b);
  if (stopped(env)) return INDEFINITE;
  const sign = a.sign ^ b.sign;
  if (infinite) return infinity(sign);
  return round(env, format, sign, a.significand * b.significand, a.exponent + b.exponent);
}

/** `a` * `b` + `c`, rounded once. */
export function fuse(
  env: FloatEnvironment,
  format: FloatFormat,
  a: FloatValue,
  b: FloatValue,
  c: FloatValue,
  negated: { readonly product: boolean; readonly addend: boolean },
): FloatValue {
  if (isNan(a) || isNan(b) || isNan(c)) {
    for (const v of [a, b, c]) if (v.kind === 'signalling') env.raise(FLAG_INVALID);
    return quieted(isNan(a) ? a : isNan(b) ? b : c);
  }
  const sign = a.sign ^ b.sign ^ (negated.product ? 1 : 0);
  const addend = negated.addend ? negate(c) : c;
  const infinite = a.kind === 'infinity' || b.kind === 'infinity';
  if (infinite && (a.kind === 'zero' || b.kind === 'zero')) return invalid(env);
  if (infinite && c.kind === 'infinity' && addend.sign !== sign) return invalid(env);
  noteDenormal(env, a, b);
  noteDenormal(env, c);
  if (stopped(env)) return INDEFINITE;
  if (infinite) return infinity(sign);
  const product: FloatValue = {
    kind: a.kind === 'zero' || b.kind === 'zero' ? 'zero' : 'normal',
    sign,
    significand: a.significand * b.significand,
    exponent: a.exponent + b.exponent,
  };
  return add(env, format, product, addend.kind === 'denormal' ? { ...addend, kind: 'normal' } : addend);
}

export function divide(env: FloatEnvironment, format: FloatFormat, a: FloatValue, b: FloatValue): FloatValue {
  const nan = nanResult(env, a, b);
  if (nan !== undefined) return nan;
  const sign = a.sign ^ b.sign;
  if (a.kind === b.kind && (a.kind === 'infinity' || a.kind === 'zero')) return invalid(env);
  if (b.kind === 'zero' && a.kind !== 'infinity') {
    env.raise(FLAG_ZERO_DIVIDE);
    return infinity(sign);
  }
  noteDenormal(env, a, b);
  if (stopped(env)) return INDEFINITE;
  if (a.kind === 'infinity') return infinity(sign);
  if (b.kind === 'infinity' || a.kind === 'zero') return zero(sign);
  const dividend = a.significand << BigInt(GUARD);
  const quotient = dividend / b.significand;
  const sticky = quotient * b.significand === dividend ? 0n : 1n;
  return round(env, format, sign, (quotient << 1n) | sticky, a.exponent - b.exponent - GUARD - 1);
}

/** The integer square root. */
export function squareRoot(value: bigint): bigint {
  if (value === 0n) return 0n;
  let x = 1n << BigInt((bitLength(value) + 1) >> 1);
  for (;;) {
    const next = (x + value / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
}

export function sqrt(env: FloatEnvironment, format: FloatFormat, a: FloatValue): FloatValue {
  const nan = nanResult(env, a);
  if (nan !== undefined) return nan;
  if (a.kind === 'zero') return a;
  if (a.sign === 1) return invalid(env);
  noteDenormal(env, a);
  if (stopped(env) || a.kind === 'infinity') return a;
  const shift = GUARD + ((a.exponent - GUARD) & 1);
  const wide = a.significand << BigInt(shift);
  const root = squareRoot(wide);
  const sticky = root * root === wide ? 0n : 1n;
  return round(env, format, 0, (root << 1n) | sticky, (a.exponent - shift) / 2 - 1);
}

/** Converts to another format. */
export function convert(env: FloatEnvironment, format: FloatFormat, a: FloatValue): FloatValue {
  const nan = nanResult(env, a);
  if (nan !== undefined) return nan;
  noteDenormal(env, a);
  if (a.kind === 'infinity' || a.kind === 'zero') return a;
  return round(env, format, a.sign, a.significand, a.exponent);
}

/** A signed integer of `bits` bits; -1 shifted to the top ("integer indefinite") with `invalid` when it does not fit. */
export function toInteger(env: FloatEnvironment, a: FloatValue, bits: number, rounding: number): bigint {
  const lowest = -(1n << BigInt(bits - 1));
  if (a.kind === 'zero') return 0n;
  if ((a.kind !== 'normal' && a.kind !== 'denormal') || magnitude(a) > bits) {
    env.raise(FLAG_INVALID);
    return lowest;
  }
  const whole = roundToUnit(rounding, a.sign, a.significand, a.exponent, 0);
  const value = a.sign === 1 ? -whole : whole;
  if (value < lowest || value >= -lowest) {
    env.raise(FLAG_INVALID);
    return lowest;
  }
  if (lastInexact()) env.raise(32);
  env.roundedUp = lastRoundedUp();
  return value;
}

/** To an integral value in the same format. `quiet` leaves inexactness unmentioned. */
export function roundToIntegral(env: FloatEnvironment, a: FloatValue, rounding: number, quiet: boolean): FloatValue {
  const nan = nanResult(env, a);
  if (nan !== undefined) return nan;
  if (a.kind === 'infinity' || a.kind === 'zero' || a.exponent >= 0) return a;
  const whole = roundToUnit(rounding, a.sign, a.significand, a.exponent, 0);
  if (lastInexact() && !quiet) env.raise(32);
  env.roundedUp = lastRoundedUp();
  return finite(a.sign, whole, 0);
}

export const LESS = -1;
export const EQUAL = 0;
export const GREATER = 1;
export const UNORDERED = 2;
/** Compares; a quiet NaN is an invalid operand when `signals`. */
export function compare(env: FloatEnvironment, a: FloatValue, b: FloatValue, signals: boolean): number {
  if (a.kind === 'unsupported' || b.kind === 'unsupported') {
    env.raise(FLAG_INVALID);
    return UNORDERED;
  }
  if (isNan(a) || isNan(b)) {
    if (signals || a.kind === 'signalling' || b.kind === 'signalling') env.raise(FLAG_INVALID);
    return UNORDERED;
  }
  noteDenormal(env, a, b);
  return order(a, b);
}
/** The order of two values that are not NaNs. */
export function order(a: FloatValue, b: FloatValue): number {
  if (a.kind === 'zero' && b.kind === 'zero') return EQUAL;
  if (a.kind === 'zero') return b.sign === 1 ? GREATER : LESS;
  if (b.kind === 'zero' || a.sign !== b.sign) return a.sign === 1 ? LESS : GREATER;
  const larger = a.sign === 1 ? LESS : GREATER;
  if (a.kind === 'infinity' || b.kind === 'infinity') {
    return a.kind === b.kind ? EQUAL : a.kind === 'infinity' ? larger : -larger;
  }
  const [m, n] = [magnitude(a), magnitude(b)];
  if (m !== n) return m > n ? larger : -larger;
  const unit = Math.min(a.exponent, b.exponent);
  const x = a.significand << BigInt(a.exponent - unit);
  const y = b.significand << BigInt(b.exponent - unit);
  return x === y ? EQUAL : x > y ? larger : -larger;
}
