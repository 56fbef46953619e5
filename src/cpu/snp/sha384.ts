/** SHA-384 (FIPS 180-4): the digest of launch measurements. 64-bit words are two halves, high first. */

/** The first `count` primes. */
function primes(count: number): number[] {
  const found: number[] = [];
  for (let n = 2; found.length < count; n++) if (found.every((p) => n % p !== 0)) found.push(n);
  return found;
}

/** The first 64 bits behind the point of the root of order `order` (2 or 3) of `n`, by bisection in digits of 16 bits. */
function rootFraction(n: number, order: 2 | 3): [number, number] {
  // A number is whole part and four digits; power() compares its power with n.
  const x = [0, 0, 0, 0, 0];
  x[0] = Math.floor(n ** (1 / order) + 1e-9);
  for (let digit = 1; digit <= 4; digit++) {
    let low = 0;
    let high = 65536;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      x[digit] = middle;
      if (powerAtMost(x, order, n)) low = middle;
      else high = middle;
    }
    x[digit] = low;
  }
  return [(x[1]! << 16) | x[2]! | 0, (x[3]! << 16) | x[4]! | 0];
}

function product(a: readonly number[], b: readonly number[]): number[] {
  const out = new Array<number>(a.length + b.length - 1).fill(0);
  for (const [i, x] of a.entries()) for (const [j, y] of b.entries()) out[i + j]! += x * y;
  for (let i = out.length - 1; i > 0; i--) {
    out[i - 1]! += Math.floor(out[i]! / 65536);
    out[i]! %= 65536;
  }
  return out;
}

function powerAtMost(x: readonly number[], order: 2 | 3, n: number): boolean {
  const square = product(x, x);
  return (order === 2 ? square : product(square, x))[0]! < n;
}

const K = new Int32Array(160);
const H = new Int32Array(16);
for (const [i, p] of primes(80).entries()) K.set(rootFraction(p, 3), 2 * i);
for (const [i, p] of primes(16).slice(8).entries()) H.set(rootFraction(p, 2), 2 * i);

/** SHA-384 of `data`: 48 bytes. */
export function sha384(data: Uint8Array): Uint8Array {
  const h = H.slice();
  const w = new Int32Array(160);
  const padded = new Uint8Array(Math.ceil((data.length + 17) / 128) * 128);
  padded.set(data);
  padded[data.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(data.length / 0x2000_0000));
  view.setUint32(padded.length - 4, data.length * 8);
  for (let at = 0; at < padded.length; at += 128) {
    for (let i = 0; i < 32; i++) w[i] = view.getInt32(at + 4 * i);
    compress(h, w);
  }
  const out = new DataView(new ArrayBuffer(48));
  for (let i = 0; i < 12; i++) out.setInt32(4 * i, h[i]!);
  return new Uint8Array(out.buffer);
}

/** Sum of unsigned low halves beyond 32 bits. */
const carry = (sum: number): number => Math.floor(sum / 0x1_0000_0000);

function schedule(w: Int32Array): void {
  for (let i = 32; i < 160; i += 2) {
    const ah = w[i - 30]!;
    const al = w[i - 29]!;
    const s0h = ((ah >>> 1) | (al << 31)) ^ ((ah >>> 8) | (al << 24)) ^ (ah >>> 7);
    const s0l = ((al >>> 1) | (ah << 31)) ^ ((al >>> 8) | (ah << 24)) ^ ((al >>> 7) | (ah << 25));
    const bh = w[i - 4]!;
    const bl = w[i - 3]!;
    const s1h = ((bh >>> 19) | (bl << 13)) ^ ((bl >>> 29) | (bh << 3)) ^ (bh >>> 6);
    const s1l = ((bl >>> 19) | (bh << 13)) ^ ((bh >>> 29) | (bl << 3)) ^ ((bl >>> 6) | (bh << 26));
    const low = (s0l >>> 0) + (s1l >>> 0) + (w[i - 13]! >>> 0) + (w[i - 31]! >>> 0);
    w[i + 1] = low;
    w[i] = s0h + s1h + w[i - 14]! + w[i - 32]! + carry(low);
  }
}

function compress(h: Int32Array, w: Int32Array): void {
  schedule(w);
  // a to h, high and low.
  const v = Array.from(h);
  for (let i = 0; i < 160; i += 2) {
    const eh = v[8]!;
    const el = v[9]!;
    const s1h = ((eh >>> 14) | (el << 18)) ^ ((eh >>> 18) | (el << 14)) ^ ((el >>> 9) | (eh << 23));
    const s1l = ((el >>> 14) | (eh << 18)) ^ ((el >>> 18) | (eh << 14)) ^ ((eh >>> 9) | (el << 23));
    const chh = (eh & v[10]!) ^ (~eh & v[12]!);
    const chl = (el & v[11]!) ^ (~el & v[13]!);
    const low1 = (v[15]! >>> 0) + (s1l >>> 0) + (chl >>> 0) + (K[i + 1]! >>> 0) + (w[i + 1]! >>> 0);
    const t1l = low1 | 0;
    const t1h = (v[14]! + s1h + chh + K[i]! + w[i]! + carry(low1)) | 0;
    const ah = v[0]!;
    const al = v[1]!;
    const s0h = ((ah >>> 28) | (al << 4)) ^ ((al >>> 2) | (ah << 30)) ^ ((al >>> 7) | (ah << 25));
    const s0l = ((al >>> 28) | (ah << 4)) ^ ((ah >>> 2) | (al << 30)) ^ ((ah >>> 7) | (al << 25));
    const majh = (ah & v[2]!) ^ (ah & v[4]!) ^ (v[2]! & v[4]!);
    const majl = (al & v[3]!) ^ (al & v[5]!) ^ (v[3]! & v[5]!);
    const low2 = (s0l >>> 0) + (majl >>> 0);
    const t2h = s0h + majh + carry(low2);
    for (let n = 15; n >= 2; n--) v[n] = v[n - 2]!;
    const lowE = (v[9]! >>> 0) + (t1l >>> 0);
    v[8] = (v[8]! + t1h + carry(lowE)) | 0;
    v[9] = lowE | 0;
    const lowA = (t1l >>> 0) + ((low2 | 0) >>> 0);
    v[0] = (t1h + t2h + carry(lowA)) | 0;
    v[1] = lowA | 0;
  }
  for (let i = 0; i < 16; i += 2) {
    const low = (h[i + 1]! >>> 0) + (v[i + 1]! >>> 0);
    h[i + 1] = low;
    h[i] = h[i]! + v[i]! + carry(low);
  }
}
