import { expect, it } from 'vitest';
import type { Part } from './condition.ts';
import { partText } from './condition-text.ts';

const dims = [
  { name: 'code', values: ['0x4', '0x6', '0x14', '0xf', '0x100000006', '0x400000006', '0x40000000f'] },
  { name: 'slot', values: ['none', 'rw', 'ro', 'invalid', 'gmem'] },
  { name: 'nested', values: ['no', 'yes'] },
];

function part(most: readonly (readonly string[])[], least = most): Part {
  const cube = (sets: readonly (readonly string[])[]): Uint8Array[] =>
    sets.map((set, d) => Uint8Array.from(dims[d]!.values, (v) => (set.length === 0 || set.includes(v) ? 1 : 0)));
  return { most: cube(most), least: cube(least), inputs: 1 };
}

it('names the dimensions that matter', () => {
  expect(partText(part([[], [], []]), dims)).toBe('any input');
  expect(partText(part([[], ['none'], []]), dims)).toBe('slot none');
  expect(partText(part([[], ['none', 'ro'], ['yes']]), dims)).toBe('slot none or ro, nested');
  expect(partText(part([[], ['none', 'rw', 'invalid', 'gmem'], ['no']]), dims)).toBe('slot any but ro, not nested');
});

it('says a set with least, between the values that occur and those that may', () => {
  expect(partText(part([[], ['none', 'rw', 'ro'], []], [[], ['rw'], []]), dims)).toBe('slot rw');
  expect(partText(part([[], [], []], [[], ['rw'], []]), dims)).toBe('any input');
});

it('says error codes by their bits', () => {
  expect(partText(part([['0xf', '0x40000000f'], [], []]), dims)).toBe('code with RSVD');
  expect(partText(part([['0x400000006'], [], []]), dims)).toBe('code with ENC without RSVD');
  expect(partText(part([['0x400000006', '0x14'], [], []]), dims)).toBe('code with FETCH | with ENC without RSVD');
});
