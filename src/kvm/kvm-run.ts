/**
 * The page that a vCPU shares with its userspace (@kvm uapi/linux/kvm.h struct kvm_run), at the offsets of the ABI, so that what one exit
 * leaves behind in the union is what the next one finds. Beside it the page of port I/O data.
 */
import { hiOf, loOf, numberOf } from '../arch/halves.ts';

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

/** Where the union starts. */
const UNION = 32;
/** mmap offset of the port I/O page. */
const PIO_OFFSET = 4096;

/** A part of the page: fields by ABI offset, 64-bit ones as numbers (below 2^53) or by halves. */
class Fields {
  protected readonly view: DataView;

  constructor(view: DataView) {
    this.view = view;
  }

  protected u32(offset: number): number {
    return this.view.getUint32(offset, true);
  }

  protected setU32(offset: number, value: number): void {
    this.view.setUint32(offset, value, true);
  }

  protected u64(offset: number): number {
    return numberOf(this.view.getInt32(offset, true), this.view.getInt32(offset + 4, true));
  }

  protected setU64(offset: number, value: number): void {
    this.view.setInt32(offset, loOf(value), true);
    this.view.setInt32(offset + 4, hiOf(value), true);
  }
}

/** KVM_EXIT_MMIO */
export class RunMmio extends Fields {
  /** Eight bytes: for a read, userspace fills the first `len`. */
  readonly data: Uint8Array;

  constructor(view: DataView) {
    super(view);
    this.data = new Uint8Array(view.buffer, UNION + 8, 8);
  }

  get physAddr(): number {
    return this.u64(UNION);
  }
  set physAddr(gpa: number) {
    this.setU64(UNION, gpa);
  }
  get len(): number {
    return this.u32(UNION + 16);
  }
  set len(bytes: number) {
    this.setU32(UNION + 16, bytes);
  }
  get isWrite(): boolean {
    return this.view.getUint8(UNION + 20) !== 0;
  }
  set isWrite(write: boolean) {
    this.view.setUint8(UNION + 20, write ? 1 : 0);
  }
}

/** KVM_EXIT_IO; the data are in the port I/O page. */
export class RunIo extends Fields {
  /** KVM_EXIT_IO_IN or KVM_EXIT_IO_OUT. */
  get direction(): number {
    return this.view.getUint8(UNION);
  }
  set direction(direction: number) {
    this.view.setUint8(UNION, direction);
  }
  /** Bytes a datum: 1, 2 or 4. */
  get size(): number {
    return this.view.getUint8(UNION + 1);
  }
  set size(bytes: number) {
    this.view.setUint8(UNION + 1, bytes);
  }
  get port(): number {
    return this.view.getUint16(UNION + 2, true);
  }
  set port(port: number) {
    this.view.setUint16(UNION + 2, port, true);
  }
  get count(): number {
    return this.u32(UNION + 4);
  }
  set count(count: number) {
    this.setU32(UNION + 4, count);
  }
  /** From the start of kvm_run. */
  get dataOffset(): number {
    return this.u64(UNION + 8);
  }
  set dataOffset(offset: number) {
    this.setU64(UNION + 8, offset);
  }
}

/** KVM_EXIT_MEMORY_FAULT */
export class RunMemoryFault extends Fields {
  get flags(): number {
    return this.u64(UNION);
  }
  set flags(flags: number) {
    this.setU64(UNION, flags);
  }
  get gpa(): number {
    return this.u64(UNION + 8);
  }
  set gpa(gpa: number) {
    this.setU64(UNION + 8, gpa);
  }
  get size(): number {
    return this.u64(UNION + 16);
  }
  set size(bytes: number) {
    this.setU64(UNION + 16, bytes);
  }
}

/** KVM_EXIT_INTERNAL_ERROR and KVM_EXIT_SYSTEM_EVENT: a kind, a count and up to sixteen 64-bit words. */
export class RunData extends Fields {
  /** suberror, or the type of a system event. */
  get suberror(): number {
    return this.u32(UNION);
  }
  set suberror(suberror: number) {
    this.setU32(UNION, suberror);
  }
  get ndata(): number {
    return this.u32(UNION + 4);
  }
  set ndata(count: number) {
    this.setU32(UNION + 4, count);
  }
  /** Sets data[index] from halves. */
  setData(index: number, lo: number, hi: number): void {
    this.view.setInt32(UNION + 8 + 8 * index, lo, true);
    this.view.setInt32(UNION + 12 + 8 * index, hi, true);
  }
  /** data[index] */
  data(index: number): bigint {
    return this.view.getBigUint64(UNION + 8 + 8 * index, true);
  }
}

