/** The tables that a guest starts with when nobody else made them: a flat GDT and identity page tables. */

export const CODE32 = 0x08;
export const DATA = 0x10;
export const CODE64 = 0x18;
export const GDT_BYTES = 32;

/** Null, flat 32-bit code, flat data, flat 64-bit code. */
export function flatGdt(): Uint8Array {
  const entries = new BigUint64Array([0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x00af_9b00_0000_ffffn]);
  return new Uint8Array(entries.buffer);
}

const P_W = 0x3n;
const P_W_A_D_PS = 0xe3n;
export const IDENTITY_BYTES = 6 * 0x1000;

/** Page tables, to be put at `at`, that map the first 4 GiB to themselves by 2 MiB pages; the root is the first page. */
export function identityTables(at: number): Uint8Array {
  const words = new BigUint64Array(IDENTITY_BYTES / 8);
  const base = BigInt(at);
  words[0] = (base + 0x1000n) | P_W | 0x20n;
  for (let g = 0; g < 4; g++) {
    words[512 + g] = (base + 0x2000n + BigInt(g) * 0x1000n) | P_W | 0x20n;
    for (let i = 0; i < 512; i++) words[1024 + g * 512 + i] = (BigInt(g * 512 + i) << 21n) | P_W_A_D_PS;
  }
  return new Uint8Array(words.buffer);
}
