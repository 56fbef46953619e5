/**
 * Binary floating-point numbers taken apart: class, sign, an integer significand and the exponent of its lowest bit; and the one place
 * where results are rounded (@sdm volume 1, 4.8 and 4.9; volume 1, 8.5). Formats differ in precision and range alone.
 */

/** Exception flags, as MXCSR and the x87 status word have them in bits 5:0. */
export const FLAG_INVALID = 1;
export const FLAG_DENORMAL = 2;
export const FLAG_ZERO_DIVIDE = 4;
export const FLAG_OVERFLOW = 8;
export const FLAG_UNDERFLOW = 16;
export const FLAG_INEXACT = 32;
/** Those that are found before anything is computed. */
export const FLAGS_BEFORE = FLAG_INVALID | FLAG_DENORMAL | FLAG_ZERO_DIVIDE;

/** Rounding modes, as control words have them. */
export const ROUND_NEAREST = 0;
export const ROUND_DOWN = 1;
export const ROUND_UP = 2;
export const ROUND_ZERO = 3;

export type NumberClass = 'zero' | 'denormal' | 'normal' | 'infinity' | 'quiet' | 'signalling' | 'unsupported';

/** A finite value is significand * 2^exponent. The significand of a NaN is the 64-bit one of the extended format. */
export interface FloatValue {
  readonly kind: NumberClass;
  readonly sign: number;
  readonly significand: bigint;
  readonly exponent: number;
}

export interface FloatFormat {
  readonly precision: number;
  readonly minExponent: number;
  readonly maxExponent: number;
}
export const SINGLE: FloatFormat = { precision: 24, minExponent: -126, maxExponent: 127 };
export const DOUBLE: FloatFormat = { precision: 53, minExponent: -1022, maxExponent: 1023 };
export const HALF: FloatFormat = { precision: 11, minExponent: -14, maxExponent: 15 };
export const EXTENDED: FloatFormat = { precision: 64, minExponent: -16382, maxExponent: 16383 };
/** The extended format with less precision: what the x87 control word selects. */
const EXTENDED_24: FloatFormat = { ...EXTENDED, precision: 24 };
const EXTENDED_53: FloatFormat = { ...EXTENDED, precision: 53 };
/** By the PC field; 1 is reserved and means 64. */
export const EXTENDED_BY_CONTROL: readonly FloatFormat[] = [EXTENDED_24, EXTENDED, EXTENDED_53, EXTENDED];

/** What an operation is asked to do, and what it met. */
export class FloatEnvironment {
  rounding = ROUND_NEAREST;
  /** Bits of exceptions that are masked. */
  masks = 0x3f;
  flags = 0;
  /** The last rounding made the magnitude larger. */
  roundedUp = false;
  /** x87: of two NaNs the larger significand wins; unmasked over- and underflow deliver a scaled result. */
  x87 = false;
  flushToZero = false;
  denormalsAreZero = false;

  raise(flag: number): void {
    this.flags |= flag;
  }
  /** Unmasked exceptions so far. */
  get unmasked(): number {
    return this.flags & ~this.masks & 0x3f;
  }
}

const TOP = 1n << 63n;
const QUIET = 1n << 62n;
export const MASK64 = (1n << 64n) - 1n;

const special = (kind: NumberClass, sign: number, significand: bigint): FloatValue => ({
  kind,
  sign,
  significand,
  exponent: 0,
});
export const zero = (sign: number): FloatValue => special('zero', sign, 0n);
export const infinity = (sign: number): FloatValue => special('infinity', sign, 0n);
/** The default NaN, "real indefinite". */
export const INDEFINITE: FloatValue = special('quiet', 1, TOP | QUIET);
export const finite = (sign: number, significand: bigint, exponent: number): FloatValue =>
  significand === 0n ? zero(sign) : { kind: 'normal', sign, significand, exponent };

export const isNan = (v: FloatValue): boolean => v.kind === 'quiet' || v.kind === 'signalling';
export const negate = (v: FloatValue): FloatValue => ({ ...v, sign: v.sign ^ 1 });
export const quieted = (v: FloatValue): FloatValue => special('quiet', v.sign, v.significand | QUIET | TOP);

