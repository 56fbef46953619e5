/**
 * XSAVE, XSAVEOPT, XSAVEC and XRSTOR (@sdm volume 1, 13). Components: x87, SSE, AVX (bytes 576 to 831), PKRU (standard form: PKRU_OFFSET).
 *
 *   0 FCW 2 FSW 4 FTW(abridged) 6 FOP 8 FIP 16 FDP  24 MXCSR 28 MXCSR_MASK  32 ST0..ST7, 16 each  160 XMM0..XMM15, 16 each
 *   512 XSTATE_BV 520 XCOMP_BV  576 upper halves of YMM0..YMM15
 */
import { CR0_TS, CR4_OSXSAVE, MXCSR_MASK, RAX } from '../../arch/registers.ts';
import {
  FPU_CW_AT,
  FPU_REGS,
  FPU_SW_AT,
  FPU_TAG_AT,
  MXCSR_AT,
  PKRU_AT,
  STATUS_OK,
  XCR0_AT,
  XMM,
  XMM_SIZE,
} from '../state.ts';
import type { Core } from './core.ts';
import { currentContext, readAt, writeAt } from './linear-memory.ts';
import { gprLo, operandAddress } from './operands.ts';
import { W_CR0, W_CR4 } from './words.ts';

/** State components of XCR0. */
export const XSTATE_X87 = 1 << 0;
export const XSTATE_SSE = 1 << 1;
export const XSTATE_AVX = 1 << 2;
export const XSTATE_PKRU = 1 << 9;

/** Offset of PKRU in the standard form, as CPUID leaf 0xD index 9 says. */
export const PKRU_OFFSET = 0xa80;
const AVX_OFFSET = 576;

/** The checks of all of them: the area's address stays in `core.addressLo` and `core.addressHi`. STATUS_OK or a fault. */
function begin(core: Core, record: number, store: boolean): number {
  if ((core.i32[W_CR4]! & CR4_OSXSAVE) === 0) return core.ud();
  if ((core.i32[W_CR0]! & CR0_TS) !== 0) return core.nm();
  if (!operandAddress(core, record, 576, store)) return core.status;
  return (core.addressLo & 63) === 0 ? STATUS_OK : core.gp(0);
}

/** Copies `size` bytes (a multiple of 8, or 4) of the state at `from` to the area at `offset`. */
function save(core: Core, lo: number, hi: number, offset: number, from: number, size: number): boolean {
  const context = currentContext(core);
  for (let i = 0; i < size; i += 8) {
    const word = (from + i) >> 2;
    const chunk = Math.min(8, size - i);
    if (!writeAt(core, lo, hi, offset + i, chunk, core.i32[word]!, core.i32[word + 1]!, context)) return false;
  }
  return true;
}

function restore(core: Core, lo: number, hi: number, offset: number, to: number, size: number): boolean {
  const context = currentContext(core);
  for (let i = 0; i < size; i += 8) {
    const chunk = Math.min(8, size - i);
    if (!readAt(core, lo, hi, offset + i, chunk, context)) return false;
    core.i32[(to + i) >> 2] = core.lo;
    if (chunk === 8) core.i32[((to + i) >> 2) + 1] = core.hi;
  }
  return true;
}

/** XINUSE: components that are not in their initial configuration. MXCSR does not count. */
export function stateInUse(core: Core): number {
  const { i32 } = core;
  const isZero = (at: number, stride: number, count: number): boolean => {
    for (let n = 0; n < count; n++) {
      for (let i = 0; i < 4; i++) if (i32[((at + n * stride) >> 2) + i] !== 0) return false;
    }
    return true;
  };
  const x87 =
    i32[FPU_CW_AT >> 2] !== 0x37f ||
    i32[FPU_SW_AT >> 2] !== 0 ||
    i32[FPU_TAG_AT >> 2] !== 0 ||
    !isZero(FPU_REGS, 16, 8);
  return (
    (x87 ? XSTATE_X87 : 0) |
    (isZero(XMM, XMM_SIZE, 16) ? 0 : XSTATE_SSE) |
    (isZero(XMM + 16, XMM_SIZE, 16) ? 0 : XSTATE_AVX) |
    (i32[PKRU_AT >> 2] === 0 ? 0 : XSTATE_PKRU)
  );
}

