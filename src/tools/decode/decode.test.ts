import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import { decodeCode, parseCode } from './decode.ts';

const names = (code: bigint, kind: 'pf' | 'npf' | 'ept' | 'auto' = 'auto') =>
  decodeCode(code, kind)
    .bits.filter((b) => b.set)
    .map((b) => b.name);

describe('decode', () => {
  it('reads a nested write fault on the final access', () => {
    const d = decodeCode(0x100000006n, 'auto');
    expect(d.kind).toBe('npf');
    expect(names(0x100000006n)).toEqual(['W', 'U', 'GUEST_FINAL']);
    expect(d.class).toBe('not-present');
    expect(d.warnings).toEqual([]);
  });

  it('reads an MMIO SPTE hit, and says what an emulator left out', () => {
    expect(decodeCode(0x10000000dn, 'npf').warnings).toEqual([]);
    const d = decodeCode(0x10000000cn, 'npf');
    expect(d.class).toBe('reserved-bit');
    expect(d.warnings).toEqual([expect.stringContaining('RSVD without P')]);
  });

  it('knows a guest page-table access', () => {
    expect(decodeCode(0x200000006n, 'auto').class).toBe('guest-page-table');
  });

  it('warns of synthetic and undefined bits', () => {
    expect(decodeCode(1n << 49n, 'npf').warnings.join()).toContain('synthetic');
    expect(decodeCode((1n << 40n) | 4n, 'npf').warnings.join()).toContain('0x10000000000');
  });

  it('reads an EPT violation', () => {
    const d = decodeCode(0x182n, 'auto');
    expect(d.kind).toBe('ept');
    expect(names(0x182n)).toEqual(['WRITE', 'GVA_IS_VALID', 'GVA_TRANSLATED']);
    expect(d.class).toBe('not-present');
    expect(decodeCode(0x18an, 'ept').class).toBe('permission-write');
  });

  it('accounts for every bit of every code, in each kind', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        fc.constantFrom('pf', 'npf', 'ept', 'auto'),
        (code, kind) => {
          const d = decodeCode(code, kind);
          const known = d.bits.filter((b) => b.set).reduce((sum, b) => sum | (1n << BigInt(b.bit)), 0n);
          expect(known | BigInt(d.undefinedBits ?? 0)).toBe(code);
        },
      ),
    );
  });

  it('knows the names that a revision knows', () => {
    const code = 0x15_8000_0007n;
    const before = decodeCode(code, 'npf', revisionByName('series-v2@2').rules);
    const after = decodeCode(code, 'npf', revisionByName('series-v2@3').rules);
    expect([before.class, after.class]).toEqual(['permission-write', 'rmp']);
    expect([before.undefinedBits, after.undefinedBits]).toEqual(['0x1480000000', null]);
    expect(before.bits.find((b) => b.bit === 34)).toMatchObject({
      name: 'bit 34',
      meaning: 'not named in this revision',
    });
    expect(after.bits.find((b) => b.bit === 34)?.name).toBe('ENC');
  });

  it('takes codes of 64 bits and nothing else', () => {
    expect(parseCode('0xffffffffffffffff')).toBe(0xffffffffffffffffn);
    for (const bad of ['', 'zz', '0x', '-1', '0x10000000000000000', '18446744073709551616', '1.5'])
      expect(() => parseCode(bad)).toThrow(/expected a code/);
  });
});
