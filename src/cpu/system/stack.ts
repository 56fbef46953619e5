/**
 * A stack that the processor pushes on or pops from on its own account: event delivery, far transfers, IRET. The pointer advances
 * here only; whoever uses it stores it when the whole transfer is certain.
 */
import { RSP, SS } from '../../arch/registers.ts';
import { VMCB_ATTR_DB } from '../../arch/vmcb.ts';
import { TAG_READ, TAG_WRITE } from '../mmu/tlb.ts';
import type { Core } from './core.ts';
import { read, write } from './linear-memory.ts';
import { W_GPR } from './words.ts';

export class Stack {
  private readonly core: Core;
  private baseLo = 0;
  private limit = 0;
  private attributes = 0;
  /** Bits of the pointer that count: 16, 32 or 64. */
  private width = 64;
  private context = 0;
  /** Stack pointer, halves. */
  lo = 0;
  hi = 0;

  constructor(core: Core) {
    this.core = core;
  }

  /** The current stack segment and pointer; accesses in MMU context `context`. */
  current(context: number): void {
    const core = this.core;
    const i32 = core.i32;
    const word = core.segment(SS);
    this.use(i32[word]!, i32[word + 2]!, i32[word + 3]!, context);
    this.lo = i32[W_GPR + RSP * 2]!;
    this.hi = i32[W_GPR + RSP * 2 + 1]!;
  }

  /** A stack segment given by its base, limit and attributes; 64-bit code uses neither. */
  use(baseLo: number, limit: number, attributes: number, context: number): void {
    this.baseLo = baseLo;
    this.limit = limit >>> 0;
    this.attributes = attributes;
    this.width = this.core.mode64() ? 64 : (attributes & VMCB_ATTR_DB) !== 0 ? 32 : 16;
    this.context = context;
  }

  /** A flat 64-bit stack at `rsp`. */
  flat(lo: number, hi: number, context: number): void {
    this.width = 64;
    this.context = context;
    this.lo = lo;
    this.hi = hi;
  }

  /** Pushes `size` bytes; false with `core.status`. HOT */
  push(size: number, valueLo: number, valueHi: number): boolean {
    this.advance(-size);
    if (!this.within(size)) return false;
    return write(this.core, this.addressLo(), this.addressHi(), size, valueLo, valueHi, this.context);
  }

  /** Pops `size` bytes into `core.lo` and `core.hi`; false with `core.status`. HOT */
  pop(size: number): boolean {
    if (!this.within(size)) return false;
    if (!read(this.core, this.addressLo(), this.addressHi(), size, this.context)) return false;
    this.advance(size);
    return true;
  }

  /**
   * Makes room for `bytes` on a 64-bit stack, when all of it is in one page that may be written without further ado: index of the lowest
   * 32-bit word in `core.i32`, or -1 with nothing done. HOT
   */
  room64(bytes: number): number {
    const core = this.core;
    const lo = (this.lo - bytes) | 0;
    if (this.lo >>> 0 < bytes || (lo & 0xfff) + bytes > 4096 || (lo & 7) !== 0 || core.breakpoints.watching) return -1;
    const at = core.tlb.lookup(this.context, lo, this.hi, TAG_WRITE);
    if (at === -1) return -1;
    this.lo = lo;
    return at >>> 2;
  }

  /** The same for taking `bytes` from it: index of the first word. HOT */
  take64(bytes: number): number {
    const core = this.core;
    const lo = this.lo;
    if (this.width !== 64 || (lo & 0xfff) + bytes > 4096 || (lo & 7) !== 0 || core.breakpoints.watching) return -1;
    const at = core.tlb.lookup(this.context, lo, this.hi, TAG_READ);
    if (at === -1) return -1;
    this.advance(bytes);
    return at >>> 2;
  }

  /** Moves the pointer by `bytes`, wrapping at its width. */
  advance(bytes: number): void {
    if (this.width === 64) {
      const sum = (this.lo >>> 0) + bytes;
      this.hi = (this.hi + Math.floor(sum / 0x1_0000_0000)) | 0;
      this.lo = sum | 0;
    } else if (this.width === 32) {
      this.lo = (this.lo + bytes) | 0;
    } else {
      this.lo = (this.lo & ~0xffff) | ((this.lo + bytes) & 0xffff);
    }
  }

  /** Stores the pointer into rSP. */
  commit(): void {
    const i32 = this.core.i32;
    i32[W_GPR + RSP * 2] = this.lo;
    i32[W_GPR + RSP * 2 + 1] = this.width === 64 ? this.hi : 0;
  }

  /** Stack-segment limit and canonical checks: #SS(0). */
  private within(size: number): boolean {
    const core = this.core;
    if (this.width === 64) {
      if (core.canonical(this.hi)) return true;
      core.status = core.ss(0);
      return false;
    }
    if (!core.profile.segmentChecks) return true;
    const start = this.width === 16 ? this.lo & 0xffff : this.lo >>> 0;
    const last = start + size - 1;
    const expandDown = (this.attributes & 0x1c) === 0x14;
    const top = (this.attributes & VMCB_ATTR_DB) !== 0 ? 0xffffffff : 0xffff;
    if (expandDown ? start <= this.limit || last > top : last > this.limit) {
      core.status = core.ss(0);
      return false;
    }
    return true;
  }

  private addressLo(): number {
    if (this.width === 64) return this.lo;
    return (this.baseLo + (this.width === 16 ? this.lo & 0xffff : this.lo)) | 0;
  }

  private addressHi(): number {
    return this.width === 64 ? this.hi : 0;
  }
}
