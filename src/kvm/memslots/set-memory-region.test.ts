import { describe, expect, it } from 'vitest';
import { EBADF, EEXIST, EINVAL } from '../../host/errno.ts';
import { makeTestVm } from '../bare-vm.testing.ts';
import { type GuestMemfdFile, gmemCreate } from '../guest-memfd/guest-memfd.ts';
import { LOCK_SLOTS } from '../locks.ts';
import * as hva from './hva.ts';
import * as M from './memslots.ts';
import { setMemoryRegion, x86SetMemoryRegion } from './set-memory-region.ts';

const MIB = 0x100000n;

function withSlot() {
  const t = makeTestVm();
  const at = BigInt(t.map(0x400000));
  expect(t.slot({ slot: 1, guestPhysAddr: 16n * MIB, memorySize: MIB, userspaceAddr: at })).toBe(0);
  return { ...t, at };
}

describe('checks of KVM_SET_USER_MEMORY_REGION', () => {
  const cases: [string, Parameters<ReturnType<typeof makeTestVm>['slot']>[0], 1 | 2][] = [
    ['unaligned size', { slot: 1, memorySize: 0x1800n }, 2],
    ['unaligned gpa', { slot: 1, memorySize: 0x1000n, guestPhysAddr: 0x800n }, 2],
    ['unaligned hva', { slot: 1, memorySize: 0x1000n, userspaceAddr: 0x800n }, 2],
    ['hva beyond user addresses', { slot: 1, memorySize: 0x1000n, userspaceAddr: 0x7fff_ffff_f000n }, 2],
    ['kernel hva', { slot: 1, memorySize: 0x1000n, userspaceAddr: 0xffff_8000_0000_0000n }, 2],
    ['gpa wraps', { slot: 1, memorySize: 0x2000n, guestPhysAddr: 0xffff_ffff_ffff_f000n }, 2],
    ['too many pages', { slot: 1, memorySize: 0x800_0000_0000n }, 2],
    ['beyond the host physical width', { slot: 1, memorySize: 0x1000n, guestPhysAddr: 1n << 40n }, 2],
    ['slot id of KVM itself', { slot: M.KVM_USER_MEM_SLOTS, memorySize: 0x1000n }, 2],
    ['third address space', { slot: 2 << 16, memorySize: 0x1000n }, 2],
    ['unknown flag', { slot: 1, memorySize: 0x1000n, flags: 8 }, 2],
    ['internal flag', { slot: 1, memorySize: 0x1000n, flags: M.KVM_MEMSLOT_INVALID }, 2],
    ['guest_memfd in a default VM', { slot: 1, memorySize: 0x1000n, flags: 4, guestMemfd: 'not-open' }, 2],
    ['guest_memfd through the first ioctl', { slot: 1, memorySize: 0x1000n, flags: 4 }, 1],
    ['delete of nothing', { slot: 1, memorySize: 0n }, 2],
  ];
  it.each(cases)('%s: EINVAL', (_name, region, version) => {
    const t = makeTestVm();
    expect(t.slot(region, version)).toBe(-EINVAL);
    expect(t.vm.slots.all(0)).toHaveLength(0);
    expect(t.vm.locks.held).toBe(0);
  });

  it('the last page below the host physical width is allowed', () => {
    const t = makeTestVm();
    const at = BigInt(t.map(0x1000));
    expect(t.slot({ slot: 1, memorySize: 0x1000n, guestPhysAddr: (1n << 40n) - 0x1000n, userspaceAddr: at })).toBe(0);
  });

  it('host memory need not be mapped', () => {
    const t = makeTestVm();
    expect(t.slot({ slot: 1, memorySize: 0x1000n, userspaceAddr: 0n })).toBe(0);
  });
});

