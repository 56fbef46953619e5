import { describe, expect, it } from 'vitest';
import { EBADF, EEXIST, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP } from '../../host/errno.ts';
import { makeTestVm } from '../bare-vm.testing.ts';
import { LOCK_SLOTS } from '../locks.ts';
import { registerCoalescedMmio, unregisterCoalescedMmio } from './coalesced-mmio.ts';
import { KVM_COALESCED_MMIO_MAX } from './coalesced-ring.ts';
import { EventCounter } from './eventfd.ts';
import * as B from './io-bus.ts';
import { ioeventfd } from './ioeventfd.ts';

function setUp() {
  const t = makeTestVm();
  const vcpu = t.addVcpu();
  const write = (bus: number, addr: number, ...bytes: number[]) =>
    B.ioBusWrite(vcpu, bus, addr, bytes.length, Uint8Array.from(bytes), 0);
  return { ...t, vcpu, write };
}

describe('I/O bus', () => {
  it('asks all devices at an address in turn', () => {
    const { vm, vcpu, write } = setUp();
    const asked: string[] = [];
    const device = (name: string, takes: boolean): B.IoDevice => ({
      write: () => {
        asked.push(name);
        return takes ? 0 : -EOPNOTSUPP;
      },
      read: (_vcpu, _addr, _len, buf, off) => {
        buf[off] = 0x5a;
        return takes ? 0 : -EOPNOTSUPP;
      },
    });
    vm.locks.acquire(LOCK_SLOTS);
    const second = device('second', true);
    B.ioBusRegisterDev(vm, B.KVM_PIO_BUS, 0x60, 8, device('first', false));
    B.ioBusRegisterDev(vm, B.KVM_PIO_BUS, 0x60, 8, second);
    B.ioBusRegisterDev(vm, B.KVM_PIO_BUS, 0x20, 2, device('other', true));
    expect(write(B.KVM_PIO_BUS, 0x64, 1)).toBe(0);
    expect(asked).toEqual(['first', 'second']);
    const buf = new Uint8Array(1);
    expect(B.ioBusRead(vcpu, B.KVM_PIO_BUS, 0x60, 1, buf, 0)).toBe(0);
    expect(buf[0]).toBe(0x5a);
    expect(write(B.KVM_PIO_BUS, 0x66, 1, 2, 3, 4)).toBe(-EOPNOTSUPP);
    expect(write(B.KVM_MMIO_BUS, 0x64, 1)).toBe(-EOPNOTSUPP);
    expect(B.ioBusWriteCookie(vcpu, B.KVM_PIO_BUS, 0x64, 1, buf, 0, -1)).toBe(2);
    expect(B.ioBusWriteCookie(vcpu, B.KVM_PIO_BUS, 0x64, 1, buf, 0, 2)).toBe(2);
    B.ioBusUnregisterDev(vm, B.KVM_PIO_BUS, second);
    expect(write(B.KVM_PIO_BUS, 0x64, 1)).toBe(-EOPNOTSUPP);
    expect(B.ioBusGetDev(vm, B.KVM_PIO_BUS, 0x21)).not.toBe(null);
    vm.locks.release(LOCK_SLOTS);
  });

  it('holds a thousand devices', () => {
    const { vm } = setUp();
    for (let i = 0; i < B.NR_IOBUS_DEVS; i++) expect(registerCoalescedMmio(vm, i * 4096, 16, 0)).toBe(0);
    expect(registerCoalescedMmio(vm, 0, 16, 0)).toBe(-ENOSPC);
  });
});

