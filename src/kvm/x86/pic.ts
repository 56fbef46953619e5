/** The in-kernel pair of 8259 interrupt controllers: ports 0x20, 0xa0 and their edge/level registers (@kvm i8259.c). */
import { EOPNOTSUPP } from '../../host/errno.ts';
import type { IoDevice } from '../io-bus/io-bus.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';

/** What userspace can see and set of one chip (@kvm kvm_host.h uapi kvm.h struct kvm_pic_state). */
export interface PicState {
  readonly irr: number;
  readonly imr: number;
  readonly isr: number;
  /** Vector of the chip's line 0. */
  readonly irqBase: number;
  readonly elcr: number;
}

class Chip {
  irr = 0;
  imr = 0;
  isr = 0;
  base = 0;
  elcr = 0;
  lastIrr = 0;
  initState = 0;
  fourByteInit = false;
  autoEoi = false;
  readIsr = false;
  priorityAdd = 0;

  /** Priority of the highest bit of `mask`, 8 for none. */
  priority(mask: number): number {
    if (mask === 0) return 8;
    let p = 0;
    while ((mask & (1 << ((p + this.priorityAdd) & 7))) === 0) p++;
    return p;
  }

  /** The interrupt to raise now, -1 for none. */
  pending(): number {
    const p = this.priority(this.irr & ~this.imr);
    if (p === 8 || p >= this.priority(this.isr)) return -1;
    return (p + this.priorityAdd) & 7;
  }

  setLine(irq: number, high: boolean): void {
    const bit = 1 << irq;
    if ((this.elcr & bit) !== 0) {
      this.irr = high ? this.irr | bit : this.irr & ~bit;
      this.lastIrr = high ? this.lastIrr | bit : this.lastIrr & ~bit;
    } else if (high) {
      if ((this.lastIrr & bit) === 0) this.irr |= bit;
      this.lastIrr |= bit;
    } else {
      this.lastIrr &= ~bit;
    }
  }

  acknowledge(irq: number): void {
    if (!this.autoEoi) this.isr |= 1 << irq;
    if ((this.elcr & (1 << irq)) === 0) this.irr &= ~(1 << irq);
  }

  command(value: number): void {
    if ((value & 0x10) !== 0) {
      this.initState = 1;
      this.fourByteInit = (value & 1) !== 0;
      this.imr = 0;
      this.isr = 0;
      this.irr &= this.elcr;
      this.readIsr = false;
      this.autoEoi = false;
    } else if ((value & 0x08) !== 0) {
      if ((value & 2) !== 0) this.readIsr = (value & 1) !== 0;
    } else {
      const op = value >> 5;
      if (op === 1 || op === 5) {
        const p = this.priority(this.isr);
        if (p < 8) {
          this.isr &= ~(1 << ((p + this.priorityAdd) & 7));
          if (op === 5) this.priorityAdd = (p + this.priorityAdd + 1) & 7;
        }
      } else if (op === 3 || op === 7) {
        this.isr &= ~(1 << (value & 7));
        if (op === 7) this.priorityAdd = (value + 1) & 7;
      } else if (op === 6) {
        this.priorityAdd = (value + 1) & 7;
      }
    }
  }

  data(value: number): void {
    if (this.initState === 0) this.imr = value;
    else if (this.initState === 1) {
      this.base = value & 0xf8;
      this.initState = 2;
    } else if (this.initState === 2) {
      this.initState = this.fourByteInit ? 3 : 0;
    } else {
      this.autoEoi = (value & 2) !== 0;
      this.initState = 0;
    }
  }

  readPort(data: boolean): number {
    if (data) return this.imr;
    return this.readIsr ? this.isr : this.irr;
  }
}

export class Pic implements IoDevice {
  private readonly chips = [new Chip(), new Chip()];
  /** The wire to the processor. */
  output = false;

  private update(vm: VmState): void {
    const [master, slave] = this.chips as [Chip, Chip];
    master.setLine(2, slave.pending() >= 0);
    const was = this.output;
    this.output = master.pending() >= 0;
    if (this.output && !was) for (const vcpu of vm.vcpus) makeRequest(vcpu, REQ_EVENT);
  }

  /** KVM_GET_IRQCHIP's answer for chip 0 (master) or 1. */
  state(chip: 0 | 1): PicState {
    const { irr, imr, isr, base, elcr } = this.chips[chip]!;
    return { irr, imr, isr, irqBase: base, elcr };
  }

  /** KVM_SET_IRQCHIP for chip 0 (master) or 1. */
  setState(vm: VmState, chip: 0 | 1, state: PicState): void {
    const { irqBase, ...rest } = state;
    Object.assign(this.chips[chip]!, rest, { base: irqBase });
    this.update(vm);
  }

  /** Line `irq` (0 to 15) goes to `high`. @kvm i8259.c kvm_pic_set_irq */
  setIrq(vm: VmState, irq: number, high: boolean): void {
    this.chips[irq >> 3]!.setLine(irq & 7, high);
    this.update(vm);
  }

  /** Acknowledges: the vector to deliver. @kvm i8259.c kvm_pic_read_irq */
  readIrq(vm: VmState): number {
    const [master, slave] = this.chips as [Chip, Chip];
    const irq = master.pending();
    let vector = master.base + (irq >= 0 ? irq : 7);
    if (irq >= 0) {
      master.acknowledge(irq);
      if (irq === 2) {
        const irq2 = slave.pending();
        vector = slave.base + (irq2 >= 0 ? irq2 : 7);
        if (irq2 >= 0) slave.acknowledge(irq2);
      }
    }
    this.update(vm);
    return vector;
  }

  /** @kvm i8259.c picdev_read */
  read(_vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number {
    if (len !== 1) {
      buf.fill(0, off, off + len);
      return 0;
    }
    if (addr === 0x4d0 || addr === 0x4d1) buf[off] = this.chips[addr & 1]!.elcr;
    else if ((addr & ~0x81) === 0x20) buf[off] = this.chips[addr >> 7]!.readPort((addr & 1) !== 0);
    else return -EOPNOTSUPP;
    return 0;
  }

  /** @kvm i8259.c picdev_write */
  write(vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number {
    if (len !== 1) return 0;
    const value = buf[off]!;
    if (addr === 0x4d0 || addr === 0x4d1) {
      this.chips[addr & 1]!.elcr = value & (addr === 0x4d0 ? 0xf8 : 0xde);
    } else if ((addr & ~0x81) === 0x20) {
      const chip = this.chips[addr >> 7]!;
      if ((addr & 1) !== 0) chip.data(value);
      else chip.command(value);
    } else {
      return -EOPNOTSUPP;
    }
    this.update(vcpu.vm);
    return 0;
  }
}
