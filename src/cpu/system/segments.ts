/** Descriptors and segment registers (@sdm 3.4, 5.6 to 5.8; @apm 4.8 to 4.10). */
import { GP_VECTOR, NP_VECTOR, SS_VECTOR } from '../../arch/exceptions.ts';
import { CS, ES, FS, GS, LDTR, SS } from '../../arch/registers.ts';
import {
  descriptorAttributes,
  descriptorBase,
  descriptorLimit,
  SELECTOR_RPL,
  SELECTOR_TI,
  TYPE_ACCESSED,
  TYPE_CODE,
  TYPE_DC,
  TYPE_RW,
} from '../../arch/segment.ts';
import { VMCB_ATTR_DPL_SHIFT, VMCB_ATTR_P, VMCB_ATTR_S } from '../../arch/vmcb.ts';
import { GDTR_BASE, GDTR_LIMIT, SEG_ATTR, SEG_SELECTOR, STATUS_OK } from '../state.ts';
import type { Core } from './core.ts';
import { IMPLICIT, readAt, writeAt } from './linear-memory.ts';

/** A selector as error codes carry it. */
export function selectorError(selector: number): number {
  return selector & 0xfffc;
}

export function dplOf(attributes: number): number {
  return (attributes >>> VMCB_ATTR_DPL_SHIFT) & 3;
}

/**
 * Reads the eight bytes of the descriptor of `selector` into `core.lo` and `core.hi`. False with `core.status`: a
 * fault of the access, or `vector` with the selector when the selector is beyond its table.
 */
export function fetchDescriptor(core: Core, selector: number, vector = GP_VECTOR): boolean {
  const i32 = core.i32;
  const offset = selector & 0xfff8;
  let baseLo: number;
  let baseHi: number;
  let limit: number;
  if (selector & SELECTOR_TI) {
    const ldt = core.segment(LDTR);
    baseLo = i32[ldt]!;
    baseHi = i32[ldt + 1]!;
    limit = (i32[ldt + 3]! & VMCB_ATTR_P) !== 0 ? i32[ldt + 2]! >>> 0 : -1;
  } else {
    baseLo = i32[GDTR_BASE >> 2]!;
    baseHi = i32[(GDTR_BASE >> 2) + 1]!;
    limit = i32[GDTR_LIMIT >> 2]! & 0xffff;
  }
  if (offset + 7 > limit) {
    core.status = core.raiseError(vector, selectorError(selector));
    return false;
  }
  return readAt(core, baseLo, baseHi, offset, 8, IMPLICIT);
}

/** Reads the upper eight bytes of a 16-byte system descriptor: base 63:32 into `core.lo`. */
export function fetchDescriptorHigh(core: Core, selector: number): boolean {
  return fetchDescriptor(core, selector + 8, GP_VECTOR);
}

/** Stores bits 15:8 of a descriptor's high word: the accessed or busy bit changed. */
export function storeDescriptorType(core: Core, selector: number, high: number): boolean {
  const i32 = core.i32;
  const ldt = core.segment(LDTR);
  const local = (selector & SELECTOR_TI) !== 0;
  const baseLo = local ? i32[ldt]! : i32[GDTR_BASE >> 2]!;
  const baseHi = local ? i32[ldt + 1]! : i32[(GDTR_BASE >> 2) + 1]!;
  return writeAt(core, baseLo, baseHi, (selector & 0xfff8) + 5, 1, (high >>> 8) & 0xff, 0, IMPLICIT);
}

/** Sets the accessed bit of a code or data descriptor when it is clear; false with `core.status`. */
export function markAccessed(core: Core, selector: number, high: number): boolean {
  if ((high & (TYPE_ACCESSED << 8)) !== 0) return true;
  return storeDescriptorType(core, selector, high | (TYPE_ACCESSED << 8));
}

/** Enters a descriptor into segment register `n`. */
export function cacheDescriptor(core: Core, n: number, selector: number, lo: number, hi: number): void {
  core.setSegment(
    n,
    selector,
    descriptorBase(lo, hi),
    0,
    descriptorLimit(lo, hi),
    descriptorAttributes(hi) | TYPE_ACCESSED,
  );
}

/** A null selector: the register is unusable. */
export function cacheNull(core: Core, n: number, selector: number): void {
  core.setSegment(n, selector, 0, 0, 0, 0);
}