/** What XSAVE's variants do: XSAVEOPT leaves initial components out, XSAVEC also puts the others close together. */
export type SaveKind = 'plain' | 'optimized' | 'compact';
const MXCSR_INITIAL = 0x1f80;

/** XSAVE, XSAVEOPT, XSAVEC (@sdm volume 1, 13.7 to 13.10). */
export function xsave(core: Core, record: number, kind: SaveKind): number {
  const status = begin(core, record, true);
  if (status !== STATUS_OK) return status;
  const lo = core.addressLo;
  const hi = core.addressHi;
  const i32 = core.i32;
  const compact = kind === 'compact';
  const requested = i32[XCR0_AT >> 2]! & gprLo(core, RAX);
  let used = stateInUse(core) & requested;
  // For XSAVEC, MXCSR is part of SSE's state.
  if (compact && i32[MXCSR_AT >> 2] !== MXCSR_INITIAL) used |= requested & XSTATE_SSE;
  const wanted = kind === 'plain' ? requested : used;
  const context = currentContext(core);
  if (!readAt(core, lo, hi, 512, 8, context)) return core.status;
  const bv = compact ? used : (core.lo & ~requested) | used;
  const bvHi = compact ? 0 : core.hi;
  if ((wanted & XSTATE_X87) !== 0) {
    const control = (i32[FPU_CW_AT >> 2]! & 0xffff) | (i32[FPU_SW_AT >> 2]! << 16);
    if (!writeAt(core, lo, hi, 0, 8, control, i32[FPU_TAG_AT >> 2]! & 0xff, context)) return core.status;
    // The last instruction and operand pointers are not kept: they read as zero.
    for (let i = 0; i < 16; i += 8) if (!writeAt(core, lo, hi, 8 + i, 8, 0, 0, context)) return core.status;
    for (let n = 0; n < 8; n++) if (!save(core, lo, hi, 32 + n * 16, FPU_REGS + n * 16, 16)) return core.status;
  }
  if ((compact ? wanted & XSTATE_SSE : requested & (XSTATE_SSE | XSTATE_AVX)) !== 0) {
    if (!writeAt(core, lo, hi, 24, 8, i32[MXCSR_AT >> 2]!, MXCSR_MASK, context)) return core.status;
  }
  if ((wanted & XSTATE_SSE) !== 0) {
    for (let n = 0; n < 16; n++) if (!save(core, lo, hi, 160 + n * 16, XMM + n * XMM_SIZE, 16)) return core.status;
  }
  if ((wanted & XSTATE_AVX) !== 0) {
    for (let n = 0; n < 16; n++) {
      if (!save(core, lo, hi, AVX_OFFSET + n * 16, XMM + n * XMM_SIZE + 16, 16)) return core.status;
    }
  }
  if ((wanted & XSTATE_PKRU) !== 0) {
    const at = compact ? AVX_OFFSET + ((requested & XSTATE_AVX) !== 0 ? 256 : 0) : PKRU_OFFSET;
    if (!writeAt(core, lo, hi, at, 8, i32[PKRU_AT >> 2]!, 0, context)) return core.status;
  }
  if (!writeAt(core, lo, hi, 512, 8, bv, bvHi, context)) return core.status;
  if (compact && !writeAt(core, lo, hi, 520, 8, requested, 1 << 31, context)) return core.status;
  return STATUS_OK;
}

