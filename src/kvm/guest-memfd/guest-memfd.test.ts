import { describe, expect, it } from 'vitest';
import { EFAULT, EHWPOISON, EINVAL, ENODEV, EOPNOTSUPP, ESPIPE } from '../../host/errno.ts';
import { makeTestVm } from '../bare-vm.testing.ts';
import { gfnToMemslot } from '../memslots/memslots.ts';
import { GmemPfn } from './gmem-pfn.ts';
import { type GuestMemfdFile, gmemCreate, gmemGetPfn } from './guest-memfd.ts';

function bound() {
  const t = makeTestVm(1);
  const file = gmemCreate(t.vm, 0x10000n, 0n) as GuestMemfdFile;
  t.slot({
    slot: 1,
    flags: 4,
    guestPhysAddr: 0x100000n,
    memorySize: 0x8000n,
    guestMemfd: file,
    guestMemfdOffset: 0x4000n,
  });
  return { ...t, file, memslot: gfnToMemslot(t.vm, 0x100)!, out: new GmemPfn() };
}

describe('guest_memfd', () => {
  it('creation: no flags, a positive number of whole pages', () => {
    const { vm } = makeTestVm();
    for (const [size, flags] of [
      [0n, 0n],
      [0x1800n, 0n],
      [1n << 63n, 0n],
      [0x1000n, 1n],
    ] as const) {
      expect(gmemCreate(vm, size, flags)).toBe(-EINVAL);
    }
    expect(gmemCreate(vm, 0x1000n, 0n)).toBeTypeOf('object');
  });

  it('what its descriptor can and cannot do', () => {
    const file = gmemCreate(makeTestVm(1).vm, 0x10000n, 0n) as GuestMemfdFile;
    expect(file.stat()).toEqual({ size: 0x10000, blocks: 0 });
    expect([file.mmap(), file.pread(), file.truncate()]).toEqual([-ENODEV, -ESPIPE, -EINVAL]);
    expect(file.fallocate(0, 0n, 0x1000n)).toBe(-EOPNOTSUPP);
    expect(file.fallocate(2, 0n, 0x1000n)).toBe(-EOPNOTSUPP);
    expect(file.fallocate(0x11, 0n, 0x1000n)).toBe(-EOPNOTSUPP);
    expect(file.fallocate(1, 0x800n, 0x1000n)).toBe(-EINVAL);
    expect(file.fallocate(1, 0n, 0n)).toBe(-EINVAL);
    expect(file.fallocate(1, 0x10000n, 0x1000n)).toBe(-EINVAL);
    expect(file.fallocate(3, 0n, 0x800n)).toBe(-EINVAL);
    expect(file.fallocate(3, 0x10000n, 0x1000n)).toBe(0);
    expect(file.fallocate(1, 0n, 0x2000n)).toBe(0);
    expect(file.stat().blocks).toBe(0);
  });

  it('gives zeroed pages on demand and the same page again', () => {
    const { vm, file, memslot, out } = bound();
    expect(gmemGetPfn(vm, memslot, 0x101, out)).toBe(0);
    const pfn = out.pfn;
    expect(file.peekPage(5)).toBe(pfn);
    expect(out.maxOrder).toBe(0);
    vm.memory.u8[pfn * 4096] = 7;
    gmemGetPfn(vm, memslot, 0x101, out);
    expect(out.pfn).toBe(pfn);
    expect(file.fallocate(3, 0x5000n, 0x1000n)).toBe(0);
    expect(file.peekPage(5)).toBe(-1);
    gmemGetPfn(vm, memslot, 0x101, out);
    expect(vm.memory.u8[out.pfn * 4096]).toBe(0);
  });

  it('a hole invalidates the slots that are bound there, and only then', () => {
    const { vm, file } = bound();
    file.fallocate(3, 0n, 0x4000n);
    expect(vm.mmuInvalidateSeq).toBe(0);
    file.fallocate(3, 0x3000n, 0x2000n);
    expect(vm.mmuInvalidateSeq).toBe(1);
    expect([vm.mmuInvalidateRangeStart, vm.mmuInvalidateRangeEnd]).toEqual([0x100, 0x101]);
    expect(vm.locks.held).toBe(0);
  });

  it('closing it takes the memory away from its slots', () => {
    const { vm, file, memslot, out, slot } = bound();
    gmemGetPfn(vm, memslot, 0x100, out);
    const free = vm.mm.pages.freeFrames;
    file.release();
    expect(vm.mm.pages.freeFrames).toBe(free + 1);
    expect(gmemGetPfn(vm, memslot, 0x100, out)).toBe(-EFAULT);
    expect(slot({ slot: 1, memorySize: 0n })).toBe(0);
  });

  it('a page with a memory error is refused', () => {
    const { vm, file, memslot, out } = bound();
    gmemGetPfn(vm, memslot, 0x100, out);
    vm.mm.pages.poison(out.pfn);
    file.errorPage(4);
    expect(gmemGetPfn(vm, memslot, 0x100, out)).toBe(-EHWPOISON);
  });
});
