/** Operands of system instructions: registers, and memory through a segment with its checks (@sdm 5.3 to 5.5; @apm 4.12). */
import { SS } from '../../arch/registers.ts';
import { VMCB_ATTR_DB, VMCB_ATTR_P } from '../../arch/vmcb.ts';
import { effectiveAddress, recordIsMemory, recordRm, recordSegment } from '../decode/record.ts';
import { SCRATCH } from '../state.ts';
import type { Core } from './core.ts';
import { currentContext, read, write } from './linear-memory.ts';
import { W_GPR } from './words.ts';

/** Low half of general register `n`. */
export function gprLo(core: Core, n: number): number {
  return core.i32[W_GPR + n * 2]!;
}

export function gprHi(core: Core, n: number): number {
  return core.i32[W_GPR + n * 2 + 1]!;
}

/** Writes `size` bytes (1, 2, 4, 8) of general register `n`; 4 clears the upper half, fewer keep the rest. */
export function setGpr(core: Core, n: number, size: number, lo: number, hi: number): void {
  const at = W_GPR + n * 2;
  const i32 = core.i32;
  if (size === 8) {
    i32[at] = lo;
    i32[at + 1] = hi;
  } else if (size === 4) {
    i32[at] = lo;
    i32[at + 1] = 0;
  } else if (size === 2) i32[at] = (i32[at]! & ~0xffff) | (lo & 0xffff);
  else i32[at] = (i32[at]! & ~0xff) | (lo & 0xff);
}

/**
 * Linear address of `offset` in segment `n`, for `size` bytes, into `core.addressLo` and `core.addressHi`, after the checks of the
 * segment; false with `core.status` (#GP(0), or #SS(0) for SS).
 */
export function linear(core: Core, n: number, lo: number, hi: number, size: number, store: boolean): boolean {
  const i32 = core.i32;
  const word = core.segment(n);
  if (core.mode64()) {
    const flatBase = n < 4;
    const sum = (lo >>> 0) + (flatBase ? 0 : i32[word]! >>> 0);
    core.addressLo = sum | 0;
    core.addressHi = flatBase ? hi : (hi + i32[word + 1]! + (sum >= 0x1_0000_0000 ? 1 : 0)) | 0;
    if (core.canonical(core.addressHi)) return true;
  } else {
    const attributes = i32[word + 3]!;
    const limit = i32[word + 2]! >>> 0;
    const start = lo >>> 0;
    const last = start + size - 1;
    const code = (attributes & 0x18) === 0x18;
    const expandDown = (attributes & 0x1c) === 0x14;
    const top = (attributes & VMCB_ATTR_DB) !== 0 ? 0xffffffff : 0xffff;
    const inside = expandDown ? start > limit && last <= top : last <= limit;
    const usable = !core.protectedMode() || (attributes & VMCB_ATTR_P) !== 0;
    const allowed = store ? !code && (attributes & 2) !== 0 : !code || (attributes & 2) !== 0;
    core.addressLo = (i32[word]! + lo) | 0;
    core.addressHi = 0;
    if (!core.profile.segmentChecks || (inside && usable && (allowed || !core.protectedMode()))) return true;
  }
  core.status = n === SS ? core.ss(0) : core.gp(0);
  return false;
}

/** Linear address of the record's memory operand: see `linear`. */
export function operandAddress(core: Core, record: number, size: number, store: boolean): boolean {
  effectiveAddress(core.i32, core.u8, record);
  const i32 = core.i32;
  return linear(core, recordSegment(core.u8, record), i32[SCRATCH >> 2]!, i32[(SCRATCH >> 2) + 1]!, size, store);
}

/** Reads the rm operand (register or memory), `size` bytes, into `core.lo` and `core.hi`. */
export function readRm(core: Core, record: number, size: number): boolean {
  if (recordIsMemory(core.u8, record)) {
    if (!operandAddress(core, record, size, false)) return false;
    return read(core, core.addressLo, core.addressHi, size, currentContext(core));
  }
  const n = recordRm(core.u8, record);
  core.lo = gprLo(core, n);
  core.hi = size === 8 ? gprHi(core, n) : 0;
  if (size === 2) core.lo &= 0xffff;
  return true;
}

/** Writes the rm operand: memory takes `memorySize` bytes, a register `registerSize`. */
export function writeRm(
  core: Core,
  record: number,
  memorySize: number,
  registerSize: number,
  lo: number,
  hi: number,
): boolean {
  if (recordIsMemory(core.u8, record)) {
    if (!operandAddress(core, record, memorySize, true)) return false;
    return write(core, core.addressLo, core.addressHi, memorySize, lo, hi, currentContext(core));
  }
  setGpr(core, recordRm(core.u8, record), registerSize, lo, hi);
  return true;
}