/** XRSTOR, both forms: what the area does not hold goes to its initial state (@sdm volume 1, 13.8). */
export function xrstor(core: Core, record: number): number {
  const status = begin(core, record, false);
  if (status !== STATUS_OK) return status;
  const lo = core.addressLo;
  const hi = core.addressHi;
  const i32 = core.i32;
  const known = i32[XCR0_AT >> 2]!;
  const wanted = known & gprLo(core, RAX);
  const context = currentContext(core);
  if (!readAt(core, lo, hi, 512, 8, context)) return core.status;
  const bv = core.lo;
  const bvHi = core.hi;
  if (!readAt(core, lo, hi, 520, 8, context)) return core.status;
  const compact = core.hi < 0;
  const present = compact ? core.lo : bv;
  if (bvHi !== 0 || (bv & ~known) !== 0) return core.gp(0);
  if (compact && (!core.hasXsavec || core.hi !== 1 << 31 || (bv & ~present) !== 0 || (present & ~known) !== 0)) {
    return core.gp(0);
  }
  if (!compact && (core.lo | core.hi) !== 0) return core.gp(0);
  // The rest of the header is zero: as far as byte 23, or all of it in the compacted form.
  for (let at = 528; at < (compact ? 576 : 536); at += 8) {
    if (!readAt(core, lo, hi, at, 8, context)) return core.status;
    if ((core.lo | core.hi) !== 0) return core.gp(0);
  }
  if (compact && (wanted & ~bv & XSTATE_SSE) !== 0) i32[MXCSR_AT >> 2] = MXCSR_INITIAL;
  else if ((wanted & (compact ? XSTATE_SSE : XSTATE_SSE | XSTATE_AVX)) !== 0) {
    if (!readAt(core, lo, hi, 24, 4, context)) return core.status;
    if ((core.lo & ~MXCSR_MASK) !== 0) return core.gp(0);
    i32[MXCSR_AT >> 2] = core.lo;
  }
  if ((wanted & XSTATE_X87) !== 0) {
    if ((bv & XSTATE_X87) !== 0) {
      if (!readAt(core, lo, hi, 0, 8, context)) return core.status;
      i32[FPU_CW_AT >> 2] = core.lo & 0xffff;
      i32[FPU_SW_AT >> 2] = core.lo >>> 16;
      i32[FPU_TAG_AT >> 2] = core.hi & 0xff;
      for (let n = 0; n < 8; n++) if (!restore(core, lo, hi, 32 + n * 16, FPU_REGS + n * 16, 16)) return core.status;
    } else {
      i32[FPU_CW_AT >> 2] = 0x37f;
      i32[FPU_SW_AT >> 2] = 0;
      i32[FPU_TAG_AT >> 2] = 0;
      core.u8.fill(0, FPU_REGS, FPU_REGS + 128);
    }
  }
  if ((wanted & XSTATE_SSE) !== 0) {
    for (let n = 0; n < 16; n++) {
      const at = XMM + n * XMM_SIZE;
      if ((bv & XSTATE_SSE) === 0) core.u8.fill(0, at, at + 16);
      else if (!restore(core, lo, hi, 160 + n * 16, at, 16)) return core.status;
    }
  }
  if ((wanted & XSTATE_AVX) !== 0) {
    for (let n = 0; n < 16; n++) {
      const at = XMM + n * XMM_SIZE + 16;
      if ((bv & XSTATE_AVX) === 0) core.u8.fill(0, at, at + 16);
      else if (!restore(core, lo, hi, AVX_OFFSET + n * 16, at, 16)) return core.status;
    }
  }
  if ((wanted & XSTATE_PKRU) !== 0) {
    const at = compact ? AVX_OFFSET + ((present & XSTATE_AVX) !== 0 ? 256 : 0) : PKRU_OFFSET;
    if ((bv & XSTATE_PKRU) === 0) i32[PKRU_AT >> 2] = 0;
    else {
      if (!readAt(core, lo, hi, at, 4, context)) return core.status;
      i32[PKRU_AT >> 2] = core.lo;
    }
    core.updatePaging();
  }
  return STATUS_OK;
}
