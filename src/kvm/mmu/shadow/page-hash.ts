/** Shadow pages by the gfn that they are for (@kvm kvm_host.h mmu_page_hash). */
import type { ShadowPage } from '../shadow-page.ts';

const HASH_SHIFT = 12;
/** 2^64 divided by the golden ratio. @kvm hash.h GOLDEN_RATIO_64 */
const GOLDEN_LO = 0x80b583eb | 0;
const GOLDEN_HI = 0x61c88646;

/** High half of the product of two unsigned words. */
function multiplyHigh(a: number, b: number): number {
  const aLo = a & 0xffff;
  const aHi = a >>> 16;
  const bLo = b & 0xffff;
  const bHi = b >>> 16;
  const cross = aHi * bLo + ((aLo * bLo) >>> 16);
  const low = aLo * bHi + (cross % 0x10000);
  return (aHi * bHi + Math.floor(cross / 0x10000) + Math.floor(low / 0x10000)) | 0;
}

/** @kvm mmu.c kvm_page_table_hashfn */
function hashOf(gfn: number): number {
  const lo = gfn | 0;
  const hi = Math.floor(gfn / 0x1_0000_0000);
  const high = (multiplyHigh(lo, GOLDEN_LO) + Math.imul(lo, GOLDEN_HI) + Math.imul(hi, GOLDEN_LO)) | 0;
  return high >>> (32 - HASH_SHIFT);
}

/** Buckets, chained through the pages' own `hashNext`. */
export class PageHash {
  private readonly buckets: (ShadowPage | null)[] = new Array(1 << HASH_SHIFT).fill(null);

  /** First page of the bucket that `gfn`'s pages are in, newest first; others follow as `hashNext`. */
  bucket(gfn: number): ShadowPage | null {
    return this.buckets[hashOf(gfn)]!;
  }

  add(sp: ShadowPage): void {
    const n = hashOf(sp.gfn);
    sp.hashNext = this.buckets[n]!;
    this.buckets[n] = sp;
  }

  remove(sp: ShadowPage): void {
    const n = hashOf(sp.gfn);
    let at: ShadowPage | null = this.buckets[n]!;
    if (at === sp) this.buckets[n] = sp.hashNext;
    else {
      while (at !== null && at.hashNext !== sp) at = at.hashNext;
      if (at === null) throw new Error(`shadow page of gfn 0x${sp.gfn.toString(16)} is not in the hash`);
      at.hashNext = sp.hashNext;
    }
    sp.hashNext = null;
  }
}
