/** The in-kernel I/O APIC: 24 pins, at 0xfec00000 (@kvm ioapic.c). */
import { EOPNOTSUPP } from '../../host/errno.ts';
import type { IoDevice } from '../io-bus/io-bus.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { APIC_INT_ASSERT, deliverToApics } from './lapic-delivery.ts';

export const IOAPIC_BASE = 0xfec00000;
export const IOAPIC_SIZE = 0x100;
const IOAPIC_PINS = 24;
const IOAPIC_VERSION = 0x11;
const IOREGSEL = 0x00;
const IOWIN = 0x10;

const LEVEL = 1 << 15;
const REMOTE_IRR = 1 << 14;
const MASKED = 1 << 16;

export class IoApic implements IoDevice {
  /** Redirection table, halves: low at 2n. */
  readonly redirection = new Int32Array(2 * IOAPIC_PINS);
  regSelect = 0;
  id = 0;
  /** Pins whose line is high. */
  irr = 0;

  constructor() {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) this.redirection[2 * pin] = MASKED;
  }

  private service(vm: VmState, pin: number): void {
    const lo = this.redirection[2 * pin]!;
    if ((lo & MASKED) !== 0 || (this.irr & (1 << pin)) === 0) return;
    const level = (lo & LEVEL) !== 0;
    if (level && (lo & REMOTE_IRR) !== 0) return;
    const dest = this.redirection[2 * pin + 1]! >>> 24;
    // Vector, mode, destination mode and trigger are where an ICR has them.
    const taken = deliverToApics(vm, dest, (lo & 0x8fff) | APIC_INT_ASSERT);
    if (taken > 0 && level) this.redirection[2 * pin] = lo | REMOTE_IRR;
  }

  /** A pin's line goes to `high`. @kvm ioapic.c kvm_ioapic_set_irq */
  setIrq(vm: VmState, pin: number, high: boolean): void {
    const bit = 1 << pin;
    if (!high) {
      this.irr &= ~bit;
      return;
    }
    const waits = (this.irr & bit) !== 0;
    this.irr |= bit;
    const level = (this.redirection[2 * pin]! & LEVEL) !== 0;
    if (level || !waits) this.service(vm, pin);
  }

  /** The handler of a level interrupt has finished. @kvm ioapic.c kvm_ioapic_update_eoi */
  eoi(vm: VmState, vector: number): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const lo = this.redirection[2 * pin]!;
      if ((lo & 0xff) !== vector || (lo & LEVEL) === 0) continue;
      this.redirection[2 * pin] = lo & ~REMOTE_IRR;
      this.service(vm, pin);
    }
  }

  private readRegister(): number {
    if (this.regSelect === 0 || this.regSelect === 2) return (this.id & 0xf) << 24;
    if (this.regSelect === 1) return ((IOAPIC_PINS - 1) << 16) | IOAPIC_VERSION;
    const index = this.regSelect - 0x10;
    if (index < 0 || index >= 2 * IOAPIC_PINS) return -1;
    return this.redirection[index]!;
  }

  private writeRegister(vm: VmState, value: number): void {
    if (this.regSelect === 0) this.id = (value >>> 24) & 0xf;
    const index = this.regSelect - 0x10;
    if (index < 0 || index >= 2 * IOAPIC_PINS) return;
    const low = (index & 1) === 0;
    const readOnly = REMOTE_IRR | (1 << 12);
    this.redirection[index] = low ? (value & ~readOnly) | (this.redirection[index]! & readOnly) : value;
    const pin = index >> 1;
    if ((this.redirection[2 * pin]! & LEVEL) !== 0) this.service(vm, pin);
  }

  /** @kvm ioapic.c ioapic_mmio_read */
  read(_vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number {
    if (addr < IOAPIC_BASE || addr >= IOAPIC_BASE + IOAPIC_SIZE) return -EOPNOTSUPP;
    const at = (addr - IOAPIC_BASE) & 0xff;
    let value = 0;
    if (at === IOREGSEL) value = this.regSelect;
    else if (at === IOWIN) value = this.readRegister();
    const bytes = Math.min(len, 4);
    for (let i = 0; i < bytes; i++) buf[off + i] = value >>> (8 * i);
    for (let i = bytes; i < len; i++) buf[off + i] = 0;
    return 0;
  }

  /** @kvm ioapic.c ioapic_mmio_write */
  write(vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number {
    if (addr < IOAPIC_BASE || addr >= IOAPIC_BASE + IOAPIC_SIZE) return -EOPNOTSUPP;
    let value = 0;
    for (let i = 0; i < Math.min(len, 4); i++) value |= buf[off + i]! << (8 * i);
    const at = (addr - IOAPIC_BASE) & 0xff;
    if (at === IOREGSEL) this.regSelect = value & 0xff;
    else if (at === IOWIN) this.writeRegister(vcpu.vm, value);
    return 0;
  }
}
