import { describe, expect, it } from 'vitest';
import { join64 } from '../../arch/halves.ts';
import {
  defaultSpteMasks,
  eptSpteMasks,
  FROZEN_SPTE_HI,
  FROZEN_SPTE_LO,
  isAccessedSpte,
  isAccessTrack,
  isFrozenSpte,
  isMmioSpte,
  isMmuWritable,
  isShadowPresent,
  makeMmioSpte,
  makeNonleafSpte,
  markSpteForAccessTrack,
  mmioSpteAccess,
  mmioSpteGeneration,
  mmioSpteGfn,
  restoreAccTrackSpte,
  SPTE_TDP_AD_DISABLED_HI,
  SpteWord,
  sptePfn,
  spteWritableInvariantsHold,
} from './spte.ts';

const npt = defaultSpteMasks(40);
const word = new SpteWord();

describe('spte', () => {
  it('has the bits of nested page tables', () => {
    makeNonleafSpte(npt, word, 0x12345, false);
    expect(join64(word.lo, word.hi)).toBe(0x1234_5827n);
    expect(sptePfn(word.lo, word.hi)).toBe(0x12345);
    expect(isShadowPresent(word.lo)).toBe(true);
  });

  it('keeps gfn, rights and all 19 bits of the generation in an MMIO entry', () => {
    for (const generation of [0, 2, 0xff, 0x100, 0x7ffff, 0x5a5a4]) {
      for (const gfn of [1, 0xd0000, 0xfffffff]) {
        makeMmioSpte(npt, word, generation, gfn, 7);
        expect(isMmioSpte(npt, word.lo, word.hi)).toBe(true);
        expect(isShadowPresent(word.lo)).toBe(false);
        expect(mmioSpteGeneration(word.lo, word.hi)).toBe(generation);
        expect(mmioSpteGfn(npt, word.lo, word.hi)).toBe(gfn);
        expect(mmioSpteAccess(npt, word.lo)).toBe(6);
      }
    }
    makeMmioSpte(npt, word, 2, 0xd0000, 7);
    expect(join64(word.lo, word.hi)).toBe(0x8_0000_d000_0017n);
  });

  it('moves the gfn bits that the L1TF mitigation takes in an EPT MMIO entry', () => {
    const ept = eptSpteMasks({ hasAdBits: true, hasExecOnly: true, l1tfHi: 0xf8 });
    makeMmioSpte(ept, word, 2, 0x801, 7);
    expect(join64(word.lo, word.hi)).toBe(0xf8_0080_1016n);
    makeMmioSpte(ept, word, 2, 0xa800801, 7);
    expect(mmioSpteGfn(ept, word.lo, word.hi)).toBe(0xa800801);
    expect(isMmioSpte(ept, word.lo, word.hi)).toBe(true);
  });

  it('takes no frozen or missing entry for an MMIO one', () => {
    expect(isFrozenSpte(FROZEN_SPTE_LO, FROZEN_SPTE_HI)).toBe(true);
    expect(isMmioSpte(npt, FROZEN_SPTE_LO, FROZEN_SPTE_HI)).toBe(false);
    expect(isMmioSpte(npt, 0, 0x80000000 | 0)).toBe(false);
    expect(isShadowPresent(FROZEN_SPTE_LO)).toBe(false);
  });

  it('knows the writable states', () => {
    expect(isMmuWritable(npt, 0xe65, 0)).toBe(true);
    expect(spteWritableInvariantsHold(npt, 0xe67, 0)).toBe(true);
    expect(spteWritableInvariantsHold(npt, 0x825, 0)).toBe(true);
    expect(spteWritableInvariantsHold(npt, 0x827, 0)).toBe(false);
    expect(spteWritableInvariantsHold(npt, 0xc67, 0)).toBe(false);
  });

  it('tracks access by the A bit, or by rights where there is none', () => {
    word.lo = 0xe67;
    word.hi = 0;
    markSpteForAccessTrack(npt, word);
    expect(word.lo).toBe(0xe47);
    expect(isAccessedSpte(npt, word.lo, word.hi)).toBe(false);
    const ept = eptSpteMasks({ hasAdBits: false, hasExecOnly: true, l1tfHi: 0 });
    word.lo = 0x877;
    word.hi = SPTE_TDP_AD_DISABLED_HI | ept.presentHi | ept.hostWritableHi | ept.mmuWritableHi;
    const { hi } = word;
    markSpteForAccessTrack(ept, word);
    expect(word.lo & 7).toBe(0);
    expect(isAccessTrack(ept, word.lo, word.hi)).toBe(true);
    restoreAccTrackSpte(ept, word);
    // W comes back only with the next write.
    expect([word.lo & 7, word.hi]).toEqual([5, hi]);
  });
});
