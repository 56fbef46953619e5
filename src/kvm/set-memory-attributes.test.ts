import { describe, expect, it } from 'vitest';
import { EINVAL } from '../host/errno.ts';
import * as A from './attributes.ts';
import { makeTestVm } from './bare-vm.testing.ts';
import { setMemoryAttributes } from './set-memory-attributes.ts';

const PRIVATE = BigInt(A.KVM_MEMORY_ATTRIBUTE_PRIVATE);

describe('KVM_SET_MEMORY_ATTRIBUTES', () => {
  const bad: [string, number, [bigint, bigint, bigint, bigint]][] = [
    ['private in a default VM', 0, [0n, 0x1000n, PRIVATE, 0n]],
    ['flags', 1, [0n, 0x1000n, PRIVATE, 1n]],
    ['unknown attribute', 1, [0n, 0x1000n, 1n, 0n]],
    ['empty', 1, [0n, 0n, PRIVATE, 0n]],
    ['wraps', 1, [0xffff_ffff_ffff_f000n, 0x1000n, PRIVATE, 0n]],
    ['unaligned gpa', 1, [0x800n, 0x1000n, PRIVATE, 0n]],
    ['unaligned size', 1, [0n, 0x1800n, PRIVATE, 0n]],
  ];
  it.each(bad)('%s: EINVAL', (_name, type, args) => {
    expect(setMemoryAttributes(makeTestVm(type).vm, ...args)).toBe(-EINVAL);
  });

  it('no attributes at all can be set in a default VM', () => {
    const { vm } = makeTestVm();
    expect(setMemoryAttributes(vm, 0n, 0x1000n, 0n, 0n)).toBe(0);
    expect(A.memIsPrivate(vm, 0)).toBe(false);
  });

  it('sets a range, with or without slots', () => {
    const { vm } = makeTestVm(1);
    expect(setMemoryAttributes(vm, 0x4000n, 0x2000n, PRIVATE, 0n)).toBe(0);
    expect([3, 4, 5, 6].map((gfn) => A.memIsPrivate(vm, gfn))).toEqual([false, true, true, false]);
    expect(A.rangeHasMemoryAttributes(vm, 4, 6, ~0, A.KVM_MEMORY_ATTRIBUTE_PRIVATE)).toBe(true);
    expect(A.rangeHasMemoryAttributes(vm, 4, 7, ~0, A.KVM_MEMORY_ATTRIBUTE_PRIVATE)).toBe(false);
    expect(vm.mmuInvalidateSeq).toBe(0);
  });

  it('invalidates what slots cover, once a call, and not at all when nothing changes', () => {
    const { vm, slot } = makeTestVm(1);
    slot({ slot: 1, guestPhysAddr: 0x10000n, memorySize: 0x10000n });
    slot({ slot: 2, guestPhysAddr: 0x30000n, memorySize: 0x10000n });
    expect(setMemoryAttributes(vm, 0x18000n, 0x20000n, PRIVATE, 0n)).toBe(0);
    expect(vm.mmuInvalidateSeq).toBe(1);
    expect(vm.mmuInvalidateInProgress).toBe(0);
    expect([vm.mmuInvalidateRangeStart, vm.mmuInvalidateRangeEnd]).toEqual([0x18, 0x38]);
    setMemoryAttributes(vm, 0x18000n, 0x8000n, PRIVATE, 0n);
    expect(vm.mmuInvalidateSeq).toBe(1);
    expect(vm.log.entries).toEqual([]);
  });
});
