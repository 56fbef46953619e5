/**
 * The tour: the demo guest on a software-protected VM, with the devices and the policy it asks for, and an account of every fault it
 * takes. guests/machine.h is the other side of the addresses and ports here.
 */
import { Kvm, type TraceEvent } from '../kvm/api/index.ts';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from '../kvm/memslots/memslot.ts';
import { Board, type BoardSlot } from './board.ts';
import type { MmioDevice } from './devices/mmio-device.ts';
import { RegisterFile } from './devices/mmio-device.ts';
import type { PortDevice } from './devices/port-device.ts';
import type { EndState } from './end-state.ts';
import { FaultAccount, type FaultCounts, noFaults } from './fault-account.ts';
import { guestImage } from './guest-image.ts';
import { loadImage } from './loaders/load.ts';
import type { MemoryFaultMode } from './memory-fault-policy.ts';
import { RunLoop } from './run-loop.ts';

const MIB = 1024 * 1024;
const MEMORY = 128 * MIB;

const PORT_CLASS = 0xde0;
const PORT_COMMAND = 0xde4;
const COMMAND_LOG_ON = 1;
const COMMAND_LOG_OFF = 2;
const COMMAND_DIRTY_PAGES = 3;
const COMMAND_CHANGE_SLOTS = 4;

const HUGE_BASE = 0x1000_0000;
const READ_ONLY_BASE = 0x1100_0000;
const PRIVATE_BASE = 0x1200_0000;
const PLAIN_BASE = 0x1300_0000;
const SPARE_BASE = 0x1400_0000;
const DEVICE_BASE = 0xd000_0000;

/** The classes that the guest announces, by number; 0 is everything in between. */
const CLASSES: readonly { readonly id: string; readonly title: string }[] = [
  { id: 'other', title: 'code, stack and page tables' },
  { id: 'demand-paging', title: 'demand paging: 64 MiB, page by page' },
  { id: 'huge-pages', title: 'huge pages: 4 MiB, two mappings' },
  { id: 'dirty-log', title: 'dirty logging: split and write-protect' },
  { id: 'mmio-new', title: 'MMIO: first access to a device page' },
  { id: 'mmio-again', title: 'MMIO: the SPTE is known' },
  { id: 'mmio-stale', title: 'MMIO: stale after a change of slots' },
  { id: 'read-only', title: 'read-only slot: reads, and a write' },
  { id: 'conversion', title: 'shared to private and back' },
  { id: 'memory-fault', title: 'memory fault, converted, resumed' },
];

export interface DemoOptions {
  /** Hardware profile, revision of the fault path: as for `Kvm`. */
  readonly hardware?: string;
  readonly revision?: string;
  /** `convert` if absent; with `stop` the last part ends the run. */
  readonly onMemoryFault?: MemoryFaultMode;
  /** Gets the guest's output as it comes. */
  readonly onOutput?: (text: string) => void;
  /** Gets every trace event besides. */
  readonly onTrace?: (event: TraceEvent) => void;
  /** Is given the board before the guest starts, to look inside. */
  readonly onBoard?: (board: Board) => void;
  /** Hears of each class that the guest announces, by id. */
  readonly onClass?: (id: string) => void;
  /** False leaves trace events off, so that the run costs what it costs; the counts are then of exits only. */
  readonly account?: boolean;
  /** Milliseconds; 60 s if absent. */
  readonly timeoutMs?: number;
}

export interface DemoClass {
  readonly id: string;
  readonly title: string;
  readonly counts: FaultCounts;
  /** Instructions that the guest retired in this class. */
  readonly instructions: number;
}

export interface DemoResult {
  readonly end: EndState;
  /** True when the guest got to its end and found everything as it should be. */
  readonly ok: boolean;
  /** All that the guest printed. */
  readonly output: string;
  readonly classes: readonly DemoClass[];
  readonly total: FaultCounts;
  readonly instructions: number;
  /** Attribute changes made because of a memory fault. */
  readonly conversionsByFault: number;
  readonly vmStats: Readonly<Record<string, number>>;
  readonly vcpuStats: Readonly<Record<string, number>>;
}

/** The committed image of the guest. */
export function demoImage(): Uint8Array {
  return guestImage('demo.elf');
}

