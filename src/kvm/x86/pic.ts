/** The in-kernel pair of 8259 interrupt controllers: ports 0x20, 0xa0 and their edge/level registers (@kvm i8259.c). */
import { EOPNOTSUPP } from '../../host/errno.ts';
import type { IoDevice } from '../io-bus/io-bus.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { apicAcceptsPicIntr } from './irq.ts';
import { fireMaskNotifiers, lineState, notifyAckedIrq } from './irq-routing.ts';

/** What userspace can see and set of one chip (@kvm kvm_host.h uapi kvm.h struct kvm_pic_state). */
export interface PicState {
  readonly irr: number;
  readonly imr: number;
  readonly isr: number;
  /** Vector of the chip's line 0. */
  readonly irqBase: number;
  readonly elcr: number;
}

const CASCADE = 2;

class Chip {
  irr = 0;
  imr = 0;
  isr = 0;
  irqBase = 0;
  elcr = 0;
  lastIrr = 0;
  initState = 0;
  init4 = false;
  autoEoi = false;
  rotateOnAutoEoi = false;
  readIsr = false;
  poll = false;
  specialFullyNested = false;
  priorityAdd = 0;
  /** Pin of the pair that line 0 is. */
  readonly firstPin: number;

  constructor(firstPin: number) {
    this.firstPin = firstPin;
  }

  /** Priority of the highest bit of `mask`, 8 for none. @kvm i8259.c get_priority */
  priority(mask: number): number {
    if (mask === 0) return 8;
    let p = 0;
    while ((mask & (1 << ((p + this.priorityAdd) & 7))) === 0) p++;
    return p;
  }

  /** The interrupt to raise now, -1 for none. In special fully nested mode the slave may interrupt itself. @kvm i8259.c pic_get_irq */
  pending(): number {
    const p = this.priority(this.irr & ~this.imr);
    if (p === 8) return -1;
    const nested = this.specialFullyNested && this.firstPin === 0;
    const served = nested ? this.isr & ~(1 << CASCADE) : this.isr;
    return p < this.priority(served) ? (p + this.priorityAdd) & 7 : -1;
  }

  /** @kvm i8259.c pic_set_irq1 */
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
}

export class Pic implements IoDevice {
  private readonly master = new Chip(0);
  private readonly slave = new Chip(8);
  private readonly lines = new Int32Array(16);
  /** The wire to the processor. */
  output = false;

  /** @kvm i8259.c pic_update_irq, pic_unlock */
  private update(vm: VmState): void {
    if (this.slave.pending() >= 0) {
      this.master.setLine(CASCADE, true);
      this.master.setLine(CASCADE, false);
    }
    const was = this.output;
    this.output = this.master.pending() >= 0;
    if (!this.output || was) return;
    for (const vcpu of vm.vcpus) {
      if (vcpu.x86.lapic === null || !apicAcceptsPicIntr(vcpu)) continue;
      makeRequest(vcpu, REQ_EVENT);
      return;
    }
  }

  /** KVM_GET_IRQCHIP's answer for chip 0 (master) or 1. */
  state(chip: 0 | 1): PicState {
    const { irr, imr, isr, irqBase, elcr } = chip === 0 ? this.master : this.slave;
    return { irr, imr, isr, irqBase, elcr };
  }

  /** KVM_SET_IRQCHIP for chip 0 (master) or 1. */
  setState(vm: VmState, chip: 0 | 1, state: PicState): void {
    Object.assign(chip === 0 ? this.master : this.slave, state);
    this.update(vm);
  }

  /** Pin `irq` (0 to 15) is pulled or let go by `source`. @kvm i8259.c kvm_pic_set_irq */
  setIrq(vm: VmState, irq: number, source: number, high: boolean): void {
    const chip = irq < 8 ? this.master : this.slave;
    chip.setLine(irq & 7, lineState(this.lines, irq, source, high));
    this.update(vm);
  }

  /** @kvm i8259.c pic_clear_isr */
  private clearIsr(vm: VmState, chip: Chip, irq: number): void {
    chip.isr &= ~(1 << irq);
    notifyAckedIrq(vm, 'pic', chip.firstPin + irq);
  }

  /** A level-triggered interrupt stays requested. @kvm i8259.c pic_intack */
  private acknowledge(vm: VmState, chip: Chip, irq: number): void {
    chip.isr |= 1 << irq;
    if ((chip.elcr & (1 << irq)) === 0) chip.irr &= ~(1 << irq);
    if (!chip.autoEoi) return;
    if (chip.rotateOnAutoEoi) chip.priorityAdd = (irq + 1) & 7;
    this.clearIsr(vm, chip, irq);
  }

  /** Acknowledges: the vector to deliver; line 7 when the request has gone meanwhile. @kvm i8259.c kvm_pic_read_irq */
  readIrq(vm: VmState): number {
    const { master, slave } = this;
    this.output = false;
    const irq = master.pending();
    let vector = master.irqBase + (irq >= 0 ? irq : 7);
    if (irq >= 0) {
      this.acknowledge(vm, master, irq);
      if (irq === CASCADE) {
        const irq2 = slave.pending();
        if (irq2 >= 0) this.acknowledge(vm, slave, irq2);
        vector = slave.irqBase + (irq2 >= 0 ? irq2 : 7);
      }
    }
    this.update(vm);
    return vector;
  }

