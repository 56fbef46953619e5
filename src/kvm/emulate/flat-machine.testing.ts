/**
 * A machine of flat memory without paging, for the emulator's tests: everything beyond memory is a device that userspace answers, as KVM
 * would present it (fragments of at most eight bytes, reads before the instruction completes, writes after).
 */
import { isCanonical } from '../../arch/linear-address.ts';
import { CR4_LA57, CS, ES, GS, LDTR, RIP, SS, TR } from '../../arch/registers.ts';
import {
  EMULATION_FAILED,
  EMULATION_RESTART,
  EmulateCtxt,
  emptySegment,
  X86EMUL_MODE_PROT16,
  X86EMUL_MODE_PROT32,
  X86EMUL_MODE_PROT64,
  X86EMUL_MODE_REAL,
} from './ctxt.ts';
import { x86DecodeInsn } from './decode.ts';
import { emulatorWritebackRegisterCache, initDecodeCache } from './emulate.ts';
import { x86EmulateInsn } from './execute.ts';
import {
  type DescriptorTable,
  type SegmentDesc,
  X86EMUL_CONTINUE,
  X86EMUL_IO_NEEDED,
  X86EMUL_PROPAGATE_FAULT,
  type X86EmulateOps,
} from './ops.ts';

const MSR_EFER = 0xc000_0080;

/** How a step ended. */
export interface Outcome {
  readonly kind: 'done' | 'mmio-read' | 'mmio-write' | 'io-in' | 'io-out' | 'failed' | 'exception' | 'halted';
  readonly address?: number;
  readonly bytes?: number;
  readonly data?: Uint8Array;
  readonly vector?: number;
}

interface Fragment {
  readonly address: number;
  readonly data: Uint8Array;
}

export class FlatMachine implements X86EmulateOps {
  readonly memory: Uint8Array;
  /** Halves, RIP at index 16. */
  readonly regs = new Int32Array(2 * (RIP + 1));
  readonly segments: SegmentDesc[] = [];
  readonly xmm = Array.from({ length: 16 }, () => new Uint8Array(16));
  readonly mmx = Array.from({ length: 8 }, () => new Uint8Array(8));
  readonly msrs = new Map<number, bigint>();
  readonly cr = new BigUint64Array(9);
  readonly dr = new BigUint64Array(8);
  gdt: DescriptorTable = { limit: 0, baseLo: 0, baseHi: 0 };
  idt: DescriptorTable = { limit: 0, baseLo: 0, baseHi: 0 };
  eflags = 2;
  privilege = 0;
  nmiMasked = true;
  /** Every memory and port access, in order. */
  readonly log: string[] = [];
  readonly ctxt: EmulateCtxt;
  private fragments: Fragment[] = [];
  private writing = false;
  private readComplete = false;
  private portIn: Uint8Array | null = null;
  private portInReady = false;
  private portOut: Outcome | null = null;
  private isHalted = false;

  constructor(bytes: number) {
    this.memory = new Uint8Array(bytes);
    for (let sreg = ES; sreg <= LDTR; sreg++) {
      const seg = emptySegment();
      Object.assign(seg, { type: sreg === CS ? 11 : 3, s: 1, p: 1, db: 1, g: 1, limit: 0xffff_ffff });
      this.segments.push(seg);
    }
    this.ctxt = new EmulateCtxt(this);
    this.long();
  }

  /** 64-bit mode, as a kernel has it. */
  long(): void {
    this.cr[0] = 0x8001_0033n;
    this.cr[4] = 0x620n;
    this.msrs.set(MSR_EFER, 0xd01n);
    Object.assign(this.segments[CS]!, { selector: 8, db: 0, l: 1 });
  }

  /** Protected mode with 32- or 16-bit segments. */
  protect(db: 0 | 1): void {
    this.cr[0] = 0x33n;
    this.msrs.set(MSR_EFER, 0n);
    for (const seg of this.segments) Object.assign(seg, { l: 0, db });
  }

  real(): void {
    this.cr[0] = 0x30n;
    this.msrs.set(MSR_EFER, 0n);
    for (const seg of this.segments) Object.assign(seg, { l: 0, db: 0, g: 0, limit: 0xffff });
  }