/** KVM_EXIT_INTERNAL_ERROR with suberror KVM_INTERNAL_ERROR_EMULATION; overlaps the words of `internal`. */
export class RunEmulationFailure extends Fields {
  readonly insnBytes: Uint8Array;

  constructor(view: DataView) {
    super(view);
    this.insnBytes = new Uint8Array(view.buffer, UNION + 17, 15);
  }

  get flags(): number {
    return this.u64(UNION + 8);
  }
  set flags(flags: number) {
    this.setU64(UNION + 8, flags);
  }
  get insnSize(): number {
    return this.view.getUint8(UNION + 16);
  }
  set insnSize(bytes: number) {
    this.view.setUint8(UNION + 16, bytes);
  }
}

/** KVM_EXIT_HYPERCALL */
export class RunHypercall extends Fields {
  get nr(): number {
    return this.u64(UNION);
  }
  set nr(nr: number) {
    this.setU64(UNION, nr);
  }
  setArg(index: number, lo: number, hi: number): void {
    this.view.setInt32(UNION + 8 + 8 * index, lo, true);
    this.view.setInt32(UNION + 12 + 8 * index, hi, true);
  }
  arg(index: number): bigint {
    return this.view.getBigUint64(UNION + 8 + 8 * index, true);
  }
  /** What userspace answers, by halves. */
  get retLo(): number {
    return this.view.getInt32(UNION + 56, true);
  }
  get retHi(): number {
    return this.view.getInt32(UNION + 60, true);
  }
  setRet(lo: number, hi: number): void {
    this.view.setInt32(UNION + 56, lo, true);
    this.view.setInt32(UNION + 60, hi, true);
  }
  get flags(): number {
    return this.u64(UNION + 64);
  }
  set flags(flags: number) {
    this.setU64(UNION + 64, flags);
  }
}

/** KVM_EXIT_X86_RDMSR and KVM_EXIT_X86_WRMSR. */
export class RunMsr extends Fields {
  /** Starts an exit: no error, KVM_MSR_EXIT_REASON_*, the MSR. */
  begin(reason: number, index: number): void {
    this.setU64(UNION, 0);
    this.setU32(UNION + 8, reason);
    this.setU32(UNION + 12, index);
  }
  /** Userspace sets it for #GP. */
  get error(): boolean {
    return this.view.getUint8(UNION) !== 0;
  }
  set error(failed: boolean) {
    this.view.setUint8(UNION, failed ? 1 : 0);
  }
  get why(): number {
    return this.u32(UNION + 8);
  }
  get index(): number {
    return this.u32(UNION + 12);
  }
  setData(lo: number, hi: number): void {
    this.view.setInt32(UNION + 16, lo, true);
    this.view.setInt32(UNION + 20, hi, true);
  }
  get dataLo(): number {
    return this.view.getInt32(UNION + 16, true);
  }
  get dataHi(): number {
    return this.view.getInt32(UNION + 20, true);
  }
  get data(): bigint {
    return this.view.getBigUint64(UNION + 16, true);
  }
}

/** KVM_EXIT_FAIL_ENTRY */
export class RunFailEntry extends Fields {
  setHardwareEntryFailureReason(lo: number, hi: number): void {
    this.view.setInt32(UNION, lo, true);
    this.view.setInt32(UNION + 4, hi, true);
  }
  get hardwareEntryFailureReason(): bigint {
    return this.view.getBigUint64(UNION, true);
  }
  get cpu(): number {
    return this.u32(UNION + 8);
  }
  set cpu(cpu: number) {
    this.setU32(UNION + 8, cpu);
  }
}

/** KVM_EXIT_DEBUG (struct kvm_debug_exit_arch). */
export class RunDebug extends Fields {
  get exception(): number {
    return this.u32(UNION);
  }
  set exception(vector: number) {
    this.setU32(UNION, vector);
  }
  setPc(lo: number, hi: number): void {
    this.view.setInt32(UNION + 8, lo, true);
    this.view.setInt32(UNION + 12, hi, true);
  }
  get pc(): bigint {
    return this.view.getBigUint64(UNION + 8, true);
  }
  setDr6(lo: number): void {
    this.setU64(UNION + 16, lo >>> 0);
  }
  get dr6(): bigint {
    return this.view.getBigUint64(UNION + 16, true);
  }
  setDr7(lo: number): void {
    this.setU64(UNION + 24, lo >>> 0);
  }
  get dr7(): bigint {
    return this.view.getBigUint64(UNION + 24, true);
  }
}

export class KvmRun {
  /** The shared page: 4096 bytes. */
  readonly bytes = new Uint8Array(4096);
  /** The port I/O page. */
  readonly pioData = new Uint8Array(4096);
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
    this.view.setInt32(28, hiOf(base), true);
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
