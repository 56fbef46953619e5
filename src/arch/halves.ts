/**
 * Where 64-bit words change form. Hot code holds a word as two int32 halves (`lo`, `hi`), low first; addresses below 2^53 may be
 * numbers; bigint is for doors (API, command line, files) only, and these functions are the doors' hinges.
 */
const scratch = new BigUint64Array(1);
const scratchHalves = new Int32Array(scratch.buffer);

/** The unsigned 64-bit value of two halves. */
export function join64(lo: number, hi: number): bigint {
  scratchHalves[0] = lo;
  scratchHalves[1] = hi;
  return scratch[0]!;
}

/** Low half (int32) of a 64-bit value, taken modulo 2^64. */
export function lo64(value: bigint): number {
  scratch[0] = value;
  return scratchHalves[0]!;
}

/** High half (int32) of a 64-bit value, taken modulo 2^64. */
export function hi64(value: bigint): number {
  scratch[0] = value;
  return scratchHalves[1]!;
}

/** Low half (int32) of a non-negative integer below 2^53. */
export function loOf(value: number): number {
  return value | 0;
}

/** High half (int32) of a non-negative integer below 2^53. */
export function hiOf(value: number): number {
  return (value / 0x1_0000_0000) | 0;
}

/** The number that two halves make, exact below 2^53. */
export function numberOf(lo: number, hi: number): number {
  return (hi >>> 0) * 0x1_0000_0000 + (lo >>> 0);
}

/** `0x` and hex digits of a number or bigint that is not negative. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
