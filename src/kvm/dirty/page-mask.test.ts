import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { join64 } from '../../arch/halves.ts';
import { PageMask } from './page-mask.ts';

function maskOf(bits: readonly number[]): PageMask {
  const mask = new PageMask();
  for (const bit of bits) mask.set(bit);
  return mask;
}

const pages = fc.uniqueArray(fc.nat(63));

describe('PageMask', () => {
  it('is the 64-bit word with those bits', () => {
    fc.assert(
      fc.property(pages, (bits) => {
        const mask = maskOf(bits);
        expect(join64(mask.lo, mask.hi)).toBe(bits.reduce((word, bit) => word | (1n << BigInt(bit)), 0n));
        expect(mask.last()).toBe(Math.max(-1, ...bits));
      }),
    );
  });

  it('moves up as the word does', () => {
    fc.assert(
      fc.property(pages, fc.integer({ min: 1, max: 63 }), (bits, count) => {
        const mask = maskOf(bits);
        const before = join64(mask.lo, mask.hi);
        mask.shiftUp(count);
        expect(join64(mask.lo, mask.hi)).toBe(BigInt.asUintN(64, before << BigInt(count)));
      }),
    );
  });
});
