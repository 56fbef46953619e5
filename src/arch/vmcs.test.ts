import { expect, it } from 'vitest';
import { isVmcsField, VMCS_FIELDS, VMCS_LAUNCH_STATE, vmcsOffset } from './vmcs.ts';
import { EXIT_REASON_EPT_VIOLATION, EXIT_REASON_NAMES } from './vmx-exit-reasons.ts';

const encodings = Object.values(VMCS_FIELDS);
const width = (encoding: number): number => [4, 8, 4, 8][(encoding >>> 13) & 3]!;

it('every field has a place of its own in the page, behind the header', () => {
  const used = new Uint8Array(4096);
  used.fill(1, 0, VMCS_LAUNCH_STATE + 4);
  for (const encoding of encodings) {
    const at = vmcsOffset(encoding);
    expect(at % 4).toBe(0);
    for (let i = at; i < at + width(encoding); i++) {
      expect(used[i]).toBe(0);
      used[i] = 1;
    }
  }
});

it('encodings that mean nothing have no place, and high halves are those of their field', () => {
  expect(vmcsOffset(0x1000)).toBe(-1);
  expect(vmcsOffset(0x20fe)).toBe(-1);
  expect(vmcsOffset(0x8000)).toBe(-1);
  expect(isVmcsField(0x4424)).toBe(false);
  expect(isVmcsField(VMCS_FIELDS.EPT_POINTER + 1)).toBe(true);
});

it('exit reasons have the names that the trace prints', () => {
  expect(EXIT_REASON_NAMES.get(EXIT_REASON_EPT_VIOLATION)).toBe('EPT_VIOLATION');
});
