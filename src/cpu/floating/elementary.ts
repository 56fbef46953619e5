/**
 * x87's transcendental functions, in fixed point with far more bits than the format and rounded once: within half a unit of the last
 * place of the function, where processors promise less than one (@sdm volume 1, 8.3.10). Trigonometric arguments are reduced with
 * the 66-bit pi that processors use, so that results near its multiples are theirs.
 */
import { bitLength, type FloatValue, finite } from './number.ts';

/** Bits after the point. */
const POINT = 200;
const ONE = 1n << BigInt(POINT);
const shift = (value: bigint, by: number): bigint => (by >= 0 ? value << BigInt(by) : value >> BigInt(-by));
/** a * b / 2^bits towards zero: what rounds down would keep a negative series from ending. */
const product = (a: bigint, b: bigint, bits: number): bigint => (a * b) / (1n << BigInt(bits));
const mul = (a: bigint, b: bigint): bigint => product(a, b, POINT);
const div = (a: bigint, b: bigint): bigint => (a << BigInt(POINT)) / b;

/** 2 artanh(x) = ln((1+x)/(1-x)). */
function logRatio(x: bigint): bigint {
  const square = mul(x, x);
  let power = x;
  let sum = 0n;
  for (let n = 1n; power !== 0n; n += 2n) {
    sum += power / n;
    power = mul(power, square);
  }
  return 2n * sum;
}
/** arctan of |x| below about one half. */
function arctanSeries(x: bigint): bigint {
  const square = mul(x, x);
  let power = x;
  let sum = 0n;
  for (let n = 1n; power !== 0n; n += 2n) {
    sum += n % 4n === 1n ? power / n : -(power / n);
    power = mul(power, square);
  }
  return sum;
}
const LN2 = logRatio(ONE / 3n);
/** Machin's formula. */
const PI = 4n * (4n * arctanSeries(ONE / 5n) - arctanSeries(ONE / 239n));
const LN10 = 3n * LN2 + logRatio(ONE / 9n);

/** A constant with `POINT` bits behind the point. */
export interface Constant {
  readonly significand: bigint;
  readonly exponent: number;
}
const constant = (significand: bigint): Constant => ({ significand, exponent: -POINT });
export const LOG2_10 = constant(div(LN10, LN2));
export const LOG2_E = constant(div(ONE, LN2));
export const PI_CONSTANT = constant(PI);
export const LOG10_2 = constant(div(LN2, LN10));
export const LN_2 = constant(LN2);

/** A result in fixed point as an exact value that stands for an inexact one: a bit far below keeps rounding honest. */
export function inexactResult(sign: number, value: bigint, exponent: number): FloatValue {
  return finite(sign, (value << 1n) | 1n, exponent - 1);
}

/** ln of a positive value over ln 2, and the exponent that goes with it; relative precision even near 1. */
function log2Fixed(v: FloatValue): { value: bigint; unit: number } {
  let exponent = v.exponent + bitLength(v.significand) - 1;
  let mantissa = shift(v.significand, POINT - bitLength(v.significand) + 1);
  if (mantissa > (ONE * 3n) / 2n) {
    mantissa >>= 1n;
    exponent++;
  }
  // More bits for an argument near 1: the series then starts with a tiny term.
  const numerator = mantissa - ONE;
  const extra = 80;
  const x = (numerator << BigInt(POINT + extra)) / (mantissa + ONE);
  const square = (x * x) >> BigInt(POINT + 2 * extra);
  let power = x;
  let sum = 0n;
  for (let n = 1n; power !== 0n; n += 2n) {
    sum += power / n;
    power = product(power, square, POINT);
  }
  const log = (2n * sum * ONE) / LN2;
  return { value: log + (BigInt(exponent) << BigInt(POINT + extra)), unit: -(POINT + extra) };
}

const signed = (value: bigint, sign: number): [number, bigint] => (value < 0n ? [sign ^ 1, -value] : [sign, value]);

/** y * log2(x) for positive finite x and finite y, neither giving zero. */
export function yLog2x(x: FloatValue, y: FloatValue): FloatValue {
  const { value, unit } = log2Fixed(x);
  const [sign, m] = signed(value, y.sign);
  // x a power of two: exact.
  const powerOfTwo = (x.significand & (x.significand - 1n)) === 0n;
  return powerOfTwo
    ? finite(sign, m * y.significand, unit + y.exponent)
    : inexactResult(sign, m * y.significand, unit + y.exponent);
}
/** y * log2(1 + x) for |x| below one. */
export function yLog2xPlus1(x: FloatValue, y: FloatValue): FloatValue {
  const sign = x.sign;
  const leading = x.exponent + bitLength(x.significand) - 1;
  if (leading < -POINT / 2) {
    // log2(1 + x) is x / ln 2 there.
    return inexactResult(
      sign ^ y.sign,
      ((x.significand << BigInt(2 * POINT)) / LN2) * y.significand,
      x.exponent + y.exponent - POINT,
    );
  }
  // 2 artanh(x / (2 + x)), with as many bits again as x is small.
  const bits = POINT - leading;
  const one = 1n << BigInt(bits);
  const magnitude = shift(x.significand, x.exponent + bits);
  const value = sign === 1 ? -magnitude : magnitude;
  const t = (value << BigInt(bits)) / (2n * one + value);
  const square = (t * t) >> BigInt(bits);
  let power = t;
  let sum = 0n;
  for (let n = 1n; power !== 0n; n += 2n) {
    sum += power / n;
    power = product(power, square, bits);
  }
  const [s, m] = signed((2n * sum * ONE) / LN2, y.sign);
  return inexactResult(s, m * y.significand, y.exponent - bits);
}

