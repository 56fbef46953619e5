import { describe, expect, it } from 'vitest';
import type { Flag } from './flags.ts';
import { EPT_FLAGS, formatPte, PTE_FLAGS, pse36Pfn, ptePfn, rsvdLargeLo, rsvdPhysHi } from './paging.ts';
import { rsvdMask64 } from './rsvd-mask.testing.ts';

describe('flag lists', () => {
  for (const [name, list] of [
    ['PTE', PTE_FLAGS],
    ['EPT', EPT_FLAGS],
  ] as const) {
    it(`${name}: in bit order, disjoint, named once`, () => {
      const bits = list.map((f: Flag) => f.bit);
      expect(bits).toEqual([...new Set(bits)].sort((a, b) => a - b));
      expect(new Set(list.map((f) => f.name)).size).toBe(list.length);
    });
  }
});

describe('frames and reserved bits', () => {
  it('takes a frame out of an entry', () => {
    expect(ptePfn(0x12345fff | 0, 0x800abcde | 0)).toBe(0xabcde12345);
    expect(pse36Pfn(0x00c00087 | (5 << 13))).toBe(0x500c00);
    expect(formatPte(0x5067, 1 << 31)).toBe('pfn 5 P|W|U|A|D|NX');
  });

  it('agrees with the masks of the specification', () => {
    for (let bits = 32; bits <= 52; bits++) {
      expect(BigInt(rsvdPhysHi(bits)) << 32n).toBe(rsvdMask64(1, false, bits, true, true));
    }
    for (const level of [2, 3]) expect(BigInt(rsvdLargeLo(level))).toBe(rsvdMask64(level, true, 52, true, true));
  });
});