/** Bits of a positive integer. */
export function bitLength(value: bigint): number {
  let length = 0;
  let rest = value;
  while (rest > MASK64) {
    rest >>= 64n;
    length += 64;
  }
  const high = Number(rest >> 32n);
  return length + (high !== 0 ? 64 - Math.clz32(high) : 32 - Math.clz32(Number(rest & 0xffffffffn)));
}

/** The exponent of the leading bit. */
export const magnitude = (v: FloatValue): number => v.exponent + bitLength(v.significand) - 1;

let inexact = false;
let up = false;
/** `significand` * 2^`exponent` as a multiple of 2^`unit`; says in `inexact` and `up` what it did. */
export function roundToUnit(
  rounding: number,
  sign: number,
  significand: bigint,
  exponent: number,
  unit: number,
): bigint {
  const shift = unit - exponent;
  inexact = up = false;
  if (shift <= 0) return significand << BigInt(-shift);
  const by = BigInt(shift);
  const kept = significand >> by;
  const rest = significand - (kept << by);
  if (rest === 0n) return kept;
  inexact = true;
  if (rounding === ROUND_NEAREST) {
    const twice = rest << 1n;
    const one = 1n << by;
    up = twice > one || (twice === one && (kept & 1n) === 1n);
  } else {
    up = rounding === (sign === 0 ? ROUND_UP : ROUND_DOWN);
  }
  return up ? kept + 1n : kept;
}
/** What the last `roundToUnit` did. */
export const lastInexact = (): boolean => inexact;
export const lastRoundedUp = (): boolean => up;

/** How far an unmasked over- or underflow of x87 moves the exponent. */
const SCALE = 24576;

/** Rounds an exact value, or one whose lowest bit stands for anything below it, to `format`. */
export function round(
  env: FloatEnvironment,
  format: FloatFormat,
  sign: number,
  significand: bigint,
  exponent: number,
): FloatValue {
  if (significand === 0n) return zero(sign);
  const { precision, minExponent, maxExponent } = format;
  const leading = exponent + bitLength(significand) - 1;
  let unit = leading - precision + 1;
  let kept = roundToUnit(env.rounding, sign, significand, exponent, unit);
  const scaled = env.x87 && maxExponent === EXTENDED.maxExponent;
  // Tiny: below the normal range even after rounding with an unbounded exponent.
  if (leading < minExponent && unit + bitLength(kept) - 1 < minExponent) {
    if ((env.masks & FLAG_UNDERFLOW) === 0) {
      env.raise(FLAG_UNDERFLOW);
      if (inexact) env.raise(FLAG_INEXACT);
      env.roundedUp = up;
      return finite(sign, kept, unit + (scaled ? SCALE : 0));
    }
    if (env.flushToZero) {
      env.raise(FLAG_UNDERFLOW | FLAG_INEXACT);
      return zero(sign);
    }
    unit = minExponent - precision + 1;
    kept = roundToUnit(env.rounding, sign, significand, exponent, unit);
    if (inexact) env.raise(FLAG_UNDERFLOW);
  }
  if (inexact) env.raise(FLAG_INEXACT);
  env.roundedUp = up;
  if (kept === 0n) return zero(sign);
  if (unit + bitLength(kept) - 1 <= maxExponent) return finite(sign, kept, unit);
  env.raise(FLAG_OVERFLOW);
  if ((env.masks & FLAG_OVERFLOW) === 0) return finite(sign, kept, unit - (scaled ? SCALE : 0));
  return overflowed(env, format, sign);
}

/** The masked response to overflow: infinity, or the largest number where rounding goes the other way. */
export function overflowed(env: FloatEnvironment, format: FloatFormat, sign: number): FloatValue {
  env.raise(FLAG_OVERFLOW | FLAG_INEXACT);
  env.roundedUp = env.rounding === ROUND_NEAREST || env.rounding === (sign === 0 ? ROUND_UP : ROUND_DOWN);
  if (env.roundedUp) return infinity(sign);
  const { precision, maxExponent } = format;
  return finite(sign, (1n << BigInt(precision)) - 1n, maxExponent - precision + 1);
}

