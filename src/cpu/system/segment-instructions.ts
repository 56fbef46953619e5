/** Instructions that read and load segment registers and their bases (@sdm volume 2: MOV, PUSH, POP, LDS, SWAPGS, WRFSBASE). */
import { CR4_FSGSBASE, GS, SS } from '../../arch/registers.ts';
import { recordImmediate, recordIsMemory, recordReg, recordRm } from '../decode/record.ts';
import { KERNEL_GS_BASE_AT, SHADOW_STACK, STATUS_OK } from '../state.ts';
import type { Core } from './core.ts';
import { currentContext, readAt } from './linear-memory.ts';
import { gprHi, gprLo, operandAddress, readRm, setGpr, writeRm } from './operands.ts';
import { loadDataSegment } from './segments.ts';
import { W_CR4 } from './words.ts';

/** MOV rm, sreg. */
export function movFromSegment(core: Core, record: number, size: number): number {
  const n = recordReg(core.u8, record);
  if (n > GS) return core.ud();
  return writeRm(core, record, 2, size, core.selector(n), 0) ? STATUS_OK : core.status;
}

/** Loads a segment register at the end of an instruction of `length` bytes; SS holds interrupts off for one more. */
function load(core: Core, n: number, selector: number, length: number): number {
  const status = loadDataSegment(core, n, selector);
  if (status !== STATUS_OK) return status;
  if (n === SS) core.shadow(SHADOW_STACK);
  return core.reload(length);
}

/** MOV sreg, rm. */
export function movToSegment(core: Core, record: number, length: number): number {
  const n = recordReg(core.u8, record);
  if (n > GS) return core.ud();
  if (!readRm(core, record, 2)) return core.status;
  return load(core, n, core.lo & 0xffff, length);
}

/** PUSH sreg of `size` bytes. */
export function pushSegment(core: Core, record: number, size: number): number {
  const stack = core.stack;
  stack.current(currentContext(core));
  if (!stack.push(size, core.selector(recordReg(core.u8, record)), 0)) return core.status;
  stack.commit();
  return STATUS_OK;
}

/** POP sreg of `size` bytes. */
export function popSegment(core: Core, record: number, size: number, length: number): number {
  const stack = core.stack;
  stack.current(currentContext(core));
  if (!stack.pop(size)) return core.status;
  const lo = stack.lo;
  const hi = stack.hi;
  const n = recordReg(core.u8, record);
  const status = loadDataSegment(core, n, core.lo & 0xffff);
  if (status !== STATUS_OK) return status;
  // SS itself may have changed how wide the pointer is: the old width counts.
  stack.lo = lo;
  stack.hi = hi;
  stack.commit();
  if (n === SS) core.shadow(SHADOW_STACK);
  return core.reload(length);
}

/** LES, LDS, LSS, LFS, LGS. */
export function loadFar(core: Core, record: number, size: number, length: number): number {
  if (!recordIsMemory(core.u8, record)) return core.ud();
  if (!operandAddress(core, record, size + 2, false)) return core.status;
  const addressLo = core.addressLo;
  const addressHi = core.addressHi;
  const context = currentContext(core);
  if (core.profile.readsHighWordFirst && !readAt(core, addressLo, addressHi, size, 2, context)) return core.status;
  if (!readAt(core, addressLo, addressHi, 0, size, context)) return core.status;
  const lo = core.lo;
  const hi = core.hi;
  if (!readAt(core, addressLo, addressHi, size, 2, context)) return core.status;
  const n = recordImmediate(core.i32, record) & 7;
  const status = loadDataSegment(core, n, core.lo & 0xffff);
  if (status !== STATUS_OK) return status;
  setGpr(core, recordReg(core.u8, record), size, lo, hi);
  if (n === SS) core.shadow(SHADOW_STACK);
  return core.reload(length);
}

export function swapgs(core: Core): number {
  if (!core.mode64()) return core.ud();
  if (core.cpl() !== 0) return core.gp(0);
  const i32 = core.i32;
  const gs = core.segment(GS);
  const kernel = KERNEL_GS_BASE_AT >> 2;
  const lo = i32[gs]!;
  const hi = i32[gs + 1]!;
  i32[gs] = i32[kernel]!;
  i32[gs + 1] = i32[kernel + 1]!;
  i32[kernel] = lo;
  i32[kernel + 1] = hi;
  return STATUS_OK;
}

/** RDFSBASE, RDGSBASE. */
export function readBase(core: Core, record: number, n: number, size: number): number {
  if ((core.i32[W_CR4]! & CR4_FSGSBASE) === 0) return core.ud();
  const word = core.segment(n);
  setGpr(core, recordRm(core.u8, record), size, core.i32[word]!, core.i32[word + 1]!);
  return STATUS_OK;
}

/** WRFSBASE, WRGSBASE. */
export function writeBase(core: Core, record: number, n: number, size: number): number {
  if ((core.i32[W_CR4]! & CR4_FSGSBASE) === 0) return core.ud();
  const rm = recordRm(core.u8, record);
  const hi = size === 8 ? gprHi(core, rm) : 0;
  if (!core.canonicalBase(hi)) return core.gp(0);
  const word = core.segment(n);
  core.i32[word] = gprLo(core, rm);
  core.i32[word + 1] = hi;
  return STATUS_OK;
}
