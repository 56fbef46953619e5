import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ShadowPage } from '../shadow-page.ts';
import { PageHash } from './page-hash.ts';

/** The kernel's hash_64 to 12 bits. */
const reference = (gfn: number): bigint => ((BigInt(gfn) * 0x61c8864680b583ebn) & 0xffff_ffff_ffff_ffffn) >> 52n;

function page(gfn: number): ShadowPage {
  const sp = new ShadowPage();
  sp.gfn = gfn;
  return sp;
}

describe('the hash of shadow pages', () => {
  it('puts into one bucket what the kernel would', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.maxSafeNat(), (a, b) => {
        const hash = new PageHash();
        const [x, y] = [a % 2 ** 40, b % 2 ** 40];
        const sp = page(x);
        hash.add(sp);
        expect(hash.bucket(y) === sp).toBe(reference(x) === reference(y));
      }),
    );
  });

  it('finds the newest first, and forgets any', () => {
    const hash = new PageHash();
    const [a, b, c] = [page(7), page(7), page(7)];
    for (const sp of [a, b, c]) hash.add(sp);
    hash.remove(b);
    expect(hash.bucket(7)).toBe(c);
    expect(c.hashNext).toBe(a);
    hash.remove(c);
    hash.remove(a);
    expect(hash.bucket(7)).toBeNull();
    expect(() => hash.remove(a)).toThrow(/not in the hash/);
  });
});