describe('coalesced MMIO', () => {
  it('collects writes that lie in a zone', () => {
    const { vm, write } = setUp();
    expect(registerCoalescedMmio(vm, 0xd0000000, 0x100, 2)).toBe(-EINVAL);
    registerCoalescedMmio(vm, 0xd0000000, 0x100, 0);
    registerCoalescedMmio(vm, 0x3f8, 8, 1);
    expect(write(B.KVM_MMIO_BUS, 0xd0000004, 1, 2)).toBe(0);
    expect(write(B.KVM_MMIO_BUS, 0xd00000ff, 1, 2)).toBe(-EOPNOTSUPP);
    expect(write(B.KVM_PIO_BUS, 0x3f8, 0x41)).toBe(0);
    const ring = vm.buses.coalescedRing;
    expect([ring.first, ring.last]).toEqual([0, 2]);
    expect(ring.drain()).toEqual([
      { physAddr: 0xd0000004, len: 2, pio: false, data: Uint8Array.of(1, 2, 0, 0, 0, 0, 0, 0) },
      { physAddr: 0x3f8, len: 1, pio: true, data: Uint8Array.of(0x41, 0, 0, 0, 0, 0, 0, 0) },
    ]);
    expect(ring.first).toBe(2);
  });

  it('is full with one entry left, or with a broken index', () => {
    const { vm, write } = setUp();
    registerCoalescedMmio(vm, 0, 0x1000, 0);
    for (let i = 0; i < KVM_COALESCED_MMIO_MAX - 1; i++) expect(write(B.KVM_MMIO_BUS, 0, 1)).toBe(0);
    expect(write(B.KVM_MMIO_BUS, 0, 1)).toBe(-EOPNOTSUPP);
    vm.buses.coalescedRing.first = 1;
    expect(write(B.KVM_MMIO_BUS, 0, 1)).toBe(0);
    expect(vm.buses.coalescedRing.last).toBe(0);
    vm.buses.coalescedRing.last = KVM_COALESCED_MMIO_MAX;
    expect(write(B.KVM_MMIO_BUS, 0, 1)).toBe(-EOPNOTSUPP);
  });

  it('unregistering takes the zones that contain the range', () => {
    const { vm, write } = setUp();
    registerCoalescedMmio(vm, 0x1000, 0x100, 0);
    registerCoalescedMmio(vm, 0x1000, 0x10, 0);
    registerCoalescedMmio(vm, 0x1000, 0x100, 1);
    expect(unregisterCoalescedMmio(vm, 0x1000, 0x20, 3)).toBe(-EINVAL);
    expect(unregisterCoalescedMmio(vm, 0x1000, 0x20, 0)).toBe(0);
    expect(vm.buses.coalescedZones.map((z) => [z.size, z.pio])).toEqual([
      [0x10, false],
      [0x100, true],
    ]);
    expect(write(B.KVM_MMIO_BUS, 0x1040, 1)).toBe(-EOPNOTSUPP);
  });
});

describe('ioeventfd', () => {
  const DATAMATCH = 1;
  const PIO = 2;
  const DEASSIGN = 4;

  function registrar() {
    const t = setUp();
    const counter = new EventCounter();
    const set = (
      addr: number | bigint,
      len: number,
      flags = 0,
      datamatch = 0n,
      eventfd: EventCounter | null = counter,
    ) => ioeventfd(t.vm, { eventfd, addr: BigInt(addr), len, datamatch, flags });
    return { ...t, counter, set };
  }

  it('bad arguments', () => {
    const { set } = registrar();
    expect([set(0, 3), set(0, 16), set(0, 0, DATAMATCH), set(0, 4, 0x10)]).toEqual(new Array(4).fill(-EINVAL));
    expect(set(0xffff_ffff_ffff_fffcn, 4)).toBe(-EINVAL);
    expect(set(0, 4, 0, 0n, null)).toBe(-EBADF);
    expect(set(0, 4, DEASSIGN, 0n, null)).toBe(-EBADF);
    expect(set(0, 4, DEASSIGN)).toBe(-ENOENT);
  });

  it('collisions: same address and length, unless the data differ; length 0 collides with all', () => {
    const { set } = registrar();
    expect(set(0x100, 4)).toBe(0);
    expect([set(0x100, 4), set(0x100, 4, DATAMATCH, 7n), set(0x100, 0)]).toEqual([-EEXIST, -EEXIST, -EEXIST]);
    expect([set(0x100, 2), set(0x100, 4, PIO), set(0x104, 4)]).toEqual([0, 0, 0]);
    expect([set(0x200, 4, DATAMATCH, 7n), set(0x200, 4, DATAMATCH, 8n), set(0x200, 4, DATAMATCH, 7n)]).toEqual([
      0,
      0,
      -EEXIST,
    ]);
  });

  it('signals on exact address, length and data', () => {
    const { set, write, counter } = registrar();
    set(0xd0000000, 4, DATAMATCH, 7n);
    expect(write(B.KVM_MMIO_BUS, 0xd0000000, 8, 0, 0, 0)).toBe(-EOPNOTSUPP);
    expect(write(B.KVM_MMIO_BUS, 0xd0000000, 7, 0)).toBe(-EOPNOTSUPP);
    expect(write(B.KVM_MMIO_BUS, 0xd0000000, 7, 0, 0, 0)).toBe(0);
    expect(counter.read()).toBe(1);
    expect(counter.read()).toBe(0);
  });

  it('any length: on the fast bus too, and gone from both', () => {
    const { set, write, counter, vm } = registrar();
    expect(set(0x1000, 0)).toBe(0);
    expect(write(B.KVM_FAST_MMIO_BUS, 0x1000)).toBe(0);
    expect(write(B.KVM_MMIO_BUS, 0x1000, 1, 2)).toBe(0);
    expect(counter.read()).toBe(2);
    expect(set(0x1000, 0, DEASSIGN)).toBe(0);
    expect(write(B.KVM_FAST_MMIO_BUS, 0x1000)).toBe(-EOPNOTSUPP);
    expect(vm.buses.ioeventfds).toEqual([]);
  });
});
