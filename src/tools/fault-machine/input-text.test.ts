import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { linux612 } from '../../kvm/mmu/revisions/linux-6.12.ts';
import { hardwareCodes } from './fault-codes.ts';
import {
  ATTRIBUTES,
  BACKINGS,
  ENTRIES,
  type FaultInput,
  HARDWARE,
  PAGINGS,
  SLOTS,
  SPTES,
  VM_TYPES,
} from './fault-input.ts';
import { flagsOf, inputFlags, parseInput } from './input-text.ts';

const stages = linux612.stages.map((s) => s.name);
const codes = HARDWARE.flatMap((h) => VM_TYPES.flatMap((v) => PAGINGS.flatMap((p) => hardwareCodes(h, v, p))));

const inputs: fc.Arbitrary<FaultInput> = fc
  .record({
    hardware: fc.constantFrom(...HARDWARE),
    vmType: fc.constantFrom(...VM_TYPES),
    paging: fc.constantFrom(...PAGINGS),
    nested: fc.boolean(),
    mmioCaching: fc.boolean(),
    entry: fc.constantFrom(...ENTRIES),
    code: fc.constantFrom(...codes),
    slot: fc.constantFrom(...SLOTS),
    attribute: fc.constantFrom(...ATTRIBUTES),
    spte: fc.constantFrom(...SPTES),
    backing: fc.constantFrom(...BACKINGS),
    invalidation: fc.oneof(
      fc.record({ kind: fc.constantFrom('none' as const, 'in-progress' as const) }),
      fc.record({ kind: fc.constantFrom('done-at' as const, 'begun-at' as const), stage: fc.constantFrom(...stages) }),
    ),
  })
  .map(({ code, ...rest }) => ({ ...rest, errorLo: code.lo, errorHi: code.hi }));

describe('flags of an input', () => {
  it('read back as the same input', () => {
    fc.assert(
      fc.property(inputs, (input) => {
        expect(parseInput(flagsOf(inputFlags(input)))).toEqual(input);
      }),
      { numRuns: 500 },
    );
  });

  it('hold every value of every dimension', () => {
    const base = parseInput({});
    const each: readonly [keyof FaultInput, readonly string[]][] = [
      ['hardware', HARDWARE],
      ['vmType', VM_TYPES],
      ['paging', PAGINGS],
      ['entry', ENTRIES],
      ['slot', SLOTS],
      ['attribute', ATTRIBUTES],
      ['spte', SPTES],
      ['backing', BACKINGS],
    ];
    for (const [field, values] of each) {
      for (const value of values) {
        const input = { ...base, [field]: value } as FaultInput;
        expect(parseInput(flagsOf(inputFlags(input)))).toEqual(input);
      }
    }
  });

  it('name the flag that is wrong, and what it can be', () => {
    expect(() => parseInput({ slot: 'rx' })).toThrow(/--slot rx: expected one of none, none-beyond, rw/);
    expect(() => parseInput({ 'error-code': '0xg' })).toThrow(/--error-code 0xg: expected a 64-bit number/);
    expect(() => parseInput({ invalidation: 'soon' })).toThrow(/--invalidation soon: expected none, in-progress/);
    expect(() => parseInput({ 'no-ept-ad': true, cpu: 'amd' })).toThrow(/--no-ept-ad: expected --cpu intel/);
    expect(() => flagsOf(['--slot'])).toThrow(/--slot: expected a value/);
  });
});