  /** ICW1. Edges that were requested are lost, which is as good as acknowledged. @kvm i8259.c kvm_pic_reset */
  private resetChip(vm: VmState, chip: Chip): void {
    const edges = chip.irr & ~chip.elcr;
    chip.lastIrr = 0;
    chip.irr &= chip.elcr;
    chip.imr = 0;
    chip.priorityAdd = 0;
    chip.readIsr = false;
    if (!chip.init4) {
      chip.specialFullyNested = false;
      chip.autoEoi = false;
    }
    chip.initState = 1;
    if (!vm.vcpus.some((vcpu) => vcpu.x86.lapic !== null && apicAcceptsPicIntr(vcpu))) return;
    for (let irq = 0; irq < 8; irq++) if ((edges & (1 << irq)) !== 0) this.clearIsr(vm, chip, irq);
  }

  /** OCW2. */
  private endOfInterrupt(vm: VmState, chip: Chip, value: number): void {
    const command = value >> 5;
    if (command === 0 || command === 4) {
      chip.rotateOnAutoEoi = command === 4;
    } else if (command === 6) {
      chip.priorityAdd = (value + 1) & 7;
      this.update(vm);
    } else if (command !== 2) {
      const specific = command === 3 || command === 7;
      const p = chip.priority(chip.isr);
      if (!specific && p === 8) return;
      const irq = specific ? value & 7 : (p + chip.priorityAdd) & 7;
      if (command === 5 || command === 7) chip.priorityAdd = (irq + 1) & 7;
      this.clearIsr(vm, chip, irq);
      this.update(vm);
    }
  }

  private writeCommand(vm: VmState, chip: Chip, value: number): void {
    if ((value & 0x10) !== 0) {
      chip.init4 = (value & 1) !== 0;
      this.resetChip(vm, chip);
    } else if ((value & 0x08) !== 0) {
      if ((value & 4) !== 0) chip.poll = true;
      if ((value & 2) !== 0) chip.readIsr = (value & 1) !== 0;
    } else {
      this.endOfInterrupt(vm, chip, value);
    }
  }

  private writeData(vm: VmState, chip: Chip, value: number): void {
    switch (chip.initState) {
      case 0: {
        const changed = chip.imr ^ value;
        chip.imr = value;
        for (let irq = 0; irq < 8; irq++) {
          const bit = 1 << irq;
          if ((changed & bit) !== 0) fireMaskNotifiers(vm, 'pic', chip.firstPin + irq, (value & bit) !== 0);
        }
        this.update(vm);
        return;
      }
      case 1:
        chip.irqBase = value & 0xf8;
        chip.initState = 2;
        return;
      case 2:
        chip.initState = chip.init4 ? 3 : 0;
        return;
      default:
        chip.specialFullyNested = (value & 0x10) !== 0;
        chip.autoEoi = (value & 2) !== 0;
        chip.initState = 0;
    }
  }

  /** A read after a poll command acknowledges. @kvm i8259.c pic_poll_read */
  private pollRead(vm: VmState, chip: Chip): number {
    const irq = chip.pending();
    if (irq < 0) {
      this.update(vm);
      return 7;
    }
    if (chip === this.slave) {
      this.master.isr &= ~(1 << CASCADE);
      this.master.irr &= ~(1 << CASCADE);
    }
    chip.irr &= ~(1 << irq);
    this.clearIsr(vm, chip, irq);
    if (chip === this.slave || irq !== CASCADE) this.update(vm);
    return irq | 0x80;
  }

  private readChip(vm: VmState, chip: Chip, data: boolean): number {
    if (chip.poll) {
      chip.poll = false;
      return this.pollRead(vm, chip);
    }
    if (data) return chip.imr;
    return chip.readIsr ? chip.isr : chip.irr;
  }

  /** @kvm i8259.c picdev_read */
  read(vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number {
    if (len !== 1) {
      buf.fill(0, off, off + len);
      return 0;
    }
    if (addr === 0x4d0 || addr === 0x4d1) buf[off] = (addr === 0x4d0 ? this.master : this.slave).elcr;
    else if ((addr & ~0x81) === 0x20) {
      buf[off] = this.readChip(vcpu.vm, addr < 0x80 ? this.master : this.slave, (addr & 1) !== 0);
    } else return -EOPNOTSUPP;
    return 0;
  }

  /** @kvm i8259.c picdev_write */
  write(vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number {
    if (len !== 1) return 0;
    const value = buf[off]!;
    if (addr === 0x4d0) this.master.elcr = value & 0xf8;
    else if (addr === 0x4d1) this.slave.elcr = value & 0xde;
    else if ((addr & ~0x81) === 0x20) {
      const chip = addr < 0x80 ? this.master : this.slave;
      if ((addr & 1) !== 0) this.writeData(vcpu.vm, chip, value);
      else this.writeCommand(vcpu.vm, chip, value);
    } else return -EOPNOTSUPP;
    return 0;
  }
}
