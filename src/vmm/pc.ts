/**
 * What makes a board a PC: interrupt chips and PIT in KVM, clocks, ACPI and a PCI host as QEMU's `pc` has them, the state that firmware
 * leaves, and the devices that bare-metal suites use.
 */
import { KVM_PIT_FLAGS_HPET_LEGACY, KVM_PIT_SPEAKER_DUMMY } from '../kvm/x86/i8254.ts';
import { defaultRouting } from '../kvm/x86/irq-routing.ts';
import type { Board } from './board.ts';
import { AcpiPm, SCI, SmiCommand } from './devices/acpi-pm.ts';
import { FwCfg } from './devices/fw-cfg.ts';
import { Hpet } from './devices/hpet.ts';
import { RegisterFile } from './devices/mmio-device.ts';
import { PciHost } from './devices/pci-host.ts';
import type { OnPower } from './devices/power.ts';
import { Rtc } from './devices/rtc.ts';
import { COM1_IRQ } from './devices/serial.ts';
import { SmiControl } from './devices/smi-control.ts';
import { EchoPort, FlushPage, IrqLines } from './devices/test-device.ts';
import { acpiTables } from './loaders/acpi-tables.ts';
import { type BootImage, HIGH_RAM_START, ramRanges } from './loaders/boot-image.ts';
import { SmmMemory } from './smram.ts';
import { enter } from './start-state.ts';

/** Vectors of IRQ 0 and IRQ 8 as every PC's firmware programs them. */
const MASTER_BASE = 0x08;
const SLAVE_BASE = 0x70;

/** Nanoseconds that a guest on real hardware is away for an exit, about: what it measures is of that order. */
const EXIT_TIME = 1_000;

const TEST_MEMORY = 0xff00_0000;
const TEST_MEMORY_SIZE = 0x1_0000;

const RTC_IRQ = 8;
/** The wire of the timer ends at pin 2 of the I/O APIC. */
const TIMER_PIN = 2;

/** 2025-01-01 00:00:00 UTC. */
export const DEFAULT_START = 1_735_689_600;

export interface PcOptions {
  readonly memoryBytes: number;
  readonly vcpus: number;
  /** The date when the machine starts, in seconds since 1970. */
  readonly startSeconds: number;
  readonly onPower: OnPower;
}

/** CMOS memory as firmware fills it in: how much RAM there is, and how many CPUs. */
function cmosMemory({ memoryBytes, vcpus }: PcOptions): Map<number, number> {
  const [low, high] = ramRanges(memoryBytes);
  const memory = new Map<number, number>();
  const put = (at: number, value: number, bytes: number): void => {
    for (let i = 0; i < bytes; i++) memory.set(at + i, Math.floor(value / 256 ** i) % 256);
  };
  const extended = Math.min(Math.max(low!.size / 1024 - 1024, 0), 0xfc00);
  put(0x15, 640, 2);
  put(0x17, extended, 2);
  put(0x30, extended, 2);
  put(0x34, Math.max(low!.size / 0x1_0000 - 0x100, 0), 2);
  put(0x5b, high === undefined ? 0 : high.size / 0x1_0000, 3);
  put(0x5f, vcpus - 1, 1);
  return memory;
}

export class Pc {
  private readonly board: Board;
  private readonly pm: AcpiPm;
  private readonly tables: ReturnType<typeof acpiTables>;
  private readonly smm: SmmMemory;
  private alarm = false;

  /** Called before the vCPUs are created: KVM wants the interrupt chips first. */
  constructor(board: Board, options: PcOptions) {
    this.board = board;
    this.tables = acpiTables(options.vcpus);
    const { vm, ports, mmio } = board;
    vm.setExitTime(EXIT_TIME);
    vm.setRealTime(options.startSeconds);
    this.addInterruptChips();
    this.pm = new AcpiPm(vm, options.onPower, (high) => vm.irqLine(SCI, high));
    let hpetHasRtcWire = false;
    const rtc = new Rtc({
      clock: vm,
      startSeconds: options.startSeconds,
      memory: cmosMemory(options),
      setIrq: (high) => {
        if (!hpetHasRtcWire) vm.irqLine(RTC_IRQ, high);
      },
    });
    rtc.onAlarm = () => {
      if (this.pm.rtcAlarm()) this.alarm = true;
    };
    board.serial.setIrq = (high) => vm.irqLine(COM1_IRQ, high);
    ports.add(rtc);
    ports.add(this.pm);
    this.smm = new SmmMemory(board);
    const smi = new SmiControl(() => this.smm.raise());
    if (this.smm.offered) ports.add(smi);
    ports.add(new SmiCommand(this.pm, () => smi.apmControl()));
    ports.add(new PciHost());
    mmio.add(
      new Hpet({
        clock: vm,
        setIrq: (gsi, high) => vm.irqLine(gsi, high),
        onLegacy: (on) => {
          hpetHasRtcWire = on;
          const pit = vm.getPit2();
          const others = pit.flags & ~KVM_PIT_FLAGS_HPET_LEGACY;
          vm.setPit2({ ...pit, flags: on ? others | KVM_PIT_FLAGS_HPET_LEGACY : others });
        },
      }),
    );
    ports.add(new FwCfg(options));
    ports.add(new EchoPort(0xe0));
    ports.add(new EchoPort(0xe8));
    ports.add(new FlushPage((gpa) => board.refaultPage(gpa)));
    ports.add(new IrqLines((line, high) => vm.irqLine(line, high)));
    mmio.add(new RegisterFile(TEST_MEMORY, TEST_MEMORY_SIZE));
  }

  private addInterruptChips(): void {
    const { vm } = this.board;
    vm.createIrqchip();
    vm.setGsiRouting(
      defaultRouting()
        .filter((e) => e.type !== 'irqchip' || e.chip === 'pic' || e.pin !== TIMER_PIN)
        .map((e) => (e.type === 'irqchip' && e.chip === 'ioapic' && e.pin === 0 ? { ...e, pin: TIMER_PIN } : e)),
    );
    vm.setPic(0, { ...vm.getPic(0), irqBase: MASTER_BASE });
    vm.setPic(1, { ...vm.getPic(1), irqBase: SLAVE_BASE });
    vm.createPit2(KVM_PIT_SPEAKER_DUMMY);
  }

  /** Puts the firmware's tables into memory, unless the image has taken the place; and its handler of SMIs. */
  load(image: BootImage): void {
    this.smm.load(image);
    const { segment } = this.tables;
    const end = segment.gpa + segment.size;
    if (image.segments.some((s) => s.gpa < end && s.gpa + s.size > segment.gpa)) return;
    this.board.writeMemory(segment.gpa, segment.bytes);
  }

  /** S3: time goes on until the alarm; then the first CPU goes on in real mode where the guest left word. False without an alarm. */
  suspend(): boolean {
    this.alarm = false;
    if (!this.board.vm.sleep(() => this.alarm)) return false;
    this.pm.woken();
    this.board.resetVcpus();
    const word = this.board.readMemory(this.tables.wakingVectorAt, 4);
    const vector = new DataView(word.buffer).getUint32(0, true) % HIGH_RAM_START;
    enter(this.board.vcpu, { mode: 'real', segment: vector >>> 4, data: 0, ip: vector & 0xf, sp: 0 });
    return true;
  }
}
