/** What the instruction emulator asks of KVM, in the shape of the kernel's `x86_emulate_ops` (@kvm kvm_emulate.h). */
import type { EmulateCtxt } from './ctxt.ts';

/** What an emulation step returns (@kvm kvm_emulate.h X86EMUL_*). */
export const X86EMUL_CONTINUE = 0;
export const X86EMUL_UNHANDLEABLE = 1;
export const X86EMUL_PROPAGATE_FAULT = 2;
export const X86EMUL_RETRY_INSTR = 3;
export const X86EMUL_CMPXCHG_FAILED = 4;
export const X86EMUL_IO_NEEDED = 5;
export const X86EMUL_INTERCEPTED = 6;

/** An exception that emulation met, filled in place and never thrown (@kvm kvm_emulate.h struct x86_exception). */
export class X86Exception {
  vector = 0;
  errorCodeValid = false;
  errorCode = 0;
  nestedPageFault = false;
  /** Linear address of a #PF (halves), or the gpa of a nested fault. */
  addressLo = 0;
  addressHi = 0;
  asyncPageFault = false;
  /** What L1 is told of a fault of its EPT (low half). */
  exitQualification = 0;
  /** The processor made the walk, and its own report says more. */
  fromHardware = false;
}

/** A segment as descriptors hold it; `base` in halves, `limit` in bytes with granularity applied. */
export interface SegmentDesc {
  selector: number;
  baseLo: number;
  baseHi: number;
  limit: number;
  type: number;
  s: number;
  dpl: number;
  p: number;
  avl: number;
  l: number;
  db: number;
  g: number;
}

/**
 * Data goes through `buf` at `off`, `bytes` of it, little-endian as in memory. Addresses are linear addresses in halves.
 * Functions that can fault fill `fault` and answer X86EMUL_PROPAGATE_FAULT.
 */
