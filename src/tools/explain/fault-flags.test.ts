import { describe, expect, it } from 'vitest';
import { codeOfQualification, type FaultFlags, flagArguments, flagsOfTrace, flagsOfVm } from './fault-flags.ts';
import { parseTraceLine } from './trace-line.ts';
import { parseVmDescription } from './vm-description.ts';

const fault = (code: string, address = '0x1000') =>
  parseTraceLine(`kvm_page_fault: vcpu 0 rip 0x0 address ${address} error_code ${code}`, '--trace-line');
const assumed = (code: string, known: FaultFlags = {}) => {
  const { flags } = flagsOfTrace(fault(code), known);
  return { slot: flags.slot, spte: flags.spte };
};

describe('what a line of a trace leaves open', () => {
  it('is nothing for a fault on what is not mapped', () => {
    expect(flagsOfTrace(fault('0x100000006'), {})).toEqual({
      flags: { gpa: '0x1000', 'error-code': '0x100000006' },
      assumed: [],
      qualification: null,
    });
  });

  it.each([
    ['a write to a mapped page', '0x100000007', {}, { spte: 'write-protected' }],
    ['a fetch of a mapped page', '0x100000015', {}, { spte: 'present' }],
    ['a write to mapped guest_memfd', '0x100000007', { slot: 'gmem', attribute: 'private' }, { spte: 'present' }],
    ['a write to a read-only slot', '0x100000007', { slot: 'ro' }, { spte: 'present' }],
    ['a mapped page where there is no slot any more', '0x100000007', { slot: 'none' }, {}],
    ['a reserved bit', '0x10000000d', {}, { slot: 'none', spte: 'mmio' }],
    ['a reserved bit where there is a slot now', '0x10000000d', { slot: 'rw' }, { spte: 'mmio-stale' }],
    ['a reserved bit without MMIO caching', '0x10000000d', { 'no-mmio-caching': true }, { slot: 'none' }],
    ['a reserved bit where the entry is known', '0x10000000d', { spte: 'absent', slot: 'none' }, {}],
  ] as const)('is the entry of %s', (_what, code, known, expected) => {
    expect(assumed(code, known)).toEqual({ slot: undefined, spte: undefined, ...expected });
  });
});

describe('an exit qualification', () => {
  it.each([
    [0x181n, 0x100000004n],
    [0x182n, 0x100000002n],
    [0x184n, 0x100000010n],
    [0x18an, 0x100000003n],
    [0x083n, 0x200000006n],
    [0x001n, 0x4n],
  ])('0x%s is what KVM makes of it', (qualification, code) => {
    expect(codeOfQualification(qualification)).toBe(code);
  });
});

describe('an address in a described VM', () => {
  const vm = parseVmDescription(
    'vm.json',
    JSON.stringify({
      vmType: 'sw-protected',
      cpu: 'intel',
      eptAd: false,
      mmioCaching: false,
      apicAccessPage: 'active',
      slots: [
        { gpa: 0, size: 0x1000 },
        { gpa: 0x1000, size: 0x1000, flags: ['readonly'] },
        { gpa: 0x2000, size: 0x1000, guestMemfd: true },
        { gpa: 0x3000, size: 0x1000, flags: ['being-changed'] },
      ],
      attributes: [{ gpa: 0x2000, size: 0x1000 }],
    }),
  );

  it.each([
    [0x0n, 'rw', 'shared'],
    [0x1fffn, 'ro', 'shared'],
    [0x2000n, 'gmem', 'private'],
    [0x3000n, 'invalid', 'shared'],
    [0x4000n, 'none', 'shared'],
    [0xfee00300n, 'apic', 'shared'],
    [1n << 40n, 'none-beyond', 'shared'],
  ])('0x%s', (gpa, slot, attribute) => {
    expect(flagsOfVm(vm, gpa)).toEqual({
      cpu: 'intel',
      'no-ept-ad': true,
      'vm-type': 'sw-protected',
      'no-mmio-caching': true,
      slot,
      attribute,
    });
  });

  it('is the same as flags of a command line', () => {
    expect(flagArguments({ ...flagsOfVm(vm, 0n), 'error-code': '0x6' })).toEqual([
      ...[
        '--error-code',
        '0x6',
        '--cpu',
        'intel',
        '--vm-type',
        'sw-protected',
        '--slot',
        'rw',
        '--attribute',
        'shared',
      ],
      ...['--no-ept-ad', '--no-mmio-caching'],
    ]);
  });
});
