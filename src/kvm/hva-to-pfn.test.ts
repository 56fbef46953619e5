import { describe, expect, it } from 'vitest';
import { EFAULT } from '../host/errno.ts';
import { PROT_READ } from '../host/vma.ts';
import { makeTestVm } from './bare-vm.testing.ts';
import { cmpxchgGuestUser, readGuest, readGuestAtomic, writeGuest } from './guest-memory.ts';
import { gfnToPfn, gfnToPfnMemslot, PFN_MODE_ASYNC, PFN_MODE_NORMAL, PfnLookup } from './hva-to-pfn.ts';
import { KVM_HVA_ERR_RO_BAD } from './memslots/hva.ts';
import { gfnToMemslot } from './memslots/memslots.ts';
import * as P from './mmu/pfn.ts';

function setUp(flags = 0) {
  const t = makeTestVm();
  const at = t.map(0x10000);
  t.slot({ slot: 1, flags, memorySize: 0x10000n, userspaceAddr: BigInt(at) });
  const out = new PfnLookup();
  const lookup = (gfn: number, write: boolean, mode = PFN_MODE_NORMAL) =>
    gfnToPfnMemslot(t.vm, gfnToMemslot(t.vm, gfn), gfn, write, mode, out);
  return { ...t, at, out, lookup, vcpu: t.addVcpu() };
}

describe('gfnToPfnMemslot', () => {
  it('a write fault maps writable; a read of it then does too', () => {
    const { lookup, out, at } = setUp();
    const pfn = lookup(1, true);
    expect(pfn).toBeGreaterThan(0);
    expect([out.hva, out.writable]).toEqual([at + 0x1000, true]);
    expect([lookup(1, false), out.writable]).toEqual([pfn, true]);
  });

  it('a read of untouched anonymous memory maps the zero page, read-only', () => {
    const { lookup, out, vm } = setUp();
    expect(lookup(2, false)).toBe(vm.mm.zero.small);
    expect(out.writable).toBe(false);
    expect(lookup(2, true)).not.toBe(vm.mm.zero.small);
  });

  it('no slot, read-only slot, no mapping, read-only mapping', () => {
    const { lookup, vm, at } = setUp();
    expect(lookup(0x100, false)).toBe(P.KVM_PFN_NOSLOT);
    vm.mm.munmap(at + 0x3000, 0x1000);
    expect(lookup(3, false)).toBe(P.KVM_PFN_ERR_FAULT);
    vm.mm.mprotect(at + 0x4000, 0x1000, PROT_READ);
    expect(lookup(4, true)).toBe(P.KVM_PFN_ERR_FAULT);
    expect(lookup(4, false)).toBeGreaterThan(0);
    const ro = setUp(2);
    expect(ro.lookup(1, true)).toBe(P.KVM_PFN_ERR_RO_FAULT);
    expect(ro.out.hva).toBe(KVM_HVA_ERR_RO_BAD);
    expect(ro.lookup(1, false)).toBeGreaterThan(0);
    expect(ro.out.writable).toBe(false);
  });

  it('would sleep: async when allowed, else a signal ends it', () => {
    const { lookup, out, vm, at } = setUp();
    vm.mm.userfaultRegister(at, 0x10000, 'block');
    expect([lookup(1, false, PFN_MODE_ASYNC), out.async]).toEqual([P.KVM_PFN_ERR_FAULT, true]);
    expect([lookup(1, false), out.async]).toEqual([P.KVM_PFN_ERR_SIGPENDING, false]);
    vm.mm.munmap(at, 0x10000);
    expect([lookup(1, false, PFN_MODE_ASYNC), out.async]).toEqual([P.KVM_PFN_ERR_FAULT, false]);
  });

  it('a page lost to a memory error', () => {
    const { lookup, vm, at } = setUp();
    lookup(1, true);
    vm.mm.madvise(at + 0x1000, 0x1000, 'hwpoison');
    expect(lookup(1, false)).toBe(P.KVM_PFN_ERR_HWPOISON);
    expect(gfnToPfn(vm, 1)).toBe(P.KVM_PFN_ERR_HWPOISON);
  });
});

describe('guest memory', () => {
  it('crosses pages, stops at the first that fails, marks written pages dirty', () => {
    const { vcpu, vm, at, slot } = setUp();
    slot({ slot: 1, flags: 1, memorySize: 0x10000n, userspaceAddr: BigInt(at) });
    const data = Uint8Array.of(1, 2, 3, 4);
    expect(writeGuest(vcpu, 0x1ffe, data, 0, 4)).toBe(0);
    const back = new Uint8Array(4);
    expect(readGuest(vcpu, 0x1ffe, back, 0, 4)).toBe(0);
    expect([...back]).toEqual([1, 2, 3, 4]);
    expect(gfnToMemslot(vm, 0)!.dirtyBitmap![0]).toBe(0b110);
    expect(writeGuest(vcpu, 0xfffe, data, 0, 4)).toBe(-EFAULT);
    readGuest(vcpu, 0xfffe, back, 0, 2);
    expect([...back.subarray(0, 2)]).toEqual([1, 2]);
    expect(readGuestAtomic(vcpu, 0x5000, back, 0, 4)).toBe(-EFAULT);
    expect(readGuestAtomic(vcpu, 0x2000, back, 0, 4)).toBe(0);
  });

  it('compare and exchange', () => {
    const { vm, at } = setUp();
    const exchange = (hva: number, old: number[], next: number[]) =>
      cmpxchgGuestUser(vm, hva, old.length, Uint8Array.from(old), 0, Uint8Array.from(next), 0);
    expect(exchange(at + 9, [0, 0], [5, 6])).toBe(0);
    expect(exchange(at + 9, [5, 0], [7, 8])).toBe(1);
    expect(exchange(at + 10, [6], [9])).toBe(0);
    const back = new Uint8Array(4);
    vm.mm.read(at + 8, back);
    expect([...back]).toEqual([0, 5, 9, 0]);
    expect(exchange(0x1000, [0], [1])).toBe(-EFAULT);
  });
});

describe('MMU notifiers', () => {
  it('an unmapped range invalidates the slots over it; nesting is counted', () => {
    const { vm, at, events } = setUp();
    vm.mm.write(at, Uint8Array.of(1));
    const seen: number[] = [];
    vm.locks.observer = (_lock, acquired) => void (acquired || seen.push(vm.mmuInvalidateInProgress));
    vm.mm.munmap(at + 0x2000, 0x2000);
    expect(seen).toEqual([1, 0]);
    expect([vm.mmuInvalidateSeq, vm.mmuInvalidateRangeStart, vm.mmuInvalidateRangeEnd]).toEqual([1, 2, 4]);
    expect(events.at(-1)).toEqual({ event: 'kvm_unmap_hva_range', fields: { start: at + 0x2000, end: at + 0x4000 } });
    const elsewhere = vm.mm.mmap({ size: 0x1000, kind: 'anon' });
    vm.mm.munmap(elsewhere, 0x1000);
    expect(vm.mmuInvalidateSeq).toBe(1);
    expect(vm.log.entries).toEqual([]);
  });
});
