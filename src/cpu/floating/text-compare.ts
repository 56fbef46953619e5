/** PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (@sdm volume 2, 4.1): two strings of bytes or words in ASSIST_A and ASSIST_B. */
import { ASSIST_A, ASSIST_B, ASSIST_RESULT, type FpuMemory } from './fpu-memory.ts';

/** Bits of the argument above the immediate. */
export const TEXT_EXPLICIT = 0x100;

/**
 * Compares as the immediate says. With TEXT_EXPLICIT the lengths are the signed 64-bit words at ASSIST_RESULT and 8 bytes on. Afterwards ASSIST_RESULT
 * holds the mask (expanded if the immediate says so), 16 bytes; the index at +0x18 and the flags word at +0x1c.
 */
export function compareText(m: FpuMemory, argument: number): void {
  const words = (argument & 1) !== 0;
  const isSigned = (argument & 2) !== 0;
  const count = words ? 8 : 16;
  const element = (at: number, n: number): number => {
    if (!words) return isSigned ? (m.u8[at + n]! << 24) >> 24 : m.u8[at + n]!;
    const value = m.u8[at + 2 * n]! | (m.u8[at + 2 * n + 1]! << 8);
    return isSigned ? (value << 16) >> 16 : value;
  };
  const length = (at: number, lengthAt: number): number => {
    if ((argument & TEXT_EXPLICIT) !== 0) {
      const value = BigInt.asIntN(64, m.u64[lengthAt >> 3]!);
      const positive = value < 0n ? -value : value;
      return positive > BigInt(count) ? count : Number(positive);
    }
    for (let n = 0; n < count; n++) if (element(at, n) === 0) return n;
    return count;
  };
  const [la, lb] = [length(ASSIST_A, ASSIST_RESULT), length(ASSIST_B, ASSIST_RESULT + 8)];
  const a = Array.from({ length: count }, (_, n) => element(ASSIST_A, n));
  const b = Array.from({ length: count }, (_, n) => element(ASSIST_B, n));
  let mask = 0;
  for (let j = 0; j < count; j++) {
    let bit = false;
    switch ((argument >> 2) & 3) {
      case 0: // equal to any
        for (let i = 0; i < la; i++) bit ||= j < lb && a[i] === b[j];
        break;
      case 1: // within ranges
        for (let i = 0; i + 1 < la; i += 2) bit ||= j < lb && b[j]! >= a[i]! && b[j]! <= a[i + 1]!;
        break;
      case 2: // equal each: both ended counts as equal
        bit = j < la && j < lb ? a[j] === b[j] : j >= la && j >= lb;
        break;
      default: // equal ordered: a is a substring at j
        bit = true;
        for (let i = 0; i < la && i + j < count; i++) bit &&= i + j < lb && a[i] === b[i + j];
    }
    if (bit) mask |= 1 << j;
  }
  const polarity = (argument >> 4) & 3;
  if (polarity === 1) mask ^= (1 << count) - 1;
  else if (polarity === 3) mask ^= lb >= 16 ? 0xffff : (1 << lb) - 1;
  mask &= (1 << count) - 1;
  const index = mask === 0 ? count : (argument & 0x40) !== 0 ? 31 - Math.clz32(mask) : 31 - Math.clz32(mask & -mask);
  const flags =
    (mask !== 0 ? 0x001 : 0) | (lb < count ? 0x040 : 0) | (la < count ? 0x080 : 0) | ((mask & 1) !== 0 ? 0x800 : 0);
  m.u8.fill(0, ASSIST_RESULT, ASSIST_RESULT + 16);
  if ((argument & 0x40) === 0) {
    m.i32[ASSIST_RESULT >> 2] = mask;
  } else {
    const size = 16 / count;
    for (let n = 0; n < 16; n++) m.u8[ASSIST_RESULT + n] = ((mask >> Math.floor(n / size)) & 1) !== 0 ? 0xff : 0;
  }
  m.i32[(ASSIST_RESULT + 0x18) >> 2] = index;
  m.i32[(ASSIST_RESULT + 0x1c) >> 2] = flags;
}
