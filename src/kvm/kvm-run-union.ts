/**
 * The members of kvm_run's union, each a view at the offsets of the ABI: what one exit leaves there is what the next one finds
 * (@kvm uapi/linux/kvm.h struct kvm_run).
 */
import { hiOf, loOf, numberOf } from '../arch/halves.ts';

/** Where the union starts. */
export const UNION = 32;

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
  private readonly prefixes: readonly Uint8Array[];

  constructor(view: DataView) {
    super(view);
    this.data = new Uint8Array(view.buffer, UNION + 8, 8);
    this.prefixes = Array.from({ length: 9 }, (_, len) => this.data.subarray(0, len));
  }

  /** The first `len` bytes of `data`, at most eight. */
  bytes(len: number): Uint8Array {
    return this.prefixes[Math.min(len, 8)]!;
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
  /** All of it. HOT */
  describe(direction: number, size: number, port: number, count: number, dataOffset: number): void {
    this.setU32(UNION, direction | (size << 8) | (port << 16));
    this.setU32(UNION + 4, count);
    this.setU32(UNION + 8, dataOffset);
    this.setU32(UNION + 12, 0);
  }

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
