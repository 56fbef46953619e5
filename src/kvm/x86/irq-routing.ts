/**
 * Which wire (GSI) goes to which pins, and who hears of acknowledgements and masks (@kvm irq_comm.c, irqchip.c).
 * PIC pins have the slave's from 8 on.
 */
import { EINVAL, ENXIO } from '../../host/errno.ts';
import type { VmState } from '../vm-state.ts';
import { APIC_DEST_LOGICAL, APIC_INT_ASSERT, APIC_INT_LEVELTRIG, deliverToApics } from './lapic-delivery.ts';

export type IrqChip = 'pic' | 'ioapic';

/** struct kvm_irq_routing_entry: a wire's end at a pin, or a message in its place. */
export type IrqRoutingEntry =
  | { readonly gsi: number; readonly type: 'irqchip'; readonly chip: IrqChip; readonly pin: number }
  | { readonly gsi: number; readonly type: 'msi'; readonly address: number; readonly data: number };

/** Something in KVM that waits for a wire's interrupt to be acknowledged, or to be masked or not. */
export interface IrqNotifier {
  readonly gsi: number;
  /** @kvm kvm_host.h struct kvm_irq_ack_notifier */
  readonly acked: () => void;
  /** @kvm kvm_host.h struct kvm_irq_mask_notifier */
  readonly maskChanged: (masked: boolean) => void;
}

const PIC_PINS = 16;
export const IOAPIC_PINS = 24;
export const KVM_MAX_IRQ_ROUTES = 4096;

/** Lines from userspace, and those of KVM's own devices. @kvm kvm_host.h KVM_USERSPACE_IRQ_SOURCE_ID */
export const USERSPACE_SOURCE = 0;
export const PIT_SOURCE = 2;

/** Wire n goes to pin n of each controller that has one. @kvm irq_comm.c default_routing */
export function defaultRouting(): IrqRoutingEntry[] {
  const entries: IrqRoutingEntry[] = [];
  for (let gsi = 0; gsi < IOAPIC_PINS; gsi++) {
    entries.push({ gsi, type: 'irqchip', chip: 'ioapic', pin: gsi });
    if (gsi < PIC_PINS) entries.push({ gsi, type: 'irqchip', chip: 'pic', pin: gsi });
  }
  return entries;
}

/** KVM_SET_GSI_ROUTING: 0, -ENXIO without controllers, -EINVAL for a pin that is not there. @kvm irqchip.c kvm_set_irq_routing */
export function setIrqRouting(vm: VmState, entries: readonly IrqRoutingEntry[]): number {
  if (vm.x86.ioapic === null) return -ENXIO;
  if (entries.length > KVM_MAX_IRQ_ROUTES) return -EINVAL;
  for (const e of entries) {
    if (e.gsi < 0 || e.gsi >= KVM_MAX_IRQ_ROUTES) return -EINVAL;
    if (e.type === 'irqchip' && (e.pin < 0 || e.pin >= (e.chip === 'pic' ? PIC_PINS : IOAPIC_PINS))) return -EINVAL;
  }
  vm.x86.irqRouting = entries.slice();
  return 0;
}

/** An MSI: address and data in the form of @sdm 10.11; how many APICs took it. @kvm irq_comm.c kvm_set_msi_irq */
export function sendMsi(vm: VmState, address: number, data: number): number {
  const dest = (address >>> 12) & 0xff;
  const logical = (address & 4) !== 0 ? APIC_DEST_LOGICAL : 0;
  return deliverToApics(vm, dest, (data & (0x7ff | APIC_INT_LEVELTRIG)) | logical | APIC_INT_ASSERT);
}

/** A wire goes to `high` as far as `source` is concerned; false for a wire without ends. @kvm irqchip.c kvm_set_irq */
export function setIrq(vm: VmState, source: number, gsi: number, high: boolean): boolean {
  let found = false;
  for (const e of vm.x86.irqRouting) {
    if (e.gsi !== gsi) continue;
    found = true;
    if (e.type === 'msi') {
      if (high) sendMsi(vm, e.address, e.data);
    } else if (e.chip === 'pic') vm.x86.pic!.setIrq(vm, e.pin, source, high);
    else vm.x86.ioapic!.setIrq(vm, e.pin, source, high);
  }
  return found;
}

/** @kvm irqchip.c kvm_irq_map_chip_pin */
function wireOf(vm: VmState, chip: IrqChip, pin: number): number {
  for (const e of vm.x86.irqRouting) if (e.type === 'irqchip' && e.chip === chip && e.pin === pin) return e.gsi;
  return -1;
}

/** The guest is done with a pin's interrupt. @kvm eventfd.c kvm_notify_acked_irq */
export function notifyAckedIrq(vm: VmState, chip: IrqChip, pin: number): void {
  if (vm.x86.irqNotifiers.length === 0) return;
  const gsi = wireOf(vm, chip, pin);
  for (const n of vm.x86.irqNotifiers) if (n.gsi === gsi) n.acked();
}

/** The guest masks or unmasks a pin. @kvm irq_comm.c kvm_fire_mask_notifiers */
export function fireMaskNotifiers(vm: VmState, chip: IrqChip, pin: number, masked: boolean): void {
  if (vm.x86.irqNotifiers.length === 0) return;
  const gsi = wireOf(vm, chip, pin);
  for (const n of vm.x86.irqNotifiers) if (n.gsi === gsi) n.maskChanged(masked);
}

/** What a pin sees of all who pull its wire: high while one of them does. @kvm kvm_host.h __kvm_irq_line_state */
export function lineState(states: Int32Array, pin: number, source: number, high: boolean): boolean {
  const bit = 1 << source;
  states[pin] = high ? states[pin]! | bit : states[pin]! & ~bit;
  return states[pin] !== 0;
}
