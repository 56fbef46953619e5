/**
 * In-kernel devices by address (@kvm kvm_main.c kvm_io_bus_*): ranges in order, found by bisection. Ranges may overlap: all devices at
 * an address are asked in turn until one takes the access.
 */
import { ENOENT, ENOSPC, EOPNOTSUPP } from '../../host/errno.ts';
import { LOCK_SLOTS } from '../locks.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import type { CoalescedZone } from './coalesced-mmio.ts';
import { CoalescedRing } from './coalesced-ring.ts';
import type { Ioeventfd } from './ioeventfd.ts';

export const KVM_MMIO_BUS = 0;
export const KVM_PIO_BUS = 1;
export const KVM_VIRTIO_CCW_NOTIFY_BUS = 2;
export const KVM_FAST_MMIO_BUS = 3;
const KVM_NR_BUSES = 5;

/** Devices a bus can have, ioeventfds not counted. @kvm kvm_host.h NR_IOBUS_DEVS */
export const NR_IOBUS_DEVS = 1000;

/** A device; `addr` is a gpa or a port, the data are `len` bytes of `buf` from `off`. Answers 0 (taken) or -EOPNOTSUPP. */
export interface IoDevice {
  read?(vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number;
  write?(vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number;
  /** The bus lets go of the device. @kvm kvm_main.c kvm_iodevice_destructor */
  destructor?(): void;
}

interface IoRange {
  readonly addr: number;
  readonly len: number;
  readonly dev: IoDevice;
}

/**
 * Order of an access or a range against a range; 0 is a match. A range of length 0 matches its exact address. @kvm kvm_main.c
 * kvm_io_bus_cmp
 */
function compare(addr: number, len: number, range: IoRange): number {
  if (addr < range.addr) return -1;
  if (range.len !== 0) return addr + len > range.addr + range.len ? 1 : 0;
  return addr > range.addr ? 1 : 0;
}

export class IoBus {
  readonly ranges: IoRange[] = [];
  ioeventfdCount = 0;
  /** The last access that no range has: guests that exit much to userspace do so at one address. Length 0 for none. */
  private missAddr = 0;
  private missLen = 0;

  /** @kvm kvm_main.c kvm_io_bus_get_first_dev. HOT */
  firstDev(addr: number, len: number): number {
    if (addr === this.missAddr && len === this.missLen) return -ENOENT;
    const first = this.search(addr, len);
    if (first < 0) {
      this.missAddr = addr;
      this.missLen = len;
    }
    return first;
  }

  private search(addr: number, len: number): number {
    const ranges = this.ranges;
    let low = 0;
    let high = ranges.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      const order = compare(addr, len, ranges[mid]!);
      if (order === 0) {
        let first = mid;
        while (first > 0 && compare(addr, len, ranges[first - 1]!) === 0) first--;
        return first;
      }
      if (order < 0) high = mid;
      else low = mid + 1;
    }
    return -ENOENT;
  }

  /** @kvm kvm_main.c kvm_io_bus_register_dev */
  insert(addr: number, len: number, dev: IoDevice): void {
    let i = 0;
    while (i < this.ranges.length && compare(this.ranges[i]!.addr, this.ranges[i]!.len, { addr, len, dev }) <= 0) i++;
    this.ranges.splice(i, 0, { addr, len, dev });
    this.missLen = 0;
  }
}

export class IoBuses {
  readonly buses: readonly IoBus[] = Array.from({ length: KVM_NR_BUSES }, () => new IoBus());
  /** Coalesced MMIO and PIO: the zones in order of registration, and the ring of the VM. */
  readonly coalescedZones: CoalescedZone[] = [];
  readonly coalescedRing = new CoalescedRing();
  /** In order of registration; an MMIO ioeventfd of length 0 is here twice, the second on KVM_FAST_MMIO_BUS. */
  readonly ioeventfds: Ioeventfd[] = [];
}

/**
 * Puts a device on a bus. Caller holds slots_lock.
 * @returns 0, or -ENOSPC when the bus is full.
 * @kvm kvm_main.c kvm_io_bus_register_dev
 */
export function ioBusRegisterDev(vm: VmState, bus: number, addr: number, len: number, dev: IoDevice): number {
  vm.locks.assertHeld(LOCK_SLOTS);
  const io = vm.buses.buses[bus]!;
  if (io.ranges.length - io.ioeventfdCount > NR_IOBUS_DEVS - 1) return -ENOSPC;
  io.insert(addr, len, dev);
  return 0;
}

/** Takes a device off its bus, wherever it is. Caller holds slots_lock. @kvm kvm_main.c kvm_io_bus_unregister_dev */
export function ioBusUnregisterDev(vm: VmState, bus: number, dev: IoDevice): number {
  vm.locks.assertHeld(LOCK_SLOTS);
  const ranges = vm.buses.buses[bus]!.ranges;
  const i = ranges.findIndex((r) => r.dev === dev);
  if (i < 0) return 0;
  ranges.splice(i, 1);
  dev.destructor?.();
  return 0;
}

/** The device at an address, or null. @kvm kvm_main.c kvm_io_bus_get_dev */
export function ioBusGetDev(vm: VmState, bus: number, addr: number): IoDevice | null {
  const io = vm.buses.buses[bus]!;
  const i = io.firstDev(addr, 1);
  return i < 0 ? null : io.ranges[i]!.dev;
}

function writeFrom(vcpu: VcpuState, io: IoBus, addr: number, len: number, buf: Uint8Array, off: number): number {
  let i = io.firstDev(addr, len);
  if (i < 0) return -EOPNOTSUPP;
  for (; i < io.ranges.length && compare(addr, len, io.ranges[i]!) === 0; i++) {
    const dev = io.ranges[i]!.dev;
    if (dev.write !== undefined && dev.write(vcpu, addr, len, buf, off) === 0) return i;
  }
  return -EOPNOTSUPP;
}

/** Offers a write to the devices: 0 taken, -EOPNOTSUPP by nobody. @kvm kvm_main.c kvm_io_bus_write */
export function ioBusWrite(
  vcpu: VcpuState,
  bus: number,
  addr: number,
  len: number,
  buf: Uint8Array,
  off: number,
): number {
  const r = writeFrom(vcpu, vcpu.vm.buses.buses[bus]!, addr, len, buf, off);
  return Math.min(r, 0);
}

/**
 * As `ioBusWrite`, with the place of the device that took the last one as a hint; answers the place of the one that took it.
 * @kvm kvm_main.c kvm_io_bus_write_cookie
 */
export function ioBusWriteCookie(
  vcpu: VcpuState,
  bus: number,
  addr: number,
  len: number,
  buf: Uint8Array,
  off: number,
  cookie: number,
): number {
  const io = vcpu.vm.buses.buses[bus]!;
  if (cookie >= 0 && cookie < io.ranges.length && compare(addr, len, io.ranges[cookie]!) === 0) {
    const dev = io.ranges[cookie]!.dev;
    if (dev.write !== undefined && dev.write(vcpu, addr, len, buf, off) === 0) return cookie;
  }
  return writeFrom(vcpu, io, addr, len, buf, off);
}

/** Offers a read to the devices: 0 answered, -EOPNOTSUPP by nobody. @kvm kvm_main.c kvm_io_bus_read */
export function ioBusRead(
  vcpu: VcpuState,
  bus: number,
  addr: number,
  len: number,
  buf: Uint8Array,
  off: number,
): number {
  const io = vcpu.vm.buses.buses[bus]!;
  let i = io.firstDev(addr, len);
  if (i < 0) return -EOPNOTSUPP;
  for (; i < io.ranges.length && compare(addr, len, io.ranges[i]!) === 0; i++) {
    const dev = io.ranges[i]!.dev;
    if (dev.read !== undefined && dev.read(vcpu, addr, len, buf, off) === 0) return 0;
  }
  return -EOPNOTSUPP;
}

/** @kvm kvm_main.c kvm_io_bus_destroy */
export function ioBusesDestroy(vm: VmState): void {
  for (const bus of vm.buses.buses) {
    for (const range of bus.ranges.splice(0)) range.dev.destructor?.();
  }
}