/** Real mode and virtual-8086: the base follows the selector, the rest stays. */
export function cacheReal(core: Core, n: number, selector: number): void {
  const word = core.segment(n);
  core.i32[word] = (selector & 0xffff) << 4;
  core.i32[word + 1] = 0;
  core.i32[word + 4] = selector & 0xffff;
}

/** Loads ES, SS, DS, FS or GS with `selector`: a STATUS. HOT */
export function loadDataSegment(core: Core, n: number, selector: number): number {
  if (core.realSegments()) {
    cacheReal(core, n, selector);
    return STATUS_OK;
  }
  if (n === SS) return loadStackSegment(core, selector);
  if ((selector & 0xfffc) === 0) {
    cacheNull(core, n, selector);
    return STATUS_OK;
  }
  if (!fetchDescriptor(core, selector)) return core.status;
  const lo = core.lo;
  const hi = core.hi;
  const attributes = descriptorAttributes(hi);
  const code = (attributes & TYPE_CODE) !== 0;
  if ((attributes & VMCB_ATTR_S) === 0 || (code && (attributes & TYPE_RW) === 0))
    return core.gp(selectorError(selector));
  if (!code || (attributes & TYPE_DC) === 0) {
    const dpl = dplOf(attributes);
    if (dpl < core.cpl() || dpl < (selector & SELECTOR_RPL)) return core.gp(selectorError(selector));
  }
  if ((attributes & VMCB_ATTR_P) === 0) return core.raiseError(NP_VECTOR, selectorError(selector));
  if (!markAccessed(core, selector, hi)) return core.status;
  cacheDescriptor(core, n, selector, lo, hi);
  return STATUS_OK;
}

/** Loads SS at the current privilege: a STATUS. */
function loadStackSegment(core: Core, selector: number): number {
  const cpl = core.cpl();
  if ((selector & 0xfffc) === 0) {
    if (!core.mode64() || cpl === 3 || (selector & SELECTOR_RPL) !== cpl) return core.gp(0);
    core.setSegment(SS, selector, 0, 0, 0, cpl << VMCB_ATTR_DPL_SHIFT);
    return STATUS_OK;
  }
  const status = checkStackSegment(core, selector, cpl, GP_VECTOR);
  if (status !== STATUS_OK) return status;
  cacheDescriptor(core, SS, selector, core.lo, core.hi);
  return STATUS_OK;
}

/** Checks a stack selector for privilege `cpl` and leaves its descriptor in `core.lo`, `core.hi`: a STATUS. */
export function checkStackSegment(core: Core, selector: number, cpl: number, vector: number): number {
  if ((selector & 0xfffc) === 0) return core.raiseError(vector, 0);
  if (!fetchDescriptor(core, selector, vector)) return core.status;
  const lo = core.lo;
  const hi = core.hi;
  const attributes = descriptorAttributes(hi);
  const writableData = (attributes & (VMCB_ATTR_S | TYPE_CODE | TYPE_RW)) === (VMCB_ATTR_S | TYPE_RW);
  if ((selector & SELECTOR_RPL) !== cpl || dplOf(attributes) !== cpl || !writableData) {
    return core.raiseError(vector, selectorError(selector));
  }
  if ((attributes & VMCB_ATTR_P) === 0) return core.raiseError(SS_VECTOR, selectorError(selector));
  if (!markAccessed(core, selector, hi)) return core.status;
  core.lo = lo;
  core.hi = hi;
  return STATUS_OK;
}

/**
 * After a return to outer privilege `cpl`: data segments that it may not use become null (@sdm 5.8.6). What the register hides stays, as
 * 64-bit code goes on using the base.
 */
export function dropInnerSegments(core: Core, cpl: number): void {
  for (let n = ES; n <= GS; n++) {
    if (n === CS || n === SS) continue;
    const attributes = core.attributes(n);
    // A null FS or GS keeps its base in long mode: it may belong to user space.
    if ((n === FS || n === GS) && (core.selector(n) & 0xfffc) === 0) continue;
    const conforming = (attributes & (TYPE_CODE | TYPE_DC)) === (TYPE_CODE | TYPE_DC);
    if (conforming || dplOf(attributes) >= cpl) continue;
    const word = core.segment(n);
    core.i32[word + (SEG_ATTR >> 2)] = attributes & ~VMCB_ATTR_P;
    core.i32[word + (SEG_SELECTOR >> 2)] = 0;
  }
}