/** 2^x - 1 for |x| at most one. */
export function exp2Minus1(x: FloatValue): FloatValue {
  const leading = x.exponent + bitLength(x.significand) - 1;
  const bits = POINT - Math.max(leading, -16500);
  const ln2 = shift(LN2, 0);
  const magnitude = shift(x.significand, x.exponent + bits);
  const argument = ((x.sign === 1 ? -magnitude : magnitude) * ln2) >> BigInt(POINT);
  let term = argument;
  let sum = 0n;
  for (let n = 2n; term !== 0n; n++) {
    sum += term;
    term = product(term, argument, bits) / n;
  }
  const [sign, m] = signed(sum, 0);
  return inexactResult(sign, m, -bits);
}

/** arctan(y / x) in the quadrant of (x, y), both finite and not zero. */
export function arctan2(y: FloatValue, x: FloatValue): FloatValue {
  const [ly, lx] = [y.exponent + bitLength(y.significand), x.exponent + bitLength(x.significand)];
  const swap =
    ly > lx ||
    (ly === lx &&
      shift(y.significand, y.exponent - Math.min(y.exponent, x.exponent)) >
        shift(x.significand, x.exponent - Math.min(y.exponent, x.exponent)));
  const [small, large] = swap ? [x, y] : [y, x];
  const gap = Math.abs(ly - lx);
  if (!swap && x.sign === 0 && gap > 130) {
    // The ratio itself, a little less.
    const q = (((y.significand << BigInt(POINT)) / x.significand) << 1n) - 1n;
    return finite(y.sign, q, y.exponent - x.exponent - POINT - 1);
  }
  const bits = POINT + Math.min(gap, 200);
  const one = 1n << BigInt(bits);
  const ratio = shift(
    (small.significand << BigInt(2 * bits)) / large.significand,
    small.exponent - large.exponent - bits,
  );
  const pi = shift(PI, bits - POINT);
  // Halve the argument twice: arctan t = 2 arctan(t / (1 + sqrt(1 + t^2))).
  let t = ratio;
  for (let i = 0; i < 2; i++) {
    const root = integerRoot((one << BigInt(bits)) + t * t);
    t = (t << BigInt(bits)) / (one + root);
  }
  const square = (t * t) >> BigInt(bits);
  let power = t;
  let sum = 0n;
  for (let n = 1n; power !== 0n; n += 2n) {
    sum += n % 4n === 1n ? power / n : -(power / n);
    power = product(power, square, bits);
  }
  let angle = 4n * sum;
  if (swap) angle = pi / 2n - angle;
  if (x.sign === 1) angle = pi - angle;
  return inexactResult(y.sign, angle, -bits);
}
function integerRoot(value: bigint): bigint {
  let x = 1n << BigInt((bitLength(value) + 1) >> 1);
  for (;;) {
    const next = (x + value / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
}
/** A multiple `quarters` of pi/4, as FPATAN gives for infinities and zeros. */
export const quarterPi = (sign: number, quarters: bigint): FloatValue =>
  inexactResult(sign, (PI * quarters) / 4n, -POINT);

/** pi to 66 bits. */
const HARDWARE_PI = 0xc90fdaa22168c234cn;
const HARDWARE_PI_EXPONENT = -66;

/** sin and cos of a finite value below 2^63 in magnitude. */
export function sinCos(v: FloatValue): { sin: FloatValue; cos: FloatValue } {
  // The remainder by pi/2, exactly, in units of 2^unit.
  const unit = Math.min(v.exponent, HARDWARE_PI_EXPONENT - 1);
  const x = shift(v.significand, v.exponent - unit);
  const half = shift(HARDWARE_PI, HARDWARE_PI_EXPONENT - 1 - unit);
  let quotient = x / half;
  let rest = x - quotient * half;
  if (2n * rest > half) {
    rest -= half;
    quotient++;
  }
  const length = rest === 0n ? 0 : bitLength(rest < 0n ? -rest : rest) + unit;
  const bits = POINT - Math.min(length, 0);
  const r = shift(rest, unit + bits);
  const one = 1n << BigInt(bits);
  const square = (r * r) >> BigInt(bits);
  let sin = 0n;
  let cos = 0n;
  let term = one;
  let odd = r;
  for (let n = 1n; term !== 0n || odd !== 0n; n += 2n) {
    cos += term;
    sin += odd;
    term = -(product(term, square, bits) / (n * (n + 1n)));
    odd = -(product(odd, square, bits) / ((n + 1n) * (n + 2n)));
  }
  const quadrant = Number(quotient & 3n);
  const values: [bigint, bigint] = quadrant % 2 === 0 ? [sin, cos] : [cos, sin];
  const signs = [
    [0, 0],
    [0, 1],
    [1, 1],
    [1, 0],
  ][quadrant]!;
  const [s1, m1] = signed(values[0], signs[0]! ^ v.sign);
  const [s2, m2] = signed(values[1], signs[1]!);
  return { sin: inexactResult(s1, m1, -bits), cos: inexactResult(s2, m2, -bits) };
}
/** tan, from the same reduction. */
export function tangent(v: FloatValue): FloatValue {
  const { sin, cos } = sinCos(v);
  // As many bits again as the sine is small.
  const by = 2 * POINT + bitLength(cos.significand);
  const q = (sin.significand << BigInt(by)) / cos.significand;
  return inexactResult(sin.sign ^ cos.sign, q, sin.exponent - cos.exponent - by);
}
