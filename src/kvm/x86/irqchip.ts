/** The in-kernel interrupt chips of a VM: two 8259s, an I/O APIC, a local APIC a vCPU (@kvm x86.c kvm_arch_vm_ioctl). */
import { EEXIST, EINVAL } from '../../host/errno.ts';
import { ioBusRegisterDev, KVM_MMIO_BUS, KVM_PIO_BUS } from '../io-bus/io-bus.ts';
import { LOCK_SLOTS } from '../locks.ts';
import type { VmState } from '../vm-state.ts';
import { IOAPIC_BASE, IOAPIC_SIZE, IoApic } from './ioapic.ts';
import { defaultRouting, setIrq, USERSPACE_SOURCE } from './irq-routing.ts';
import { Pic } from './pic.ts';

/** KVM_CREATE_IRQCHIP: 0, -EEXIST when there is one, -EINVAL once there are vCPUs. */
export function createIrqchip(vm: VmState): number {
  if (vm.x86.irqchipKernel || vm.x86.irqchipSplit) return -EEXIST;
  if (vm.vcpus.length > 0) return -EINVAL;
  const pic = new Pic();
  const ioapic = new IoApic(vm);
  vm.locks.acquire(LOCK_SLOTS);
  for (const [port, size] of [
    [0x20, 2],
    [0xa0, 2],
    [0x4d0, 2],
  ] as const) {
    ioBusRegisterDev(vm, KVM_PIO_BUS, port, size, pic);
  }
  ioBusRegisterDev(vm, KVM_MMIO_BUS, IOAPIC_BASE, IOAPIC_SIZE, ioapic);
  vm.locks.release(LOCK_SLOTS);
  vm.x86.pic = pic;
  vm.x86.ioapic = ioapic;
  vm.x86.irqRouting = defaultRouting();
  vm.x86.irqchipKernel = true;
  return 0;
}

/** KVM_IRQ_LINE: userspace pulls a wire or lets it go; false for one that is not there. @kvm x86.c kvm_vm_ioctl_irq_line */
export function irqLine(vm: VmState, gsi: number, high: boolean): boolean {
  return vm.x86.ioapic !== null && setIrq(vm, USERSPACE_SOURCE, gsi, high);
}