  get mode(): number {
    if ((this.cr[0]! & 1n) === 0n) return X86EMUL_MODE_REAL;
    const cs = this.segments[CS]!;
    if (cs.l !== 0) return X86EMUL_MODE_PROT64;
    return cs.db !== 0 ? X86EMUL_MODE_PROT32 : X86EMUL_MODE_PROT16;
  }

  reg(nr: number): bigint {
    return new BigUint64Array(this.regs.buffer)[nr]!;
  }

  setReg(nr: number, value: bigint): void {
    new BigUint64Array(this.regs.buffer)[nr] = value;
  }

  /** Decodes and emulates the instruction at RIP. */
  step(): Outcome {
    const { ctxt } = this;
    ctxt.mode = this.mode;
    ctxt.eflags = this.eflags;
    ctxt.eipLo = this.regs[2 * RIP]!;
    ctxt.eipHi = this.regs[2 * RIP + 1]!;
    ctxt.haveException = false;
    ctxt.permOk = false;
    ctxt.interruptibility = 0;
    initDecodeCache(ctxt);
    if (x86DecodeInsn(ctxt, null, 0, 0) === EMULATION_FAILED) return this.failure();
    return this.emulate();
  }

  /** Answers the outstanding exit and goes on. */
  resume(data: Uint8Array): Outcome {
    if (this.portIn !== null) {
      this.portIn.set(data.subarray(0, this.portIn.length));
      this.portInReady = true;
      return this.emulate();
    }
    const fragment = this.fragments[this.at]!;
    if (!this.writing) fragment.data.set(data.subarray(0, fragment.data.length));
    this.at++;
    if (this.at < this.fragments.length) return this.mmioExit();
    if (this.writing) {
      this.fragments = [];
      return { kind: 'done' };
    }
    this.readComplete = true;
    return this.emulate();
  }
  private at = 0;

  private failure(): Outcome {
    const { haveException, exception } = this.ctxt;
    return haveException ? { kind: 'exception', vector: exception.vector } : { kind: 'failed' };
  }

  private mmioExit(): Outcome {
    const { address, data } = this.fragments[this.at]!;
    // Who looks at the registers in the middle of an instruction sees the emulator's.
    if (!this.writing) emulatorWritebackRegisterCache(this.ctxt);
    return { kind: this.writing ? 'mmio-write' : 'mmio-read', address, bytes: data.length, data };
  }

  private emulate(): Outcome {
    const { ctxt } = this;
    this.portOut = null;
    for (;;) {
      const verdict = x86EmulateInsn(ctxt, false);
      if (verdict === EMULATION_FAILED) return this.failure();
      if (ctxt.haveException) return this.failure();
      if (this.portIn !== null) return { kind: 'io-in', bytes: this.portIn.length };
      const pending = this.fragments.length > 0;
      if (pending && !this.writing) return this.mmioExit();
      this.eflags = ctxt.eflags;
      this.regs[2 * RIP] = ctxt.eipLo;
      this.regs[2 * RIP + 1] = ctxt.eipHi;
      if (pending) return this.mmioExit();
      if (this.portOut !== null) return this.portOut;
      if (this.isHalted) return { kind: 'halted' };
      if (verdict !== EMULATION_RESTART) return { kind: 'done' };
    }
  }

  private access(what: string, lo: number, bytes: number): number {
    const address = lo >>> 0;
    this.log.push(`${what} 0x${address.toString(16)}+${bytes}`);
    return address;
  }

  private split(address: number, data: Uint8Array): void {
    this.fragments = [];
    this.at = 0;
    // At most eight bytes, and never across a page.
    for (let i = 0; i < data.length; ) {
      const room = 4096 - ((address + i) & 4095);
      const size = Math.min(8, room, data.length - i);
      this.fragments.push({ address: address + i, data: data.slice(i, i + size) });
      i += size;
    }
  }

