/** The in-kernel I/O APIC: 24 pins, at 0xfec00000 (@kvm ioapic.c). */
import { EOPNOTSUPP } from '../../host/errno.ts';
import type { IoDevice } from '../io-bus/io-bus.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { fireMaskNotifiers, IOAPIC_PINS, lineState, notifyAckedIrq } from './irq-routing.ts';
import { APIC_INT_ASSERT, deliverToApics } from './lapic-delivery.ts';
import { HrTimer, virtualNow } from './virtual-time.ts';

export const IOAPIC_BASE = 0xfec00000;
export const IOAPIC_SIZE = 0x100;
const IOAPIC_VERSION = 0x11;
const IOREGSEL = 0x00;
const IOWIN = 0x10;
const REG_ID = 0;
const REG_VERSION = 1;
const REG_ARBITRATION = 2;

const LEVEL = 1 << 15;
const REMOTE_IRR = 1 << 14;
const STATUS = 1 << 12;
const MASKED = 1 << 16;
/** Vector, delivery mode, destination mode and trigger are where an ICR has them. */
const AS_ICR = 0x8fff;

/** EOIs of a line that stays high before the guest is given a break, and how long that is: 10 ms. */
const SUCCESSIVE_IRQS = 10_000;
const BREAK = 10_000_000;

/** What userspace can see and set (@kvm kvm_host.h uapi kvm.h struct kvm_ioapic_state). */
export interface IoApicState {
  readonly id: number;
  readonly regSelect: number;
  readonly irr: number;
  /** Redirection table, halves: low at 2n. */
  readonly redirection: Int32Array;
}

export class IoApic implements IoDevice {
  /** Redirection table, halves: low at 2n. */
  readonly redirection = new Int32Array(2 * IOAPIC_PINS);
  regSelect = 0;
  id = 0;
  /** Pins whose line is high. */
  irr = 0;
  private readonly lines = new Int32Array(IOAPIC_PINS);
  private readonly eois = new Int32Array(IOAPIC_PINS);
  private readonly eoiInject: HrTimer;

  constructor(vm: VmState) {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) this.redirection[2 * pin] = MASKED;
    this.eoiInject = new HrTimer(() => this.injectHigh(vm));
  }

  /** @kvm ioapic.c ioapic_service */
  private service(vm: VmState, pin: number): void {
    const lo = this.redirection[2 * pin]!;
    const level = (lo & LEVEL) !== 0;
    if ((lo & MASKED) !== 0 || (level && (lo & REMOTE_IRR) !== 0)) return;
    const dest = this.redirection[2 * pin + 1]! >>> 24;
    const taken = deliverToApics(vm, dest, (lo & AS_ICR) | APIC_INT_ASSERT);
    if (taken > 0 && level) this.redirection[2 * pin]! |= REMOTE_IRR;
  }

  /** `source` pulls a pin's line or lets it go. @kvm ioapic.c kvm_ioapic_set_irq */
  setIrq(vm: VmState, pin: number, source: number, high: boolean): void {
    const bit = 1 << pin;
    if (!lineState(this.lines, pin, source, high)) {
      this.irr &= ~bit;
      return;
    }
    const waits = (this.irr & bit) !== 0;
    this.irr |= bit;
    if ((this.redirection[2 * pin]! & LEVEL) !== 0 || !waits) this.service(vm, pin);
  }

  /** A vCPU's handler has finished; `level` as its APIC took the interrupt. @kvm ioapic.c kvm_ioapic_update_eoi */
  eoi(vm: VmState, vector: number, level: boolean): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      if ((this.redirection[2 * pin]! & 0xff) === vector) this.eoiOne(vm, pin, level);
    }
  }

  /** @kvm ioapic.c kvm_ioapic_update_eoi_one */
  private eoiOne(vm: VmState, pin: number, level: boolean): void {
    notifyAckedIrq(vm, 'ioapic', pin);
    if (!level) return;
    this.redirection[2 * pin]! &= ~REMOTE_IRR;
    if ((this.redirection[2 * pin]! & MASKED) !== 0 || (this.irr & (1 << pin)) === 0) {
      this.eois[pin] = 0;
      return;
    }
    if (++this.eois[pin]! === SUCCESSIVE_IRQS) {
      this.eois[pin] = 0;
      vm.x86.timers.start(this.eoiInject, virtualNow(vm) + BREAK);
    } else {
      this.service(vm, pin);
    }
  }

  /** @kvm ioapic.c kvm_ioapic_eoi_inject_work */
  private injectHigh(vm: VmState): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const lo = this.redirection[2 * pin]!;
      if ((lo & LEVEL) !== 0 && (lo & REMOTE_IRR) === 0 && (this.irr & (1 << pin)) !== 0) this.service(vm, pin);
    }
  }

  /** KVM_GET_IRQCHIP's answer. */
  state(): IoApicState {
    return { id: this.id, regSelect: this.regSelect, irr: this.irr, redirection: this.redirection.slice() };
  }

  /** KVM_SET_IRQCHIP: lines that are high interrupt. @kvm ioapic.c kvm_set_ioapic */
  setState(vm: VmState, state: IoApicState): void {
    this.id = state.id;
    this.regSelect = state.regSelect;
    this.redirection.set(state.redirection);
    this.irr = 0;
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      if ((state.irr & (1 << pin)) === 0) continue;
      this.irr |= 1 << pin;
      this.service(vm, pin);
    }
  }

  /** @kvm ioapic.c ioapic_read_indirect */
  private readRegister(): number {
    if (this.regSelect === REG_ID || this.regSelect === REG_ARBITRATION) return (this.id & 0xf) << 24;
    if (this.regSelect === REG_VERSION) return ((IOAPIC_PINS - 1) << 16) | IOAPIC_VERSION;
    const index = this.regSelect - 0x10;
    if (index < 0 || index >= 2 * IOAPIC_PINS) return -1;
    return this.redirection[index]!;
  }

  /** An entry that becomes edge-triggered forgets that it waits for an EOI. @kvm ioapic.c ioapic_write_indirect */
  private writeRegister(vm: VmState, value: number): void {
    if (this.regSelect === REG_ID) this.id = (value >>> 24) & 0xf;
    const index = this.regSelect - 0x10;
    if (index < 0 || index >= 2 * IOAPIC_PINS) return;
    const pin = index >> 1;
    const before = this.redirection[2 * pin]!;
    if ((index & 1) !== 0) this.redirection[index] = value;
    else {
      const readOnly = REMOTE_IRR | STATUS;
      const lo = (value & ~readOnly) | (before & readOnly);
      this.redirection[index] = (lo & LEVEL) === 0 ? lo & ~REMOTE_IRR : lo;
    }
    const lo = this.redirection[2 * pin]!;
    if (((lo ^ before) & MASKED) !== 0) fireMaskNotifiers(vm, 'ioapic', pin, (lo & MASKED) !== 0);
    if ((lo & LEVEL) !== 0 && (this.irr & (1 << pin)) !== 0) this.service(vm, pin);
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
