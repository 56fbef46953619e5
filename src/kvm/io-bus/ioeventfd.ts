/** ioeventfd (@kvm eventfd.c kvm_ioeventfd): a guest's write to an address signals an eventfd and takes no exit. */
import { EBADF, EEXIST, EINVAL, ENOENT, EOPNOTSUPP } from '../../host/errno.ts';
import { LOCK_SLOTS } from '../locks.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import type { EventCounter } from './eventfd.ts';
import {
  type IoDevice,
  ioBusRegisterDev,
  ioBusUnregisterDev,
  KVM_FAST_MMIO_BUS,
  KVM_MMIO_BUS,
  KVM_PIO_BUS,
  KVM_VIRTIO_CCW_NOTIFY_BUS,
} from './io-bus.ts';

export const KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0;
export const KVM_IOEVENTFD_FLAG_PIO = 1 << 1;
export const KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << 2;
export const KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY = 1 << 3;
const VALID_FLAGS = 0xf;

/** Arguments of KVM_IOEVENTFD. */
export interface IoeventfdArgs {
  /** Null stands for a file descriptor that is no eventfd. */
  readonly eventfd: EventCounter | null;
  readonly addr: bigint;
  /** 0, 1, 2, 4 or 8. */
  readonly len: number;
  readonly datamatch: bigint;
  readonly flags: number;
}

/** One registration, which is the device on the bus. */
export class Ioeventfd implements IoDevice {
  readonly bus: number;
  readonly addr: number;
  readonly length: number;
  readonly eventfd: EventCounter;
  /** No DATAMATCH: any value is a hit. */
  readonly wildcard: boolean;
  readonly datamatch: bigint;
  private readonly match = new Uint8Array(8);
  private readonly vm: VmState;

  constructor(vm: VmState, bus: number, args: IoeventfdArgs, eventfd: EventCounter) {
    this.vm = vm;
    this.bus = bus;
    this.addr = Number(args.addr);
    this.length = args.len;
    this.eventfd = eventfd;
    this.wildcard = (args.flags & KVM_IOEVENTFD_FLAG_DATAMATCH) === 0;
    this.datamatch = this.wildcard ? 0n : BigInt.asUintN(64, args.datamatch);
    new DataView(this.match.buffer).setBigUint64(0, this.datamatch, true);
  }

  /** @kvm eventfd.c ioeventfd_in_range */
  private inRange(addr: number, len: number, buf: Uint8Array, off: number): boolean {
    if (addr !== this.addr) return false;
    if (this.length === 0) return true;
    if (len !== this.length) return false;
    if (this.wildcard) return true;
    for (let i = 0; i < len; i++) if (buf[off + i] !== this.match[i]) return false;
    for (let i = len; i < 8; i++) if (this.match[i] !== 0) return false;
    return true;
  }