  readGpr(ctxt: EmulateCtxt, nr: number): void {
    ctxt.regs[2 * nr] = this.regs[2 * nr]!;
    ctxt.regs[2 * nr + 1] = this.regs[2 * nr + 1]!;
  }
  writeGpr(ctxt: EmulateCtxt, nr: number): void {
    this.regs[2 * nr] = ctxt.regs[2 * nr]!;
    this.regs[2 * nr + 1] = ctxt.regs[2 * nr + 1]!;
  }
  private plain(what: string, lo: number, hi: number, buf: Uint8Array, off: number, n: number): number {
    const address = this.access(what, lo, n);
    if (hi !== 0 || address + n > this.memory.length) return X86EMUL_IO_NEEDED;
    buf.set(this.memory.subarray(address, address + n), off);
    return X86EMUL_CONTINUE;
  }
  readStd(_: EmulateCtxt, lo: number, hi: number, buf: Uint8Array, off: number, n: number): number {
    return this.plain('read-std', lo, hi, buf, off, n);
  }
  fetch(_: EmulateCtxt, lo: number, hi: number, buf: Uint8Array, off: number, n: number): number {
    return this.plain('fetch', lo, hi, buf, off, n);
  }
  writeStd(_: EmulateCtxt, lo: number, hi: number, buf: Uint8Array, off: number, n: number): number {
    const address = this.access('write-std', lo, n);
    if (hi !== 0 || address + n > this.memory.length) return X86EMUL_IO_NEEDED;
    this.memory.set(buf.subarray(off, off + n), address);
    return X86EMUL_CONTINUE;
  }
  readEmulated(_: EmulateCtxt, lo: number, hi: number, buf: Uint8Array, off: number, n: number): number {
    const address = this.access('read', lo, n);
    if (hi === 0 && address + n <= this.memory.length) {
      buf.set(this.memory.subarray(address, address + n), off);
      return X86EMUL_CONTINUE;
    }
    if (this.readComplete) {
      this.readComplete = false;
      let to = off;
      for (const { data } of this.fragments) {
        buf.set(data, to);
        to += data.length;
      }
      this.fragments = [];
      return X86EMUL_CONTINUE;
    }
    this.writing = false;
    this.split(address, new Uint8Array(n));
    return X86EMUL_IO_NEEDED;
  }
  writeEmulated(_: EmulateCtxt, lo: number, hi: number, buf: Uint8Array, off: number, n: number): number {
    const address = this.access('write', lo, n);
    const data = buf.subarray(off, off + n);
    if (hi === 0 && address + n <= this.memory.length) {
      this.memory.set(data, address);
    } else {
      this.writing = true;
      this.split(address, data);
    }
    return X86EMUL_CONTINUE;
  }
  cmpxchgEmulated(ctxt: EmulateCtxt, lo: number, hi: number, old: Uint8Array, now: Uint8Array, n: number): number {
    this.access('cmpxchg', lo, n);
    const address = lo >>> 0;
    if (hi === 0 && address + n <= this.memory.length) {
      for (let i = 0; i < n; i++) if (this.memory[address + i] !== old[i]) return 4;
      this.memory.set(now.subarray(0, n), address);
      return X86EMUL_CONTINUE;
    }
    return this.writeEmulated(ctxt, lo, hi, now, 0, n);
  }
  invlpg(_: EmulateCtxt, lo: number): void {
    this.access('invlpg', lo, 0);
  }
  pioInEmulated(_: EmulateCtxt, size: number, port: number, buf: Uint8Array, off: number, count: number): number {
    this.log.push(`in 0x${port.toString(16)} ${size}*${count}`);
    if (this.portInReady) {
      buf.set(this.portIn!, off);
      this.portIn = null;
      this.portInReady = false;
      return 1;
    }
    this.portIn = new Uint8Array(size * count);
    return 0;
  }
  pioOutEmulated(_: EmulateCtxt, size: number, port: number, buf: Uint8Array, off: number, count: number): number {
    this.log.push(`out 0x${port.toString(16)} ${size}*${count}`);
    this.portOut = { kind: 'io-out', address: port, bytes: size, data: buf.slice(off, off + size * count) };
    return 0;
  }
  getSegment(_: EmulateCtxt, sreg: number, seg: SegmentDesc): boolean {
    Object.assign(seg, this.segments[sreg]!);
    return this.segments[sreg]!.p !== 0;
  }
  setSegment(_: EmulateCtxt, sreg: number, seg: SegmentDesc): void {
    Object.assign(this.segments[sreg]!, seg);
  }
  getCachedSegmentBase(ctxt: EmulateCtxt, sreg: number): void {
    const long = this.mode === X86EMUL_MODE_PROT64 && sreg < 4;
    ctxt.segBase[0] = long ? 0 : this.segments[sreg]!.baseLo;
    ctxt.segBase[1] = long ? 0 : this.segments[sreg]!.baseHi;
  }
  getGdt(): DescriptorTable {
    return this.gdt;
  }
  getIdt(): DescriptorTable {
    return this.idt;
  }
  setGdt(_: EmulateCtxt, table: DescriptorTable): void {
    this.gdt = table;
  }
  setIdt(_: EmulateCtxt, table: DescriptorTable): void {
    this.idt = table;
  }
  private give(ctxt: EmulateCtxt, value: bigint): void {
    new BigUint64Array(ctxt.io64.buffer)[0] = value;
  }
  private take(lo: number, hi: number): bigint {
    return BigInt.asUintN(64, (BigInt(hi) << 32n) | BigInt(lo >>> 0));
  }
  getCr(ctxt: EmulateCtxt, cr: number): void {
    this.give(ctxt, this.cr[cr]!);
  }
  setCr(_: EmulateCtxt, cr: number, lo: number, hi: number): number {
    this.cr[cr] = this.take(lo, hi);
    return 0;
  }
  cpl(): number {
    return this.privilege;
  }
  getDr(ctxt: EmulateCtxt, dr: number): void {
    this.give(ctxt, this.dr[dr]!);
  }
  setDr(_: EmulateCtxt, dr: number, lo: number, hi: number): number {
    this.dr[dr] = this.take(lo, hi);
    return 0;
  }
  getMsr(ctxt: EmulateCtxt, msr: number): number {
    const value = this.msrs.get(msr);
    this.give(ctxt, value ?? 0n);
    return value === undefined ? X86EMUL_PROPAGATE_FAULT : X86EMUL_CONTINUE;
  }
  setMsr(_: EmulateCtxt, msr: number, lo: number, hi: number): number {
    if (!this.msrs.has(msr)) return X86EMUL_PROPAGATE_FAULT;
    this.msrs.set(msr, this.take(lo, hi));
    return X86EMUL_CONTINUE;
  }
  readPmc(): number {
    return 1;
  }
  halt(): void {
    this.isHalted = true;
  }
  wbinvd(): void {}
  fixHypercall(): number {
    return X86EMUL_PROPAGATE_FAULT;
  }
  intercept(): number {
    return X86EMUL_CONTINUE;
  }
  getCpuid(_: EmulateCtxt, regs: Uint32Array): boolean {
    regs.set([0xd, 0x68747541, 0x444d4163, 0x69746e65]);
    return true;
  }
  guestHasMovbe(): boolean {
    return true;
  }
  guestHasFxsr(): boolean {
    return true;
  }
  isCanonicalAddr(ctxt: EmulateCtxt, hi: number): boolean {
    this.getCr(ctxt, 4);
    return isCanonical(hi, (ctxt.io64[0]! & CR4_LA57) !== 0);
  }
  guestHasRdpid(): boolean {
    return true;
  }
  guestCpuidIsIntelCompatible(): boolean {
    return false;
  }
  setNmiMask(_: EmulateCtxt, masked: boolean): void {
    this.nmiMasked = masked;
  }
  isSmm(): boolean {
    return false;
  }
  isGuestMode(): boolean {
    return false;
  }
  leaveSmm(): number {
    return 0;
  }
  tripleFault(): void {}
  setXcr(): number {
    return 0;
  }
  readXmm(_: EmulateCtxt, reg: number, buf: Uint8Array): void {
    buf.set(this.xmm[reg]!);
  }
  writeXmm(_: EmulateCtxt, reg: number, buf: Uint8Array): void {
    this.xmm[reg]!.set(buf.subarray(0, 16));
  }
  readMmx(_: EmulateCtxt, reg: number, buf: Uint8Array): void {
    buf.set(this.mmx[reg]!);
  }
  writeMmx(_: EmulateCtxt, reg: number, buf: Uint8Array): void {
    this.mmx[reg]!.set(buf.subarray(0, 8));
  }
  fxsave(_: EmulateCtxt, buf: Uint8Array): number {
    buf.fill(0);
    return X86EMUL_CONTINUE;
  }
  fxrstor(): number {
    return X86EMUL_CONTINUE;
  }
  fpuControlWord(): number {
    return 0x37f;
  }
  fpuStatusWord(): number {
    return 0;
  }
}

/** Segment registers a scenario file names, in encoding order. */
export const segmentNames: Readonly<Record<string, number>> = {
  es: ES,
  cs: CS,
  ss: SS,
  ds: 3,
  fs: 4,
  gs: GS,
  tr: TR,
  ldt: LDTR,
};
