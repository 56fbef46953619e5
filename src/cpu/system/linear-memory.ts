/**
 * Reads and writes of linear memory by the processor itself: descriptor tables, task-state segments, stacks of event delivery and the
 * operands of system instructions. Each takes the MMU context (see MMU_INDEX_AT): implicit accesses are supervisor accesses whatever
 * the current privilege (@sdm 4.6.1). A failure answers false, with `core.status` set.
 */
import { ACCESS_READ, ACCESS_WRITE, MMU_ALIGNED_USER, MMU_INDEX_AT } from '../state.ts';
import type { Core } from './core.ts';
import { aligned, translate } from './translation.ts';

/** Context of implicit supervisor accesses. */
export const IMPLICIT = 0;

/** Context of the running instruction's own accesses. */
export function currentContext(core: Core): number {
  return core.i32[MMU_INDEX_AT >> 2]!;
}

/** Reads `size` bytes (1 to 8) little-endian into `core.lo` and `core.hi`. HOT */
export function read(core: Core, lo: number, hi: number, size: number, context: number): boolean {
  const offset = lo & 0xfff;
  const at = translate(core, lo, hi, ACCESS_READ, context);
  if (at === -1) return false;
  const first = 4096 - offset;
  let next = -1;
  if (first < size) {
    const nextLo = (lo + first) | 0;
    next = translate(core, nextLo, nextPageHigh(core, nextLo, hi), ACCESS_READ, context);
    if (next === -1) return false;
  }
  if (context === MMU_ALIGNED_USER && !aligned(core, lo, size)) return false;
  if (core.breakpoints.watching) core.breakpoints.accessed(lo, hi, size, ACCESS_READ);
  if (first >= size && (size & 3) === 0 && (at & 3) === 0) {
    core.lo = core.i32[at >>> 2]!;
    core.hi = size === 8 ? core.i32[(at >>> 2) + 1]! : 0;
    return true;
  }
  let low = 0;
  let high = 0;
  for (let i = 0; i < size; i++) {
    const byte = core.u8[i < first ? at + i : next + i - first]!;
    if (i < 4) low |= byte << (i * 8);
    else high |= byte << ((i - 4) * 8);
  }
  core.lo = low;
  core.hi = high;
  return true;
}

/** Writes `size` bytes (1 to 8) little-endian; nothing is written unless all of it can be. HOT */
export function write(
  core: Core,
  lo: number,
  hi: number,
  size: number,
  valueLo: number,
  valueHi: number,
  context: number,
): boolean {
  const offset = lo & 0xfff;
  const at = translate(core, lo, hi, ACCESS_WRITE, context);
  if (at === -1) return false;
  const first = 4096 - offset;
  let next = -1;
  if (first < size) {
    const nextLo = (lo + first) | 0;
    next = translate(core, nextLo, nextPageHigh(core, nextLo, hi), ACCESS_WRITE, context);
    if (next === -1) return false;
  }
  if (context === MMU_ALIGNED_USER && !aligned(core, lo, size)) return false;
  if (core.breakpoints.watching) core.breakpoints.accessed(lo, hi, size, ACCESS_WRITE);
  if (first >= size && (size & 3) === 0 && (at & 3) === 0) {
    core.i32[at >>> 2] = valueLo;
    if (size === 8) core.i32[(at >>> 2) + 1] = valueHi;
    return true;
  }
  for (let i = 0; i < size; i++) {
    core.u8[i < first ? at + i : next + i - first] = i < 4 ? valueLo >>> (i * 8) : valueHi >>> ((i - 4) * 8);
  }
  return true;
}

/** High half of the address of the following page: it wraps at 4 GiB outside 64-bit addressing. */
export function nextPageHigh(core: Core, nextLo: number, hi: number): number {
  return nextLo === 0 && core.longMode() ? (hi + 1) | 0 : hi;
}

/** Reads at segment base (halves) plus a small offset. */
export function readAt(
  core: Core,
  baseLo: number,
  baseHi: number,
  offset: number,
  size: number,
  context: number,
): boolean {
  const sum = (baseLo >>> 0) + offset;
  const carry = sum >= 0x1_0000_0000 && core.longMode() ? 1 : 0;
  return read(core, sum | 0, (baseHi + carry) | 0, size, context);
}

/** Writes at segment base (halves) plus a small offset. */
export function writeAt(
  core: Core,
  baseLo: number,
  baseHi: number,
  offset: number,
  size: number,
  valueLo: number,
  valueHi: number,
  context: number,
): boolean {
  const sum = (baseLo >>> 0) + offset;
  const carry = sum >= 0x1_0000_0000 && core.longMode() ? 1 : 0;
  return write(core, sum | 0, (baseHi + carry) | 0, size, valueLo, valueHi, context);
}
