/**
 * SHA-384 (FIPS 180-4) in 32-bit halves: what TDX and SEV-SNP measure guests with. Its state can be copied, as a TD under
 * construction is part of what a capture of the machine holds.
 */

/** Round constants, low half first. */
const K = Int32Array.from([
  0xd728ae22, 0x428a2f98, 0x23ef65cd, 0x71374491, 0xec4d3b2f, 0xb5c0fbcf, 0x8189dbbc, 0xe9b5dba5, 0xf348b538,
  0x3956c25b, 0xb605d019, 0x59f111f1, 0xaf194f9b, 0x923f82a4, 0xda6d8118, 0xab1c5ed5, 0xa3030242, 0xd807aa98,
  0x45706fbe, 0x12835b01, 0x4ee4b28c, 0x243185be, 0xd5ffb4e2, 0x550c7dc3, 0xf27b896f, 0x72be5d74, 0x3b1696b1,
  0x80deb1fe, 0x25c71235, 0x9bdc06a7, 0xcf692694, 0xc19bf174, 0x9ef14ad2, 0xe49b69c1, 0x384f25e3, 0xefbe4786,
  0x8b8cd5b5, 0x0fc19dc6, 0x77ac9c65, 0x240ca1cc, 0x592b0275, 0x2de92c6f, 0x6ea6e483, 0x4a7484aa, 0xbd41fbd4,
  0x5cb0a9dc, 0x831153b5, 0x76f988da, 0xee66dfab, 0x983e5152, 0x2db43210, 0xa831c66d, 0x98fb213f, 0xb00327c8,
  0xbeef0ee4, 0xbf597fc7, 0x3da88fc2, 0xc6e00bf3, 0x930aa725, 0xd5a79147, 0xe003826f, 0x06ca6351, 0x0a0e6e70,
  0x14292967, 0x46d22ffc, 0x27b70a85, 0x5c26c926, 0x2e1b2138, 0x5ac42aed, 0x4d2c6dfc, 0x9d95b3df, 0x53380d13,
  0x8baf63de, 0x650a7354, 0x3c77b2a8, 0x766a0abb, 0x47edaee6, 0x81c2c92e, 0x1482353b, 0x92722c85, 0x4cf10364,
  0xa2bfe8a1, 0xbc423001, 0xa81a664b, 0xd0f89791, 0xc24b8b70, 0x0654be30, 0xc76c51a3, 0xd6ef5218, 0xd192e819,
  0x5565a910, 0xd6990624, 0x5771202a, 0xf40e3585, 0x32bbd1b8, 0x106aa070, 0xb8d2d0c8, 0x19a4c116, 0x5141ab53,
  0x1e376c08, 0xdf8eeb99, 0x2748774c, 0xe19b48a8, 0x34b0bcb5, 0xc5c95a63, 0x391c0cb3, 0xe3418acb, 0x4ed8aa4a,
  0x7763e373, 0x5b9cca4f, 0xd6b2b8a3, 0x682e6ff3, 0x5defb2fc, 0x748f82ee, 0x43172f60, 0x78a5636f, 0xa1f0ab72,
  0x84c87814, 0x1a6439ec, 0x8cc70208, 0x23631e28, 0x90befffa, 0xde82bde9, 0xa4506ceb, 0xb2c67915, 0xbef9a3f7,
  0xe372532b, 0xc67178f2, 0xea26619c, 0xca273ece, 0x21c0c207, 0xd186b8c7, 0xcde0eb1e, 0xeada7dd6, 0xee6ed178,
  0xf57d4f7f, 0x72176fba, 0x06f067aa, 0xa2c898a6, 0x0a637dc5, 0xbef90dae, 0x113f9804, 0x131c471b, 0x1b710b35,
  0x23047d84, 0x28db77f5, 0x40c72493, 0x32caab7b, 0x15c9bebc, 0x3c9ebe0a, 0x9c100d4c, 0x431d67c4, 0xcb3e42b6,
  0x4cc5d4be, 0xfc657e2a, 0x597f299c, 0x3ad6faec, 0x5fcb6fab, 0x4a475817, 0x6c44198c,
]);

/** Initial hash value, low half first. */
const H = Int32Array.from([
  0xc1059ed8, 0xcbbb9d5d, 0x367cd507, 0x629a292a, 0x3070dd17, 0x9159015a, 0xf70e5939, 0x152fecd8, 0xffc00b31,
  0x67332667, 0x68581511, 0x8eb44a87, 0x64f98fa7, 0xdb0c2e0d, 0xbefa4fa4, 0x47b5481d,
]);

const BLOCK = 128;
const DIGEST = 48;
/** Working words a to h of a block, and its message schedule; nothing of them outlives a call. */
const v = new Int32Array(16);
const w = new Int32Array(160);

export class Sha384 {
  private readonly state = H.slice();
  private readonly block = new Uint8Array(BLOCK);
  private filled = 0;
  private bytes = 0;

  /** A copy that goes on from here by itself. */
  clone(): Sha384 {
    const copy = new Sha384();
    copy.state.set(this.state);
    copy.block.set(this.block);
    copy.filled = this.filled;
    copy.bytes = this.bytes;
    return copy;
  }

  update(data: Uint8Array): void {
    this.bytes += data.length;
    for (let at = 0; at < data.length; ) {
      const take = Math.min(BLOCK - this.filled, data.length - at);
      this.block.set(data.subarray(at, at + take), this.filled);
      this.filled += take;
      at += take;
      if (this.filled === BLOCK) {
        this.compress();
        this.filled = 0;
      }
    }
  }