describe('changes of an existing slot', () => {
  it('overlap is EEXIST, adjacency is not, other address spaces do not count', () => {
    const { slot, at } = withSlot();
    const one = { memorySize: 0x1000n, userspaceAddr: at };
    expect(slot({ slot: 2, guestPhysAddr: 17n * MIB - 0x1000n, ...one })).toBe(-EEXIST);
    expect(slot({ slot: 2, guestPhysAddr: 15n * MIB, memorySize: 3n * MIB, userspaceAddr: at })).toBe(-EEXIST);
    expect(slot({ slot: 2, guestPhysAddr: 17n * MIB, ...one })).toBe(0);
    expect(slot({ slot: (1 << 16) | 2, guestPhysAddr: 16n * MIB, ...one })).toBe(0);
  });

  it('size, host address and read-only cannot change', () => {
    const { slot, at } = withSlot();
    const same = { slot: 1, guestPhysAddr: 16n * MIB, memorySize: MIB, userspaceAddr: at };
    expect(slot({ ...same, memorySize: 2n * MIB })).toBe(-EINVAL);
    expect(slot({ ...same, userspaceAddr: at + 0x1000n })).toBe(-EINVAL);
    expect(slot({ ...same, flags: M.KVM_MEM_READONLY })).toBe(-EINVAL);
    expect(slot(same)).toBe(0);
  });

  it('generations: two steps apart per replacement with two address spaces, one with one', () => {
    const { vm, slot, at } = withSlot();
    const region = { slot: 1, guestPhysAddr: 16n * MIB, memorySize: MIB, userspaceAddr: at };
    expect([vm.slots.generation(0), vm.slots.generation(1)]).toEqual([2, 1]);
    slot(region);
    expect(vm.slots.generation(0)).toBe(2);
    slot({ ...region, flags: M.KVM_MEM_LOG_DIRTY_PAGES });
    expect(vm.slots.generation(0)).toBe(4);
    slot({ ...region, flags: 1, guestPhysAddr: 32n * MIB });
    expect(vm.slots.generation(0)).toBe(8);
    slot({ slot: 1, memorySize: 0n });
    expect(vm.slots.generation(0)).toBe(12);
    const protectedVm = makeTestVm(1);
    protectedVm.slot({ slot: 1, memorySize: 0x1000n });
    expect(protectedVm.vm.slots.generation(0)).toBe(1);
    expect(protectedVm.slot({ slot: 1 << 16, memorySize: 0x1000n })).toBe(-EINVAL);
  });

  it('moving to an overlapping or impossible place leaves the slot as it was', () => {
    const { vm, slot, at } = withSlot();
    slot({ slot: 2, guestPhysAddr: 32n * MIB, memorySize: MIB, userspaceAddr: at });
    const before = M.gfnToMemslot(vm, 0x1000);
    const region = { slot: 1, memorySize: MIB, userspaceAddr: at };
    expect(slot({ ...region, guestPhysAddr: 32n * MIB + 0x1000n })).toBe(-EEXIST);
    expect(slot({ ...region, guestPhysAddr: 1n << 41n })).toBe(-EINVAL);
    expect(M.gfnToMemslot(vm, 0x1000)).toBe(before);
    expect(vm.slots.updateInProgress(0)).toBe(false);
    expect(slot({ ...region, guestPhysAddr: 16n * MIB + 0x1000n })).toBe(0);
    expect(M.gfnToMemslot(vm, 0x1000)).toBe(null);
    expect(M.gfnToMemslot(vm, 0x1100)!.id).toBe(1);
  });

  it('while a slot is deleted it is INVALID and an update is in flight', () => {
    const { vm, slot } = withSlot();
    const seen: [number, boolean, number][] = [];
    vm.locks.observer = (_lock, acquired) => {
      const s = M.gfnToMemslot(vm, 0x1000);
      if (acquired && s !== null) seen.push([s.flags, M.isVisibleGfn(vm, 0x1000), hva.gfnToHvaMemslotProt(s, 0x1000)]);
    };
    slot({ slot: 1, memorySize: 0n });
    expect(
      seen.some(([flags, visible, at]) => flags === M.KVM_MEMSLOT_INVALID && !visible && at === hva.KVM_HVA_ERR_BAD),
    ).toBe(true);
    expect(vm.slots.nrMemslotPages).toBe(0);
  });
});

describe('lookups', () => {
  it('finds by gfn, walks ranges in order, remembers the last', () => {
    const t = makeTestVm();
    const at = BigInt(t.map(0x100000));
    for (const [id, page] of [
      [5, 0x40n],
      [3, 0x10n],
      [9, 0x20n],
    ] as const) {
      t.slot({ slot: id, guestPhysAddr: page * 4096n, memorySize: 0x8000n, userspaceAddr: at });
    }
    expect(t.vm.slots.all(0).map((s) => s.id)).toEqual([3, 9, 5]);
    const ids = (start: number, end: number): number[] => {
      const found: number[] = [];
      t.vm.slots.forEachInGfnRange(0, start, end, (s) => found.push(s.id));
      return found;
    };
    expect(ids(0, 0x100)).toEqual([3, 9, 5]);
    expect(ids(0x17, 0x21)).toEqual([3, 9]);
    expect(ids(0x18, 0x20)).toEqual([]);
    for (let gfn = 0; gfn < 0x60; gfn++) {
      const expected = t.vm.slots.all(0).find((s) => gfn >= s.baseGfn && gfn < s.baseGfn + s.npages) ?? null;
      expect(M.gfnToMemslot(t.vm, gfn)).toBe(expected);
    }
  });

  it('a vCPU in SMM sees the other address space', () => {
    const t = makeTestVm();
    const vcpu = t.addVcpu();
    t.slot({ slot: (1 << 16) | 4, memorySize: 0x1000n });
    expect(M.vcpuGfnToMemslot(vcpu, 0)).toBe(null);
    vcpu.smm = true;
    expect(M.vcpuGfnToMemslot(vcpu, 0)!.asId).toBe(1);
  });

  it('read-only slots translate for reads', () => {
    const t = makeTestVm();
    t.slot({ slot: 1, memorySize: 0x2000n, userspaceAddr: 0x100000n, flags: M.KVM_MEM_READONLY });
    const slot = M.gfnToMemslot(t.vm, 1);
    expect(hva.gfnToHvaMemslot(slot, 1)).toBe(hva.KVM_HVA_ERR_RO_BAD);
    expect(hva.gfnToHvaMemslotProt(slot, 1)).toBe(0x101000);
    expect(hva.vcpuGfnToHvaProt(t.addVcpu(), 1)).toEqual({ hva: 0x101000, writable: false });
  });
});

