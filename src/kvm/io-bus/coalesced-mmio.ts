/** Coalesced MMIO and PIO (@kvm coalesced_mmio.c): writes to a zone go to a ring and no exit is taken. */
import { EINVAL, EOPNOTSUPP } from '../../host/errno.ts';
import { LOCK_SLOTS } from '../locks.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { type IoDevice, ioBusRegisterDev, ioBusUnregisterDev, KVM_MMIO_BUS, KVM_PIO_BUS } from './io-bus.ts';

/** A zone, which is the device on the bus. */
export class CoalescedZone implements IoDevice {
  readonly addr: number;
  readonly size: number;
  readonly pio: boolean;
  private readonly vm: VmState;

  constructor(vm: VmState, addr: number, size: number, pio: boolean) {
    this.vm = vm;
    this.addr = addr;
    this.size = size;
    this.pio = pio;
  }

  /** @kvm coalesced_mmio.c coalesced_mmio_in_range */
  contains(addr: number, len: number): boolean {
    return len >= 0 && addr >= this.addr && addr + len <= this.addr + this.size;
  }

  /** @kvm coalesced_mmio.c coalesced_mmio_write */
  write(vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number {
    if (!this.contains(addr, len)) return -EOPNOTSUPP;
    return vcpu.vm.buses.coalescedRing.push(addr, len, buf, off, this.pio) ? 0 : -EOPNOTSUPP;
  }

  /** @kvm coalesced_mmio.c coalesced_mmio_destructor */
  destructor(): void {
    const zones = this.vm.buses.coalescedZones;
    const i = zones.indexOf(this);
    if (i >= 0) zones.splice(i, 1);
  }
}

/**
 * @param pio 0 or 1
 * @returns 0, -EINVAL (pio), -ENOSPC (too many devices)
 * @kvm coalesced_mmio.c kvm_vm_ioctl_register_coalesced_mmio
 */
export function registerCoalescedMmio(vm: VmState, addr: number, size: number, pio: number): number {
  if (pio !== 1 && pio !== 0) return -EINVAL;
  vm.locks.acquire(LOCK_SLOTS);
  const zone = new CoalescedZone(vm, addr, size, pio === 1);
  const r = ioBusRegisterDev(vm, pio === 1 ? KVM_PIO_BUS : KVM_MMIO_BUS, addr, size, zone);
  if (r === 0) vm.buses.coalescedZones.push(zone);
  vm.locks.release(LOCK_SLOTS);
  return r;
}

/**
 * Removes every zone of that kind that contains the range; none is no error. @kvm coalesced_mmio.c
 * kvm_vm_ioctl_unregister_coalesced_mmio
 */
export function unregisterCoalescedMmio(vm: VmState, addr: number, size: number, pio: number): number {
  if (pio !== 1 && pio !== 0) return -EINVAL;
  vm.locks.acquire(LOCK_SLOTS);
  for (const zone of vm.buses.coalescedZones.slice()) {
    if (zone.pio === (pio === 1) && zone.contains(addr, size)) {
      ioBusUnregisterDev(vm, pio === 1 ? KVM_PIO_BUS : KVM_MMIO_BUS, zone);
    }
  }
  vm.locks.release(LOCK_SLOTS);
  return 0;
}