  /** The 48 bytes of the hash of everything so far; this object can go on. */
  digest(): Uint8Array {
    const end = this.clone();
    const { bytes } = end;
    const padding = new Uint8Array((end.filled < 112 ? 112 : 240) - end.filled);
    padding[0] = 0x80;
    end.update(padding);
    const length = new DataView(new ArrayBuffer(16));
    length.setUint32(8, Math.floor(bytes / 0x2000_0000));
    length.setUint32(12, (bytes * 8) % 0x1_0000_0000);
    end.update(new Uint8Array(length.buffer));
    const out = new DataView(new ArrayBuffer(64));
    for (let i = 0; i < 8; i++) {
      out.setInt32(8 * i, end.state[2 * i + 1]!);
      out.setInt32(8 * i + 4, end.state[2 * i]!);
    }
    return new Uint8Array(out.buffer, 0, DIGEST);
  }

  private compress(): void {
    const { block, state } = this;
    for (let i = 0; i < 16; i++) {
      const at = 8 * i;
      w[2 * i + 1] = (block[at]! << 24) | (block[at + 1]! << 16) | (block[at + 2]! << 8) | block[at + 3]!;
      w[2 * i] = (block[at + 4]! << 24) | (block[at + 5]! << 16) | (block[at + 6]! << 8) | block[at + 7]!;
    }
    for (let t = 16; t < 80; t++) {
      const [al, ah] = [w[2 * t - 30]!, w[2 * t - 29]!];
      const [bl, bh] = [w[2 * t - 4]!, w[2 * t - 3]!];
      // sigma0: rotations by 1 and 8, shift by 7; sigma1: 19, 61 and 6.
      const s0l = ((al >>> 1) | (ah << 31)) ^ ((al >>> 8) | (ah << 24)) ^ ((al >>> 7) | (ah << 25));
      const s0h = ((ah >>> 1) | (al << 31)) ^ ((ah >>> 8) | (al << 24)) ^ (ah >>> 7);
      const s1l = ((bl >>> 19) | (bh << 13)) ^ ((bh >>> 29) | (bl << 3)) ^ ((bl >>> 6) | (bh << 26));
      const s1h = ((bh >>> 19) | (bl << 13)) ^ ((bl >>> 29) | (bh << 3)) ^ (bh >>> 6);
      const low = (w[2 * t - 32]! >>> 0) + (w[2 * t - 14]! >>> 0) + (s0l >>> 0) + (s1l >>> 0);
      w[2 * t] = low;
      w[2 * t + 1] = w[2 * t - 31]! + w[2 * t - 13]! + s0h + s1h + Math.floor(low / 0x1_0000_0000);
    }
    v.set(state);
    for (let t = 0; t < 80; t++) this.round(t);
    for (let i = 0; i < 16; i += 2) {
      const low = (state[i]! >>> 0) + (v[i]! >>> 0);
      state[i] = low;
      state[i + 1] = state[i + 1]! + v[i + 1]! + (low >= 0x1_0000_0000 ? 1 : 0);
    }
  }

  private round(t: number): void {
    const [el, eh] = [v[8]!, v[9]!];
    const [al, ah] = [v[0]!, v[1]!];
    const S1l = ((el >>> 14) | (eh << 18)) ^ ((el >>> 18) | (eh << 14)) ^ ((eh >>> 9) | (el << 23));
    const S1h = ((eh >>> 14) | (el << 18)) ^ ((eh >>> 18) | (el << 14)) ^ ((el >>> 9) | (eh << 23));
    const chl = (el & v[10]!) ^ (~el & v[12]!);
    const chh = (eh & v[11]!) ^ (~eh & v[13]!);
    const t1l = (v[14]! >>> 0) + (S1l >>> 0) + (chl >>> 0) + (K[2 * t]! >>> 0) + (w[2 * t]! >>> 0);
    const t1h = (v[15]! + S1h + chh + K[2 * t + 1]! + w[2 * t + 1]! + Math.floor(t1l / 0x1_0000_0000)) | 0;
    const S0l = ((al >>> 28) | (ah << 4)) ^ ((ah >>> 2) | (al << 30)) ^ ((ah >>> 7) | (al << 25));
    const S0h = ((ah >>> 28) | (al << 4)) ^ ((al >>> 2) | (ah << 30)) ^ ((al >>> 7) | (ah << 25));
    const majl = (al & v[2]!) ^ (al & v[4]!) ^ (v[2]! & v[4]!);
    const majh = (ah & v[3]!) ^ (ah & v[5]!) ^ (v[3]! & v[5]!);
    const t2l = (S0l >>> 0) + (majl >>> 0);
    const t2h = (S0h + majh + (t2l >= 0x1_0000_0000 ? 1 : 0)) | 0;
    v.copyWithin(2, 0, 14);
    const dl = (v[8]! >>> 0) + ((t1l | 0) >>> 0);
    v[8] = dl;
    v[9] = v[9]! + t1h + (dl >= 0x1_0000_0000 ? 1 : 0);
    const nl = ((t1l | 0) >>> 0) + ((t2l | 0) >>> 0);
    v[0] = nl;
    v[1] = t1h + t2h + (nl >= 0x1_0000_0000 ? 1 : 0);
  }
}

/** SHA-384 of `data`: 48 bytes. */
export function sha384(data: Uint8Array): Uint8Array {
  const hash = new Sha384();
  hash.update(data);
  return hash.digest();
}
