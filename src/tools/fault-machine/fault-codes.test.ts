import { describe, expect, it } from 'vitest';
import { codeImpossible, codeText, entryCodes, hardwareCodes } from './fault-codes.ts';
import { HARDWARE, VM_TYPES } from './fault-input.ts';

describe('error codes', () => {
  it('of each hardware are different from each other, and the flagged ones say why', () => {
    for (const hardware of HARDWARE) {
      for (const vmType of VM_TYPES) {
        for (const paging of ['tdp', 'shadow'] as const) {
          const codes = hardwareCodes(hardware, vmType, paging);
          expect(new Set(codes.map((c) => c.text)).size).toBe(codes.length);
          for (const c of codes) expect(codeImpossible(hardware, vmType, paging, c.lo, c.hi)).toBe(c.impossible);
          expect(codes.some((c) => c.impossible !== null)).toBe(true);
        }
      }
    }
  });

  it('that are not listed are impossible for a reason (every combination of the defined bits)', () => {
    for (const hardware of HARDWARE) {
      for (const vmType of VM_TYPES) {
        const listed = new Set(hardwareCodes(hardware, vmType, 'tdp').map((c) => c.text));
        for (let bits = 0; bits < 1 << 11; bits++) {
          const lo = (bits & 0x1f) | ((bits & 0x20) !== 0 ? 1 << 31 : 0);
          const hi = bits >> 6;
          const why = codeImpossible(hardware, vmType, 'tdp', lo, hi);
          expect([codeText(lo, hi), listed.has(codeText(lo, hi))]).toEqual([codeText(lo, hi), why === null]);
          expect(why).not.toBe('the code has bits that are not defined');
        }
      }
    }
  });

  it('say in words what is wrong', () => {
    expect(codeImpossible('npt', 'default', 'tdp', 0x6, 0)).toMatch(/GUEST_FINAL/);
    expect(codeImpossible('npt', 'default', 'tdp', 0x6, 5)).toMatch(/ENC needs/);
    expect(codeImpossible('npt', 'sev', 'tdp', 0x6, 5)).toBeNull();
    expect(codeImpossible('npt', 'default', 'tdp', 0x16, 1)).toMatch(/not both/);
    expect(codeImpossible('npt', 'default', 'tdp', 0x6, 0x20001)).toMatch(/48 and 49/);
    expect(codeImpossible('ept', 'default', 'tdp', 0x8, 0)).toBeNull();
    expect(codeImpossible('ept', 'default', 'tdp', 0x9, 0)).toMatch(/misconfiguration/);
    expect(codeImpossible('ept', 'default', 'tdp', 0x4, 2)).toMatch(/A\/D/);
    expect(codeImpossible('ept-no-ad', 'default', 'tdp', 0x4, 2)).toBeNull();
    expect(codeImpossible('npt', 'default', 'shadow', 0x2, 0)).toBeNull();
    expect(codeImpossible('npt', 'default', 'shadow', 0x2, 1)).toMatch(/32 bits/);
  });

  it('of a queued fault are those of faults, and the one that must not be queued', () => {
    const codes = entryCodes('npt', 'default', 'tdp', 'page-ready');
    expect(codes.filter((c) => c.impossible !== null).map((c) => c.text)).toEqual(['0x2000100000006']);
    expect(entryCodes('npt', 'default', 'tdp', 'pre-fault').map((c) => c.text)).toEqual(['0x0']);
  });
});