/** Runs the tour to its end. */
export async function runDemo(options: DemoOptions = {}): Promise<DemoResult> {
  const text: string[] = [];
  const kvm = new Kvm({
    hostMemory: 512 * MIB,
    ...(options.hardware === undefined ? {} : { hardware: options.hardware }),
    ...(options.revision === undefined ? {} : { revision: options.revision }),
  });
  const onSerial = (byte: number): void => {
    const c = String.fromCharCode(byte);
    text.push(c);
    options.onOutput?.(c);
  };
  const board = new Board({ kvm, vmType: 'sw-protected', memoryBytes: MEMORY, onSerial });
  board.load(loadImage(demoImage(), { file: 'demo.elf', memoryBytes: MEMORY, append: '', modules: [] }));
  const account = new FaultAccount();
  const tour = new Tour(board, account, options.onClass ?? (() => {}));
  options.onBoard?.(board);
  if (options.account !== false) {
    board.vm.onTrace((event) => {
      account.event(event);
      options.onTrace?.(event);
    });
  }
  const loop = new RunLoop(board, {
    onMemoryFault: options.onMemoryFault ?? 'convert',
    timeoutMs: options.timeoutMs ?? 60_000,
    onExit: (exit) => account.exit(exit),
  });
  const end = await loop.run();
  tour.finish();
  board.vm.onTrace(null);
  const result: DemoResult = {
    end,
    ok: end.kind === 'debug-exit' && end.status === 1,
    output: text.join(''),
    classes: tour.classes(),
    total: tour.total(),
    instructions: loop.instructions,
    conversionsByFault: loop.conversionsByFault,
    vmStats: board.vm.stats(),
    vcpuStats: board.vcpu.stats(),
  };
  board.vm.close();
  return result;
}

/** The demo's own part of the machine: its slots, its device, and the ports by which the guest asks for changes. */
class Tour {
  private readonly board: Board;
  private readonly account: FaultAccount;
  private readonly huge: BoardSlot;
  private readonly perClass = CLASSES.map(() => ({ counts: noFaults(), instructions: 0 }));
  private current = 0;
  private since: number;
  private answer = 0;
  private readonly onClass: (id: string) => void;

  constructor(board: Board, account: FaultAccount, onClass: (id: string) => void) {
    this.onClass = onClass;
    this.board = board;
    this.account = account;
    account.current = this.perClass[0]!.counts;
    this.since = board.kvm.processor.insns;
    this.huge = board.addSlot({ gpa: HUGE_BASE, size: 4 * MIB, kind: 'thp' });
    const rom = board.addSlot({ gpa: READ_ONLY_BASE, size: 0x1_0000, kind: 'anon', flags: KVM_MEM_READONLY });
    board.writeMemory(rom.gpa, new TextEncoder().encode('rom'));
    board.addSlot({ gpa: PRIVATE_BASE, size: 4 * MIB, kind: 'anon', guestMemfd: true });
    board.addSlot({ gpa: PLAIN_BASE, size: 0x1_0000, kind: 'anon' });
    board.mmio.add(new RegisterFile(DEVICE_BASE, 0x2000));
    board.mmio.add(droppedWrites(rom));
    for (const port of this.ports()) board.ports.add(port);
  }

  private ports(): PortDevice[] {
    return [
      { port: PORT_CLASS, count: 4, read: () => this.current, write: (_port, _size, value) => this.enterClass(value) },
      {
        port: PORT_COMMAND,
        count: 4,
        read: () => this.answer,
        write: (_port, _size, value) => {
          this.answer = this.command(value);
        },
      },
    ];
  }

  private enterClass(value: number): void {
    const now = this.board.kvm.processor.insns;
    this.perClass[this.current]!.instructions += now - this.since;
    this.since = now;
    this.current = value < CLASSES.length ? value : 0;
    this.account.current = this.perClass[this.current]!.counts;
    this.onClass(CLASSES[this.current]!.id);
  }

  private command(value: number): number {
    switch (value) {
      case COMMAND_LOG_ON:
        this.board.setSlot(this.huge, this.huge.flags | KVM_MEM_LOG_DIRTY_PAGES);
        return 0;
      case COMMAND_LOG_OFF:
        this.board.setSlot(this.huge, this.huge.flags);
        return 0;
      case COMMAND_DIRTY_PAGES:
        return bitsSet(this.board.vm.getDirtyLog(this.huge.slot));
      case COMMAND_CHANGE_SLOTS: {
        const spare = this.board.addSlot({ gpa: SPARE_BASE, size: 0x1000, kind: 'anon' });
        this.board.setSlot(spare, 0, 0);
        return 0;
      }
      default:
        return 0xffff_ffff;
    }
  }

  finish(): void {
    this.enterClass(0);
  }

  classes(): DemoClass[] {
    return CLASSES.map((c, i) => ({ ...c, ...this.perClass[i]! }));
  }

  total(): FaultCounts {
    const total = noFaults();
    for (const { counts } of this.perClass) {
      for (const key of Object.keys(total) as (keyof FaultCounts)[]) total[key] += counts[key];
    }
    return total;
  }
}

/** A write to a read-only slot leaves as MMIO; this VMM drops it, as for a ROM. */
function droppedWrites(rom: BoardSlot): MmioDevice {
  return { gpa: rom.gpa, size: rom.size, read: (_gpa, data) => data.fill(0xff), write: () => {} };
}

function bitsSet(bitmap: Uint8Array): number {
  let count = 0;
  for (let byte of bitmap) for (; byte !== 0; byte &= byte - 1) count++;
  return count;
}
