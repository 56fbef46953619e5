/** AES-128 on words, by tables: the cipher of the memory controller (@apm 7.10, FIPS 197). AESENC has its own, in src/cpu/floating. */

/** Products of a value of GF(2^8) and 2. */
const twice = (x: number): number => ((x << 1) ^ ((x & 0x80) !== 0 ? 0x11b : 0)) & 0xff;

const SBOX = new Uint8Array(256);
const INVERSE = new Uint8Array(256);
/** Substitution and column mix in one, for the first byte of a column; the others are rotations. */
const T = [0, 1, 2, 3].map(() => new Int32Array(256)) as [Int32Array, Int32Array, Int32Array, Int32Array];
const U = [0, 1, 2, 3].map(() => new Int32Array(256)) as [Int32Array, Int32Array, Int32Array, Int32Array];

function makeTables(): void {
  // p runs through the powers of 3, q through those of its inverse.
  let p = 1;
  let q = 1;
  do {
    p = p ^ twice(p);
    q ^= q << 1;
    q ^= q << 2;
    q ^= q << 4;
    q &= 0xff;
    if ((q & 0x80) !== 0) q ^= 0x09;
    const rotated = q ^ (q << 1) ^ (q << 2) ^ (q << 3) ^ (q << 4);
    SBOX[p] = ((rotated ^ (rotated >> 8)) & 0xff) ^ 0x63;
  } while (p !== 1);
  SBOX[0] = 0x63;
  for (let x = 0; x < 256; x++) INVERSE[SBOX[x]!] = x;
  for (let x = 0; x < 256; x++) {
    const s = SBOX[x]!;
    const s2 = twice(s);
    let word = s2 | (s << 8) | (s << 16) | ((s2 ^ s) << 24);
    const r = INVERSE[x]!;
    const r2 = twice(r);
    const r4 = twice(r2);
    const r8 = twice(r4);
    let back = (r8 ^ r4 ^ r2) | ((r8 ^ r) << 8) | ((r8 ^ r4 ^ r) << 16) | ((r8 ^ r2 ^ r) << 24);
    for (let i = 0; i < 4; i++) {
      T[i]![x] = word;
      U[i]![x] = back;
      word = (word << 8) | (word >>> 24);
      back = (back << 8) | (back >>> 24);
    }
  }
}
makeTables();

const ROUNDS = 10;

/** A key's schedule in both directions, and the cipher on four words (little-endian) of `block`. */
export class Aes128 {
  private readonly forward = new Int32Array(4 * (ROUNDS + 1));
  private readonly backward = new Int32Array(4 * (ROUNDS + 1));
  /** The block that the two operations work on. */
  readonly block = new Int32Array(4);

  /** @param key four words */
  constructor(key: Int32Array) {
    const w = this.forward;
    w.set(key.subarray(0, 4));
    let constant = 1;
    for (let i = 4; i < w.length; i++) {
      let t = w[i - 1]!;
      if ((i & 3) === 0) {
        t = (t >>> 8) | (t << 24);
        t = SBOX[t & 255]! | (SBOX[(t >>> 8) & 255]! << 8) | (SBOX[(t >>> 16) & 255]! << 16) | (SBOX[t >>> 24]! << 24);
        t ^= constant;
        constant = twice(constant);
      }
      w[i] = w[i - 4]! ^ t;
    }
    const [u0, u1, u2, u3] = U;
    for (let round = 0; round <= ROUNDS; round++) {
      for (let i = 0; i < 4; i++) {
        const x = w[4 * round + i]!;
        const mixed =
          u0[SBOX[x & 255]!]! ^ u1[SBOX[(x >>> 8) & 255]!]! ^ u2[SBOX[(x >>> 16) & 255]!]! ^ u3[SBOX[x >>> 24]!]!;
        this.backward[4 * (ROUNDS - round) + i] = round === 0 || round === ROUNDS ? x : mixed;
      }
    }
  }

  /** HOT */
  encrypt(): void {
    const { block, forward: w } = this;
    const [t0, t1, t2, t3] = T;
    let a = block[0]! ^ w[0]!;
    let b = block[1]! ^ w[1]!;
    let c = block[2]! ^ w[2]!;
    let d = block[3]! ^ w[3]!;
    let k = 4;
    for (let round = 1; round < ROUNDS; round++, k += 4) {
      const e = t0[a & 255]! ^ t1[(b >>> 8) & 255]! ^ t2[(c >>> 16) & 255]! ^ t3[d >>> 24]! ^ w[k]!;
      const f = t0[b & 255]! ^ t1[(c >>> 8) & 255]! ^ t2[(d >>> 16) & 255]! ^ t3[a >>> 24]! ^ w[k + 1]!;
      const g = t0[c & 255]! ^ t1[(d >>> 8) & 255]! ^ t2[(a >>> 16) & 255]! ^ t3[b >>> 24]! ^ w[k + 2]!;
      d = t0[d & 255]! ^ t1[(a >>> 8) & 255]! ^ t2[(b >>> 16) & 255]! ^ t3[c >>> 24]! ^ w[k + 3]!;
      a = e;
      b = f;
      c = g;
    }
    block[0] = last(SBOX, a, b, c, d) ^ w[k]!;
    block[1] = last(SBOX, b, c, d, a) ^ w[k + 1]!;
    block[2] = last(SBOX, c, d, a, b) ^ w[k + 2]!;
    block[3] = last(SBOX, d, a, b, c) ^ w[k + 3]!;
  }

  /** HOT */
  decrypt(): void {
    const { block, backward: w } = this;
    const [u0, u1, u2, u3] = U;
    let a = block[0]! ^ w[0]!;
    let b = block[1]! ^ w[1]!;
    let c = block[2]! ^ w[2]!;
    let d = block[3]! ^ w[3]!;
    let k = 4;
    for (let round = 1; round < ROUNDS; round++, k += 4) {
      const e = u0[a & 255]! ^ u1[(d >>> 8) & 255]! ^ u2[(c >>> 16) & 255]! ^ u3[b >>> 24]! ^ w[k]!;
      const f = u0[b & 255]! ^ u1[(a >>> 8) & 255]! ^ u2[(d >>> 16) & 255]! ^ u3[c >>> 24]! ^ w[k + 1]!;
      const g = u0[c & 255]! ^ u1[(b >>> 8) & 255]! ^ u2[(a >>> 16) & 255]! ^ u3[d >>> 24]! ^ w[k + 2]!;
      d = u0[d & 255]! ^ u1[(c >>> 8) & 255]! ^ u2[(b >>> 16) & 255]! ^ u3[a >>> 24]! ^ w[k + 3]!;
      a = e;
      b = f;
      c = g;
    }
    block[0] = last(INVERSE, a, d, c, b) ^ w[k]!;
    block[1] = last(INVERSE, b, a, d, c) ^ w[k + 1]!;
    block[2] = last(INVERSE, c, b, a, d) ^ w[k + 2]!;
    block[3] = last(INVERSE, d, c, b, a) ^ w[k + 3]!;
  }
}

/** The last round's column: substitution without the mix. */
function last(box: Uint8Array, a: number, b: number, c: number, d: number): number {
  return box[a & 255]! | (box[(b >>> 8) & 255]! << 8) | (box[(c >>> 16) & 255]! << 16) | (box[d >>> 24]! << 24);
}
