/** What makes a board a PC: interrupt chips, the state that firmware leaves, and the devices that bare-metal suites for QEMU use. */
import type { Board } from './board.ts';
import { FwCfg } from './devices/fw-cfg.ts';
import { RegisterFile } from './devices/mmio-device.ts';
import { EchoPort, FlushPage, IrqLines } from './devices/test-device.ts';

/** Vectors of IRQ 0 and IRQ 8 as every PC's firmware programs them. */
const MASTER_BASE = 0x08;
const SLAVE_BASE = 0x70;

/** Nanoseconds that a guest on real hardware is away for an exit, about: what it measures is of that order. */
const EXIT_TIME = 1_000;

const TEST_MEMORY = 0xff00_0000;
const TEST_MEMORY_SIZE = 0x1_0000;

/** Called before the vCPUs are created: KVM wants the interrupt chips first. */
export function addPcDevices(board: Board, machine: { readonly memoryBytes: number; readonly vcpus: number }): void {
  const { vm, ports } = board;
  vm.setExitTime(EXIT_TIME);
  vm.createIrqchip();
  vm.setPic(0, { ...vm.getPic(0), irqBase: MASTER_BASE });
  vm.setPic(1, { ...vm.getPic(1), irqBase: SLAVE_BASE });
  ports.add(new FwCfg(machine));
  ports.add(new EchoPort(0xe0));
  ports.add(new EchoPort(0xe8));
  ports.add(new FlushPage((gpa) => board.refaultPage(gpa)));
  ports.add(new IrqLines((line, high) => vm.irqLine(line, high)));
  board.mmio.add(new RegisterFile(TEST_MEMORY, TEST_MEMORY_SIZE));
}