export interface X86EmulateOps {
  /** General register `nr` (0..15) as it was before the instruction: halves through `ctxt.regs` (Int32Array, lo at 2*nr). */
  readGpr(ctxt: EmulateCtxt, nr: number): void;
  /** Stores `ctxt.regs` entry `nr` back. */
  writeGpr(ctxt: EmulateCtxt, nr: number): void;
  /** Guest memory with no MMIO; `system` for implicit supervisor accesses (descriptor tables, TSS). */
  readStd(
    ctxt: EmulateCtxt,
    lo: number,
    hi: number,
    buf: Uint8Array,
    off: number,
    bytes: number,
    fault: X86Exception,
    system: boolean,
  ): number;
  writeStd(
    ctxt: EmulateCtxt,
    lo: number,
    hi: number,
    buf: Uint8Array,
    off: number,
    bytes: number,
    fault: X86Exception,
    system: boolean,
  ): number;
  /** Instruction bytes. */
  fetch(
    ctxt: EmulateCtxt,
    lo: number,
    hi: number,
    buf: Uint8Array,
    off: number,
    bytes: number,
    fault: X86Exception,
  ): number;
  /** Guest memory or MMIO. */
  readEmulated(
    ctxt: EmulateCtxt,
    lo: number,
    hi: number,
    buf: Uint8Array,
    off: number,
    bytes: number,
    fault: X86Exception,
  ): number;
  writeEmulated(
    ctxt: EmulateCtxt,
    lo: number,
    hi: number,
    buf: Uint8Array,
    off: number,
    bytes: number,
    fault: X86Exception,
  ): number;
  /** Atomic when it is plain memory: compares with `oldBuf`, writes `newBuf`, both from offset 0. */
  cmpxchgEmulated(
    ctxt: EmulateCtxt,
    lo: number,
    hi: number,
    oldBuf: Uint8Array,
    newBuf: Uint8Array,
    bytes: number,
    fault: X86Exception,
  ): number;
  invlpg(ctxt: EmulateCtxt, lo: number, hi: number): void;
  /** 1 when the value (count * size bytes in `buf`) is there or was taken, 0 when userspace must provide it. */
  pioInEmulated(ctxt: EmulateCtxt, size: number, port: number, buf: Uint8Array, off: number, count: number): number;
  pioOutEmulated(ctxt: EmulateCtxt, size: number, port: number, buf: Uint8Array, off: number, count: number): number;
  /** True when the segment is usable; `seg` is filled. */
  getSegment(ctxt: EmulateCtxt, sreg: number, seg: SegmentDesc): boolean;
  setSegment(ctxt: EmulateCtxt, sreg: number, seg: SegmentDesc): void;
  /** Halves of the cached base into `ctxt.segBase` (Int32Array of 2). */
  getCachedSegmentBase(ctxt: EmulateCtxt, sreg: number): void;
  getGdt(ctxt: EmulateCtxt): DescriptorTable;
  getIdt(ctxt: EmulateCtxt): DescriptorTable;
  setGdt(ctxt: EmulateCtxt, dt: DescriptorTable): void;
  setIdt(ctxt: EmulateCtxt, dt: DescriptorTable): void;
  /** Control register `cr` (0, 2, 3, 4, 8) as bigint-free halves in `ctxt.io64`. */
  getCr(ctxt: EmulateCtxt, cr: number): void;
  /** 0 on success, 1 for #GP; the value comes from (lo, hi). */
  setCr(ctxt: EmulateCtxt, cr: number, lo: number, hi: number): number;
  cpl(ctxt: EmulateCtxt): number;
  getDr(ctxt: EmulateCtxt, dr: number): void;
  setDr(ctxt: EmulateCtxt, dr: number, lo: number, hi: number): number;
  /** X86EMUL_*; the value through `ctxt.io64`. */
  getMsr(ctxt: EmulateCtxt, msr: number): number;
  setMsr(ctxt: EmulateCtxt, msr: number, lo: number, hi: number): number;
  /** As getMsr() and setMsr(), but subject to the MSR filter and exits to userspace (RDMSR, WRMSR); without them the plain ones serve. */
  getMsrWithFilter?(ctxt: EmulateCtxt, msr: number): number;
  setMsrWithFilter?(ctxt: EmulateCtxt, msr: number, lo: number, hi: number): number;
  /** Nonzero when RDPMC of `pmc` is a #GP before anything else is looked at. */
  checkRdpmcEarly?(ctxt: EmulateCtxt, pmc: number): number;
  readPmc(ctxt: EmulateCtxt, pmc: number): number;
  halt(ctxt: EmulateCtxt): void;
  wbinvd(ctxt: EmulateCtxt): void;
  fixHypercall(ctxt: EmulateCtxt): number;
  /** Vendor intercept check of an instruction in a nested guest; X86EMUL_*. */
  intercept(ctxt: EmulateCtxt, intercept: number, stage: number): number;
  /** Fills [eax, ebx, ecx, edx] for the leaf in them; false when there is no exact entry. */
  getCpuid(ctxt: EmulateCtxt, regs: Uint32Array, exactOnly: boolean): boolean;
  guestHasMovbe(ctxt: EmulateCtxt): boolean;
  guestHasFxsr(ctxt: EmulateCtxt): boolean;
  guestHasRdpid(ctxt: EmulateCtxt): boolean;
  /** High half `hi` is canonical for what `flags` (X86EMUL_F_*) says the address is for. */
  isCanonicalAddr(ctxt: EmulateCtxt, hi: number, flags: number): boolean;
  guestCpuidIsIntelCompatible(ctxt: EmulateCtxt): boolean;
  setNmiMask(ctxt: EmulateCtxt, masked: boolean): void;
  isSmm(ctxt: EmulateCtxt): boolean;
  isGuestMode(ctxt: EmulateCtxt): boolean;
  leaveSmm(ctxt: EmulateCtxt): number;
  tripleFault(ctxt: EmulateCtxt): void;
  setXcr(ctxt: EmulateCtxt, index: number, lo: number, hi: number): number;
  /** Guest FPU: 16 bytes of XMM `reg` into or out of `buf`. */
  readXmm(ctxt: EmulateCtxt, reg: number, buf: Uint8Array): void;
  writeXmm(ctxt: EmulateCtxt, reg: number, buf: Uint8Array): void;
  readMmx(ctxt: EmulateCtxt, reg: number, buf: Uint8Array): void;
  writeMmx(ctxt: EmulateCtxt, reg: number, buf: Uint8Array): void;
  /** FXSAVE image (512 bytes) out of, FXRSTOR image into, the guest FPU; X86EMUL_*. */
  fxsave(ctxt: EmulateCtxt, buf: Uint8Array, size: number): number;
  fxrstor(ctxt: EmulateCtxt, buf: Uint8Array): number;
  /** Control and status words for FNSTCW and FNSTSW. */
  fpuControlWord(ctxt: EmulateCtxt): number;
  fpuStatusWord(ctxt: EmulateCtxt): number;
}

/** GDTR or IDTR: base in halves, limit in bytes. */
export interface DescriptorTable {
  limit: number;
  baseLo: number;
  baseHi: number;
}
