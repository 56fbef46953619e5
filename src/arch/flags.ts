/**
 * A flag list is the definition and the printer of one word: every mask is a row, and trace, command line and docs print from it.
 */

/** One flag of a word of at most 64 bits, as the two halves that hot code tests. */
export interface Flag {
  /** The name that is printed, as the manuals and the kernel write it. */
  readonly name: string;
  /** Bit number, 0 to 63. */
  readonly bit: number;
  /** Mask in the low half (signed), 0 when the bit is in the high half. */
  readonly lo: number;
  /** Mask in the high half (signed), 0 when the bit is in the low half. */
  readonly hi: number;
  /** What the bit says when it is set, in a sentence. */
  readonly meaning: string;
}

/** Makes the row of a flag list for bit `bit`. */
export function flag(name: string, bit: number, meaning: string): Flag {
  return { name, bit, lo: bit < 32 ? 1 << bit : 0, hi: bit < 32 ? 0 : 1 << (bit - 32), meaning };
}

/** The flags of `list` that are set in (lo, hi), in the list's order. */
function flagsSet(list: readonly Flag[], lo: number, hi: number): readonly Flag[] {
  return list.filter((f) => ((lo & f.lo) | (hi & f.hi)) !== 0);
}

/** `A|B|0x100` for a word: names joined by `|`, what no flag names as hex, nothing at all as `none`. */
export function formatFlags(list: readonly Flag[], lo: number, hi: number, none = '0'): string {
  const names = flagsSet(list, lo, hi).map((f) => f.name);
  let restLo = lo;
  let restHi = hi;
  for (const f of list) {
    restLo &= ~f.lo;
    restHi &= ~f.hi;
  }
  if ((restLo | restHi) !== 0) names.push(hex64(restLo, restHi));
  return names.length === 0 ? none : names.join('|');
}

/** Hex of a 64-bit word given as halves, `0x` and no leading zeros. */
export function hex64(lo: number, hi: number): string {
  const low = (lo >>> 0).toString(16);
  return hi === 0 ? `0x${low}` : `0x${(hi >>> 0).toString(16)}${low.padStart(8, '0')}`;
}
