/** AESENC and kin, and PCLMULQDQ (@sdm volume 1, 12.13): operands in ASSIST_A and ASSIST_B. */
import { ASSIST_A, ASSIST_B, ASSIST_RESULT, type FpuMemory } from './fpu-memory.ts';

export const AES_ENCRYPT = 0;
export const AES_ENCRYPT_LAST = 1;
export const AES_DECRYPT = 2;
export const AES_DECRYPT_LAST = 3;
export const AES_INVERSE_MIX = 4;
export const AES_KEY = 5;
export const CARRYLESS_MULTIPLY = 6;

/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. */
function times(a: number, b: number): number {
  let product = 0;
  for (let x = a, y = b; y !== 0; y >>= 1) {
    if ((y & 1) !== 0) product ^= x;
    x = (x << 1) ^ ((x & 0x80) !== 0 ? 0x11b : 0);
  }
  return product & 0xff;
}
const forward = new Uint8Array(256);
const backward = new Uint8Array(256);
for (let value = 0; value < 256; value++) {
  // The inverse is the 254th power.
  let inverse = 1;
  for (let n = 0; n < 254; n++) inverse = times(inverse, value);
  if (value === 0) inverse = 0;
  let out = 0x63;
  for (let n = 0; n < 5; n++) out ^= ((inverse << n) | (inverse >> (8 - n))) & 0xff;
  forward[value] = out;
  backward[out] = value;
}
/** Multiplies each column by a circulant matrix. */
function mixed(state: readonly number[], row: readonly number[]): number[] {
  return state.map((_, n) => {
    const column = n & ~3;
    let sum = 0;
    for (let i = 0; i < 4; i++) sum ^= times(state[column + i]!, row[(i - n + 8) & 3]!);
    return sum;
  });
}
const MIX = [2, 3, 1, 1];
const INVERSE_MIX = [14, 11, 13, 9];

/** Executes `operation` with an immediate. */
export function aes(m: FpuMemory, operation: number, immediate: number): void {
  const a = [...m.u8.subarray(ASSIST_A, ASSIST_A + 16)];
  const b = [...m.u8.subarray(ASSIST_B, ASSIST_B + 16)];
  const put = (bytes: readonly number[]): void => m.u8.set(bytes, ASSIST_RESULT);
  const keyed = (state: readonly number[]): void => put(state.map((value, n) => value ^ b[n]!));
  switch (operation) {
    case AES_ENCRYPT:
    case AES_ENCRYPT_LAST: {
      const shifted = a.map((_, n) => forward[a[(n + 4 * (n & 3)) & 15]!]!);
      keyed(operation === AES_ENCRYPT ? mixed(shifted, MIX) : shifted);
      return;
    }
    case AES_DECRYPT:
    case AES_DECRYPT_LAST: {
      const shifted = a.map((_, n) => backward[a[(n - 4 * (n & 3) + 16) & 15]!]!);
      keyed(operation === AES_DECRYPT ? mixed(shifted, INVERSE_MIX) : shifted);
      return;
    }
    case AES_INVERSE_MIX:
      put(mixed(b, INVERSE_MIX));
      return;
    case AES_KEY: {
      const substitute = (at: number): number[] => b.slice(at, at + 4).map((value) => forward[value]!);
      const rotate = (x: readonly number[]): number[] => [x[1]! ^ immediate, x[2]!, x[3]!, x[0]!];
      const [low, high] = [substitute(4), substitute(12)];
      put([...low, ...rotate(low), ...high, ...rotate(high)]);
      return;
    }
    default: {
      let x = m.u64[(ASSIST_A >> 3) + (immediate & 1)]!;
      let y = m.u64[(ASSIST_B >> 3) + ((immediate >> 4) & 1)]!;
      let product = 0n;
      for (; y !== 0n; y >>= 1n, x <<= 1n) if ((y & 1n) !== 0n) product ^= x;
      m.u64[ASSIST_RESULT >> 3] = BigInt.asUintN(64, product);
      m.u64[(ASSIST_RESULT >> 3) + 1] = product >> 64n;
    }
  }
}
