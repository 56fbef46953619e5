import { describe, expect, it } from 'vitest';
import { parseVmDescription, readVmDescription } from './vm-description.ts';

const parse = (value: unknown) => parseVmDescription('vm.json', JSON.stringify(value));

describe('a described VM', () => {
  it('has defaults for everything', () => {
    expect(parse({})).toEqual({
      name: 'vm.json',
      vmType: 'default',
      cpu: 'amd',
      eptAd: true,
      mmioCaching: true,
      apicAccessPage: 'none',
      slots: [],
      privateRanges: [],
    });
  });

  it('has slots and private ranges', () => {
    const vm = parse({
      vmType: 'snp',
      slots: [
        { gpa: '0x0', size: '0x80000000', guestMemfd: true },
        { id: 7, gpa: 0xfffc0000, size: 0x40000, flags: ['readonly'] },
      ],
      attributes: [
        { gpa: '0x100000', size: '0x1000' },
        { gpa: '0x200000', size: '0x1000', attribute: 'shared' },
      ],
    });
    expect(vm.slots[0]).toEqual({ id: 0, gpa: 0, size: 0x80000000, flags: [], guestMemfd: true });
    expect(vm.slots[1]).toMatchObject({ id: 7, flags: ['readonly'] });
    expect(vm.privateRanges).toEqual([{ gpa: 0x100000, size: 0x1000 }]);
  });

  it.each([
    ['a list', [], /^vm\.json: the file: expected an object, found \[\]$/],
    ['an unknown field', { slot: [] }, /^vm\.json: slot: no such field; known: vmType, cpu/],
    ['an unknown type', { vmType: 'tdx' }, /^vm\.json: vmType: expected one of default, sev, .*, found "tdx"$/],
    ['SNP on Intel', { vmType: 'snp', cpu: 'intel' }, /^vm\.json: cpu: expected amd for a VM of type snp/],
    [
      'an unaligned slot',
      { slots: [{ gpa: 1, size: 4096 }] },
      /^vm\.json: slots\[0\]\.gpa: expected a multiple of 4096/,
    ],
    ['an empty slot', { slots: [{ gpa: 0, size: 0 }] }, /^vm\.json: slots\[0\]\.size: expected a multiple/],
    ['a slot without size', { slots: [{ gpa: 0 }] }, /^vm\.json: slots\[0\]\.size: .* found nothing$/],
    [
      'an unknown flag',
      { slots: [{ gpa: 0, size: 4096, flags: ['ro'] }] },
      /slots\[0\]\.flags\[0\]: expected one of readonly/,
    ],
    [
      'overlapping slots',
      {
        slots: [
          { gpa: 0, size: 8192 },
          { gpa: 4096, size: 8192 },
        ],
      },
      /slots\[1\]\.gpa: expected a range that does not overlap slots\[0\], found "0x1000"/,
    ],
    [
      'guest_memfd in a default VM',
      { slots: [{ gpa: 0, size: 4096, guestMemfd: true }] },
      /slots\[0\]\.guestMemfd: expected false: a VM of type default/,
    ],
    [
      'read-only guest_memfd',
      { vmType: 'snp', slots: [{ gpa: 0, size: 4096, guestMemfd: true, flags: ['readonly'] }] },
      /slots\[0\]\.flags: expected no readonly/,
    ],
    [
      'private memory in a default VM',
      { attributes: [{ gpa: 0, size: 4096 }] },
      /attributes\[0\]\.attribute: expected shared/,
    ],
  ])('refuses %s', (_what, json, message) => {
    expect(() => parse(json)).toThrow(message);
  });

  it('names a file that is not there, or not JSON', () => {
    expect(() => readVmDescription('/nowhere/vm.json')).toThrow('/nowhere/vm.json: cannot be read (no such file)');
    expect(() => parseVmDescription('vm.json', '{')).toThrow(/^vm\.json: is not JSON/);
  });
});