  /** @kvm eventfd.c ioeventfd_write */
  write(_vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number {
    if (!this.inRange(addr, len, buf, off)) return -EOPNOTSUPP;
    this.eventfd.signal();
    return 0;
  }

  /** @kvm eventfd.c ioeventfd_check_collision */
  collidesWith(other: Ioeventfd): boolean {
    if (this.bus !== other.bus || this.addr !== other.addr) return false;
    if (this.length === 0 || other.length === 0) return true;
    return this.length === other.length && (this.wildcard || other.wildcard || this.datamatch === other.datamatch);
  }

  /** @kvm eventfd.c ioeventfd_release */
  destructor(): void {
    const list = this.vm.buses.ioeventfds;
    const i = list.indexOf(this);
    if (i >= 0) list.splice(i, 1);
  }
}

/**
 * Assigns or deassigns.
 * @returns 0, -EINVAL (length, range, flags, DATAMATCH without length), -EBADF (no eventfd), -EEXIST (collision),
 *   -ENOSPC (bus full), -ENOENT (nothing to deassign)
 * @kvm eventfd.c kvm_ioeventfd
 */
export function ioeventfd(vm: VmState, args: IoeventfdArgs): number {
  return (args.flags & KVM_IOEVENTFD_FLAG_DEASSIGN) !== 0 ? deassign(vm, args) : assign(vm, args);
}

/** @kvm eventfd.c ioeventfd_bus_from_flags */
function busFromFlags(flags: number): number {
  if ((flags & KVM_IOEVENTFD_FLAG_PIO) !== 0) return KVM_PIO_BUS;
  if ((flags & KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY) !== 0) return KVM_VIRTIO_CCW_NOTIFY_BUS;
  return KVM_MMIO_BUS;
}

/** @kvm eventfd.c kvm_assign_ioeventfd */
function assign(vm: VmState, args: IoeventfdArgs): number {
  const bus = busFromFlags(args.flags);
  if (![0, 1, 2, 4, 8].includes(args.len)) return -EINVAL;
  if (args.addr + BigInt(args.len) >= 1n << 64n) return -EINVAL;
  if ((args.flags & ~VALID_FLAGS) !== 0) return -EINVAL;
  if (args.len === 0 && (args.flags & KVM_IOEVENTFD_FLAG_DATAMATCH) !== 0) return -EINVAL;
  const r = assignOnBus(vm, bus, args);
  if (r !== 0 || args.len !== 0 || bus !== KVM_MMIO_BUS) return r;
  // Of any length: also on the bus that is asked before the instruction is decoded.
  const fast = assignOnBus(vm, KVM_FAST_MMIO_BUS, args);
  if (fast < 0) deassignFromBus(vm, bus, args);
  return fast;
}

/** @kvm eventfd.c kvm_assign_ioeventfd_idx */
function assignOnBus(vm: VmState, bus: number, args: IoeventfdArgs): number {
  if (args.eventfd === null) return -EBADF;
  vm.locks.acquire(LOCK_SLOTS);
  const r = addToBus(vm, bus, new Ioeventfd(vm, bus, args, args.eventfd));
  vm.locks.release(LOCK_SLOTS);
  return r;
}

function addToBus(vm: VmState, bus: number, dev: Ioeventfd): number {
  if (vm.buses.ioeventfds.some((other) => other.collidesWith(dev))) return -EEXIST;
  const r = ioBusRegisterDev(vm, bus, dev.addr, dev.length, dev);
  if (r < 0) return r;
  vm.buses.buses[bus]!.ioeventfdCount++;
  vm.buses.ioeventfds.push(dev);
  return 0;
}

/** @kvm eventfd.c kvm_deassign_ioeventfd */
function deassign(vm: VmState, args: IoeventfdArgs): number {
  const bus = busFromFlags(args.flags);
  const r = deassignFromBus(vm, bus, args);
  if (args.len === 0 && bus === KVM_MMIO_BUS) deassignFromBus(vm, KVM_FAST_MMIO_BUS, args);
  return r;
}

/** @kvm eventfd.c kvm_deassign_ioeventfd_idx */
function deassignFromBus(vm: VmState, bus: number, args: IoeventfdArgs): number {
  if (args.eventfd === null) return -EBADF;
  const wildcard = (args.flags & KVM_IOEVENTFD_FLAG_DATAMATCH) === 0;
  vm.locks.acquire(LOCK_SLOTS);
  const dev = vm.buses.ioeventfds.find(
    (p) =>
      p.bus === bus &&
      p.eventfd === args.eventfd &&
      BigInt(p.addr) === args.addr &&
      p.length === args.len &&
      p.wildcard === wildcard &&
      (wildcard || p.datamatch === args.datamatch),
  );
  if (dev !== undefined) {
    ioBusUnregisterDev(vm, bus, dev);
    vm.buses.buses[bus]!.ioeventfdCount--;
  }
  vm.locks.release(LOCK_SLOTS);
  return dev !== undefined ? 0 : -ENOENT;
}