describe('private memory', () => {
  function protectedVm() {
    const t = makeTestVm(1);
    const file = gmemCreate(t.vm, 0x10000n, 0n) as GuestMemfdFile;
    return { ...t, file };
  }
  const region = { slot: 1, flags: 4, memorySize: 0x8000n };

  it('binding: whole pages inside the file, once', () => {
    const { vm, slot, file } = protectedVm();
    expect(slot({ ...region, guestMemfd: file, guestMemfdOffset: 0x800n })).toBe(-EINVAL);
    expect(slot({ ...region, guestMemfd: file, guestMemfdOffset: 0x9000n })).toBe(-EINVAL);
    expect(slot({ ...region, guestMemfd: file, guestMemfdOffset: 0xffff_ffff_ffff_f000n })).toBe(-EINVAL);
    expect(slot({ ...region, guestMemfd: 'not-open' })).toBe(-EBADF);
    expect(slot({ ...region, guestMemfd: 'other-file' })).toBe(-EINVAL);
    expect(slot({ ...region, guestMemfd: gmemCreate(makeTestVm(1).vm, 0x10000n, 0n) as GuestMemfdFile })).toBe(-EINVAL);
    expect(slot({ ...region, guestMemfd: file, guestMemfdOffset: 0x8000n })).toBe(0);
    expect(slot({ ...region, slot: 2, guestPhysAddr: MIB, guestMemfd: file, guestMemfdOffset: 0x4000n })).toBe(-EINVAL);
    expect(slot({ ...region, slot: 2, guestPhysAddr: MIB, guestMemfd: file })).toBe(0);
    expect(M.kvmSlotCanBePrivate(M.gfnToMemslot(vm, 0))).toBe(true);
  });

  it('such slots are immutable, exclude logging and read-only, and free their range when deleted', () => {
    const { slot, file } = protectedVm();
    for (const flags of [5, 6, 7]) expect(slot({ ...region, flags, guestMemfd: file })).toBe(-EINVAL);
    expect(slot({ ...region, guestMemfd: file })).toBe(0);
    expect(slot({ ...region, guestMemfd: file })).toBe(-EINVAL);
    expect(slot({ ...region, guestMemfd: file, guestPhysAddr: MIB })).toBe(-EINVAL);
    expect(slot({ ...region, flags: 0 })).toBe(-EINVAL);
    expect(slot({ slot: 1, memorySize: 0n })).toBe(0);
    expect(slot({ ...region, guestMemfd: file })).toBe(0);
  });

  it('a failed creation leaves nothing bound', () => {
    const { slot, file } = protectedVm();
    expect(slot({ ...region, guestMemfd: file, guestPhysAddr: 1n << 41n })).toBe(-EINVAL);
    expect(slot({ ...region, guestMemfd: file })).toBe(0);
  });
});

describe('slots of KVM itself', () => {
  it('are made in every address space over new host memory, once', () => {
    const { vm } = makeTestVm();
    expect(() => setMemoryRegion(vm, {} as never)).toThrow(/slots_lock/);
    vm.locks.acquire(LOCK_SLOTS);
    const at = x86SetMemoryRegion(vm, M.APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, 0xfee00000, 4096);
    expect(at).toBeGreaterThan(0);
    expect(x86SetMemoryRegion(vm, M.APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, 0xfee00000, 4096)).toBe(-EEXIST);
    expect([0, 1].map((asId) => M.gfnToMemslot(vm, 0xfee00, asId)?.userspaceAddr)).toEqual([at, at]);
    expect(M.isVisibleGfn(vm, 0xfee00)).toBe(false);
    x86SetMemoryRegion(vm, M.APIC_ACCESS_PAGE_PRIVATE_MEMSLOT, 0, 0);
    expect(M.gfnToMemslot(vm, 0xfee00)).toBe(null);
    expect(vm.mm.vmaAt(at)).toBe(null);
    vm.locks.release(LOCK_SLOTS);
  });
});