/** Bits of the exponent of a half, single or double. */
const exponentWidth = (format: FloatFormat): number => (format === SINGLE ? 8 : format === DOUBLE ? 11 : 5);
/** Takes apart a half, single or double. */
export function unpack(format: FloatFormat, bits: bigint): FloatValue {
  const fraction = format.precision - 1;
  const width = exponentWidth(format);
  const sign = Number((bits >> BigInt(fraction + width)) & 1n);
  const field = Number((bits >> BigInt(fraction)) & BigInt(2 ** width - 1));
  const low = bits & ((1n << BigInt(fraction)) - 1n);
  if (field === 2 ** width - 1) {
    if (low === 0n) return infinity(sign);
    const wide = (low << BigInt(63 - fraction)) | TOP;
    return special((wide & QUIET) !== 0n ? 'quiet' : 'signalling', sign, wide);
  }
  const unit = format.minExponent - fraction;
  if (field === 0) {
    return low === 0n ? zero(sign) : { kind: 'denormal', sign, significand: low, exponent: unit };
  }
  const significand = low | (1n << BigInt(fraction));
  return { kind: 'normal', sign, significand, exponent: unit + field - 1 };
}

/** The bits of a value that `format` can hold. */
export function pack(format: FloatFormat, v: FloatValue): bigint {
  const fraction = format.precision - 1;
  const width = exponentWidth(format);
  const sign = BigInt(v.sign) << BigInt(fraction + width);
  const most = BigInt(2 ** width - 1) << BigInt(fraction);
  const mask = (1n << BigInt(fraction)) - 1n;
  if (v.kind === 'infinity') return sign | most;
  if (isNan(v)) return sign | most | ((v.significand >> BigInt(63 - fraction)) & mask);
  if (v.significand === 0n) return sign;
  const leading = magnitude(v);
  const unit = Math.max(leading, format.minExponent) - fraction;
  const shift = v.exponent - unit;
  const aligned = shift >= 0 ? v.significand << BigInt(shift) : v.significand >> BigInt(-shift);
  if (leading < format.minExponent) return sign | aligned;
  // An exponent beyond the format is that of a result that will not be stored.
  const field = (leading - format.minExponent + 1) & (2 ** width - 1);
  return sign | (BigInt(field) << BigInt(fraction)) | (aligned & mask);
}

const BIAS = 16383;
/** Takes apart the extended format: 64 bits of significand; sign and exponent. */
export function unpackExtended(significand: bigint, signExponent: number): FloatValue {
  const sign = (signExponent >> 15) & 1;
  const field = signExponent & 0x7fff;
  if (field === 0) {
    const exponent = EXTENDED.minExponent - 63;
    return significand === 0n ? zero(sign) : { kind: 'denormal', sign, significand, exponent };
  }
  if ((significand & TOP) === 0n) return special('unsupported', sign, significand);
  if (field === 0x7fff) {
    if (significand === TOP) return infinity(sign);
    return special((significand & QUIET) !== 0n ? 'quiet' : 'signalling', sign, significand);
  }
  return { kind: 'normal', sign, significand, exponent: field - BIAS - 63 };
}

export interface ExtendedBits {
  readonly significand: bigint;
  readonly signExponent: number;
}
export function packExtended(v: FloatValue): ExtendedBits {
  const sign = v.sign << 15;
  if (v.kind === 'infinity') return { significand: TOP, signExponent: sign | 0x7fff };
  if (isNan(v)) return { significand: v.significand, signExponent: sign | 0x7fff };
  if (v.significand === 0n) return { significand: 0n, signExponent: sign };
  const leading = magnitude(v);
  const unit = Math.max(leading, EXTENDED.minExponent) - 63;
  const shift = v.exponent - unit;
  const significand = shift >= 0 ? v.significand << BigInt(shift) : v.significand >> BigInt(-shift);
  const field = (significand & TOP) === 0n ? 0 : leading + BIAS;
  return { significand, signExponent: sign | (field & 0x7fff) };
}
