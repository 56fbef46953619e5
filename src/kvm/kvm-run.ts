/**
 * The page that a vCPU shares with its userspace (@kvm uapi/linux/kvm.h struct kvm_run), at the offsets of the ABI. Beside it the page of
 * port I/O data.
 */
import { hiOf, loOf, numberOf } from '../arch/halves.ts';
import {
  RunData,
  RunDebug,
  RunEmulationFailure,
  RunFailEntry,
  RunHypercall,
  RunIo,
  RunMemoryFault,
  RunMmio,
  RunMsr,
  UNION,
} from './kvm-run-union.ts';

export const KVM_EXIT_UNKNOWN = 0;
export const KVM_EXIT_EXCEPTION = 1;
export const KVM_EXIT_IO = 2;
export const KVM_EXIT_HYPERCALL = 3;
export const KVM_EXIT_DEBUG = 4;
export const KVM_EXIT_HLT = 5;
export const KVM_EXIT_MMIO = 6;
export const KVM_EXIT_IRQ_WINDOW_OPEN = 7;
export const KVM_EXIT_SHUTDOWN = 8;
export const KVM_EXIT_FAIL_ENTRY = 9;
export const KVM_EXIT_INTR = 10;
export const KVM_EXIT_SET_TPR = 11;
export const KVM_EXIT_TPR_ACCESS = 12;
export const KVM_EXIT_NMI = 16;
export const KVM_EXIT_INTERNAL_ERROR = 17;
export const KVM_EXIT_SYSTEM_EVENT = 24;
export const KVM_EXIT_IOAPIC_EOI = 26;
export const KVM_EXIT_HYPERV = 27;
export const KVM_EXIT_X86_RDMSR = 29;
export const KVM_EXIT_X86_WRMSR = 30;
export const KVM_EXIT_DIRTY_RING_FULL = 31;
export const KVM_EXIT_X86_BUS_LOCK = 33;
export const KVM_EXIT_XEN = 34;
export const KVM_EXIT_NOTIFY = 37;
export const KVM_EXIT_MEMORY_FAULT = 39;

export const KVM_EXIT_IO_IN = 0;
export const KVM_EXIT_IO_OUT = 1;

export const KVM_INTERNAL_ERROR_EMULATION = 1;
export const KVM_INTERNAL_ERROR_SIMUL_EX = 2;
export const KVM_INTERNAL_ERROR_DELIVERY_EV = 3;
export const KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4;
export const KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 1;

export const KVM_MEMORY_EXIT_FLAG_PRIVATE = 1 << 3;

/** Bits of `flags`. */
export const KVM_RUN_X86_SMM = 1 << 0;
export const KVM_RUN_X86_BUS_LOCK = 1 << 1;
export const KVM_RUN_X86_GUEST_MODE = 1 << 2;

/** mmap offset of the port I/O page. */
const PIO_OFFSET = 4096;

export class KvmRun {
  /** The shared page: 4096 bytes. */
  readonly bytes = new Uint8Array(4096);
  /** The port I/O page. */
  readonly pioData = new Uint8Array(4096);
  /** Its words, for userspace that answers without allocating. */
  readonly pioView = new DataView(this.pioData.buffer);
  private readonly view = new DataView(this.bytes.buffer);
  readonly mmio = new RunMmio(this.view);
  readonly io = new RunIo(this.view);
  readonly memoryFault = new RunMemoryFault(this.view);
  readonly internal = new RunData(this.view);
  readonly emulationFailure = new RunEmulationFailure(this.view);
  readonly hypercall = new RunHypercall(this.view);
  readonly msr = new RunMsr(this.view);
  readonly failEntry = new RunFailEntry(this.view);
  readonly debug = new RunDebug(this.view);
  readonly systemEvent = new RunData(this.view);
  readonly pioOffset = PIO_OFFSET;

  get requestInterruptWindow(): boolean {
    return this.bytes[0] !== 0;
  }
  set requestInterruptWindow(wanted: boolean) {
    this.bytes[0] = wanted ? 1 : 0;
  }
  get immediateExit(): boolean {
    return this.bytes[1] !== 0;
  }
  set immediateExit(wanted: boolean) {
    this.bytes[1] = wanted ? 1 : 0;
  }
  get exitReason(): number {
    return this.view.getUint32(8, true);
  }
  set exitReason(reason: number) {
    this.view.setUint32(8, reason, true);
  }
  get readyForInterruptInjection(): boolean {
    return this.bytes[12] !== 0;
  }
  set readyForInterruptInjection(ready: boolean) {
    this.bytes[12] = ready ? 1 : 0;
  }
  get ifFlag(): boolean {
    return this.bytes[13] !== 0;
  }
  set ifFlag(flag: boolean) {
    this.bytes[13] = flag ? 1 : 0;
  }
  get flags(): number {
    return this.view.getUint16(14, true);
  }
  set flags(flags: number) {
    this.view.setUint16(14, flags, true);
  }
  get cr8(): number {
    return this.view.getUint32(16, true);
  }
  set cr8(cr8: number) {
    this.view.setUint32(16, cr8, true);
    this.view.setUint32(20, 0, true);
  }
  get apicBase(): number {
    return numberOf(this.view.getInt32(24, true), this.view.getInt32(28, true));
  }
  set apicBase(base: number) {
    this.view.setInt32(24, loOf(base), true);
    // Mostly there is nothing above; a division costs more than all else here.
    this.view.setInt32(28, base < 0x1_0000_0000 ? 0 : hiOf(base), true);
  }
  /** hw.hardware_exit_reason of KVM_EXIT_UNKNOWN. */
  setHardwareExitReason(lo: number, hi: number): void {
    this.view.setInt32(UNION, lo, true);
    this.view.setInt32(UNION + 4, hi, true);
  }
  get hardwareExitReason(): bigint {
    return this.view.getBigUint64(UNION, true);
  }
}
