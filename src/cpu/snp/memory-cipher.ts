/**
 * The memory controller's cipher: AES-128 in XEX mode, a key an ASID, a tweak for every 16 bytes of physical memory (@apm 7.10, 15.34.1).
 *
 * A page of a guest stands in memory as the guest sees it; what anybody else sees is computed when somebody looks. Where a page changes hands
 * (RMPUPDATE) the bytes themselves are transformed, so that its new owner finds what he would find on silicon.
 */
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import { Aes128 } from './aes.ts';

const PAGE_WORDS = 1024;

interface Keys {
  readonly data: Aes128;
  readonly tweak: Aes128;
}

/** Words from a seed: keys are as secret here as the generator is simple. */
function keyFrom(seed: number): Int32Array {
  const key = new Int32Array(4);
  let x = seed | 0;
  for (let i = 0; i < 4; i++) {
    x = (x + 0x9e3779b9) | 0;
    let z = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    key[i] = z ^ (z >>> 15);
  }
  return key;
}

export class MemoryCipher {
  private readonly memory: PhysicalMemory;
  private readonly keys = new Map<number, Keys>();
  private readonly tweak = new Int32Array(4);
  private made = 0;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  /** A fresh key for the guest of `asid`. Two machines that do the same have the same keys. */
  installKey(asid: number): void {
    const seed = Math.imul(asid, 0x10001) + ++this.made;
    this.keys.set(asid, { data: new Aes128(keyFrom(seed)), tweak: new Aes128(keyFrom(~seed)) });
  }

  private of(asid: number): Keys {
    if (!this.keys.has(asid)) this.installKey(asid);
    return this.keys.get(asid)!;
  }

  /** Turns what the guest of `asid` sees in frame `pfn` into what stands in memory without its key, in place. */
  encryptFrame(asid: number, pfn: number): void {
    this.transform(asid, pfn, pfn * PAGE_WORDS, false);
  }

  /** The reverse. */
  decryptFrame(asid: number, pfn: number): void {
    this.transform(asid, pfn, pfn * PAGE_WORDS, true);
  }

  /** The same as `encryptFrame`, into the frame that starts at word `to`. */
  encryptInto(asid: number, pfn: number, to: number): void {
    this.memory.i32.copyWithin(to, pfn * PAGE_WORDS, (pfn + 1) * PAGE_WORDS);
    this.transform(asid, pfn, to, false);
  }

  /** Works on the 1024 words from `at` on, as those of frame `pfn`. */
  private transform(asid: number, pfn: number, at: number, backwards: boolean): void {
    const { data, tweak } = this.of(asid);
    const { i32 } = this.memory;
    const t = this.tweak;
    tweak.block.fill(0);
    tweak.block[0] = pfn;
    tweak.encrypt();
    t.set(tweak.block);
    const { block } = data;
    for (let word = at; word < at + PAGE_WORDS; word += 4) {
      for (let i = 0; i < 4; i++) block[i] = i32[word + i]! ^ t[i]!;
      if (backwards) data.decrypt();
      else data.encrypt();
      for (let i = 0; i < 4; i++) i32[word + i] = block[i]! ^ t[i]!;
      next(t);
    }
  }
}

/** The tweak of the following 16 bytes: times x in GF(2^128) (IEEE 1619). */
function next(t: Int32Array): void {
  const carry = t[3]! >> 31;
  t[3] = (t[3]! << 1) | (t[2]! >>> 31);
  t[2] = (t[2]! << 1) | (t[1]! >>> 31);
  t[1] = (t[1]! << 1) | (t[0]! >>> 31);
  t[0] = (t[0]! << 1) ^ (carry & 0x87);
}
