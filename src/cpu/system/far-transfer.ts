/** Far JMP, CALL and RET, directly and through call gates (@sdm 5.8; @apm 4.11). */
import { GP_VECTOR, NP_VECTOR, TS_VECTOR } from '../../arch/exceptions.ts';
import { CS, RSP, SS } from '../../arch/registers.ts';
import {
  descriptorAttributes,
  descriptorLimit,
  isCode,
  SYSTEM_CALL_GATE,
  SYSTEM_CALL_GATE16,
  SYSTEM_TASK_GATE,
  SYSTEM_TSS,
  SYSTEM_TSS16,
  TYPE_DC,
} from '../../arch/segment.ts';
import {
  INTERCEPT_TASK_SWITCH,
  SVM_EXIT_TASK_SWITCH,
  VMCB_ATTR_DB,
  VMCB_ATTR_DPL_SHIFT,
  VMCB_ATTR_L,
  VMCB_ATTR_P,
  VMCB_ATTR_S,
} from '../../arch/vmcb.ts';
import { STATUS_OK, STATUS_RELOAD } from '../state.ts';
import type { Core } from './core.ts';
import { innerStack, longStack, useDescriptor } from './delivery.ts';
import { checkReturnCode, setStackPointer } from './iret.ts';
import { currentContext, IMPLICIT } from './linear-memory.ts';
import {
  cacheDescriptor,
  cacheReal,
  checkStackSegment,
  dplOf,
  dropInnerSegments,
  fetchDescriptor,
  fetchDescriptorHigh,
  markAccessed,
  selectorError,
} from './segments.ts';
import { W_CPL, W_GPR } from './words.ts';

/** Goes to real-mode CS:IP. */
function enterReal(core: Core, selector: number, ip: number): number {
  cacheReal(core, CS, selector);
  core.setRip(ip, 0);
  return STATUS_RELOAD;
}

/** Far JMP (`call` false) or CALL to `selector`:`offset`, operand size `size`, in an instruction of `length` bytes: a STATUS. */
export function farTransfer(
  core: Core,
  call: boolean,
  selector: number,
  offsetLo: number,
  offsetHi: number,
  size: number,
  length: number,
): number {
  const ip = size === 2 ? offsetLo & 0xffff : offsetLo;
  if (core.realSegments()) {
    if (ip >>> 0 > core.i32[core.segment(CS) + 2]! >>> 0) return core.gp(0);
    if (call && !pushReturn(core, size, length)) return core.status;
    return enterReal(core, selector, ip);
  }
  if ((selector & 0xfffc) === 0) return core.gp(0);
  if (!fetchDescriptor(core, selector)) return core.status;
  const lo = core.lo;
  const hi = core.hi;
  const attributes = descriptorAttributes(hi);
  if ((attributes & VMCB_ATTR_S) === 0) return throughSystem(core, call, selector, lo, hi, length);
  const cpl = core.cpl();
  const dpl = dplOf(attributes);
  const error = selectorError(selector);
  if (!isCode(attributes)) return core.gp(error);
  const both = VMCB_ATTR_L | VMCB_ATTR_DB;
  if (core.longMode() && (attributes & both) === both) return core.gp(error);
  if ((attributes & TYPE_DC) !== 0 ? dpl > cpl : (selector & 3) > cpl || dpl !== cpl) return core.gp(error);
  if ((attributes & VMCB_ATTR_P) === 0) return core.raiseError(NP_VECTOR, error);
  const to64 = core.longMode() && (attributes & VMCB_ATTR_L) !== 0;
  const ipHi = to64 && size === 8 ? offsetHi : 0;
  if (to64 ? !core.canonical(ipHi) : ip >>> 0 > descriptorLimit(lo, hi)) return core.gp(0);
  if (!markAccessed(core, selector, hi)) return core.status;
  if (call && !pushReturn(core, size, length)) return core.status;
  cacheDescriptor(core, CS, (selector & ~3) | cpl, lo, hi);
  core.setRip(ip, ipHi);
  core.updateMode();
  return STATUS_RELOAD;
}

/** Pushes CS and the return address on the current stack. */
function pushReturn(core: Core, size: number, length: number): boolean {
  core.nextRip(length);
  const lo = core.lo;
  const hi = core.hi;
  const stack = core.stack;
  stack.current(currentContext(core));
  if (!stack.push(size, core.selector(CS), 0) || !stack.push(size, lo, hi)) return false;
  stack.commit();
  return true;
}

/** The selector names a call gate, a task gate or a TSS. */
function throughSystem(core: Core, call: boolean, selector: number, lo: number, hi: number, length: number): number {
  const attributes = descriptorAttributes(hi);
  const type = attributes & 0xf;
  const long = core.longMode();
  const error = selectorError(selector);
  const gate = type === SYSTEM_CALL_GATE || (!long && type === SYSTEM_CALL_GATE16);
  const task = !long && (type === SYSTEM_TASK_GATE || type === SYSTEM_TSS || type === SYSTEM_TSS16);
  if (!gate && !task) return core.gp(error);
  const dpl = dplOf(attributes);
  if (dpl < core.cpl() || dpl < (selector & 3)) return core.gp(error);
  if ((attributes & VMCB_ATTR_P) === 0) return core.raiseError(NP_VECTOR, error);
  if (task) {
    if ((core.intercept3 & INTERCEPT_TASK_SWITCH) === 0) return core.gp(error);
    const target = type === SYSTEM_TASK_GATE ? lo >>> 16 : selector;
    return core.exit(SVM_EXIT_TASK_SWITCH, target, 0, 0, call ? 0 : 1 << 6);
  }
  return throughGate(core, call, selector, lo, hi, length, type === SYSTEM_CALL_GATE16 ? 2 : long ? 8 : 4);
}

function throughGate(
  core: Core,
  call: boolean,
  gateSelector: number,
  lo: number,
  hi: number,
  length: number,
  size: number,
): number {
  const i32 = core.i32;
  const long = size === 8;
  let entryHi = 0;
  if (long) {
    if (!fetchDescriptorHigh(core, gateSelector)) return core.status;
    if ((core.hi & 0x1f00) !== 0) return core.gp(selectorError(gateSelector));
    entryHi = core.lo;
  }
  const entry = (lo & 0xffff) | (size === 2 ? 0 : hi & 0xffff0000);
  const selector = lo >>> 16;
  if ((selector & 0xfffc) === 0) return core.gp(0);
  if (!fetchDescriptor(core, selector)) return core.status;
  const codeLo = core.lo;
  const codeHi = core.hi;
  const attributes = descriptorAttributes(codeHi);
  const error = selectorError(selector);
  const cpl = core.cpl();
  const dpl = dplOf(attributes);
  const conforming = (attributes & TYPE_DC) !== 0;
  if (!isCode(attributes) || dpl > cpl || (!call && !conforming && dpl !== cpl)) return core.gp(error);
  if (long && ((attributes & VMCB_ATTR_L) === 0 || (attributes & VMCB_ATTR_DB) !== 0)) return core.gp(error);
  if ((attributes & VMCB_ATTR_P) === 0) return core.raiseError(NP_VECTOR, error);
  if (long && !core.canonical(entryHi)) return core.gp(0);
  if (!long && entry >>> 0 > descriptorLimit(codeLo, codeHi)) return core.gp(0);
  if (!markAccessed(core, selector, codeHi)) return core.status;
  const newCpl = call && !conforming ? dpl : cpl;
  core.nextRip(length);
  const ripLo = core.lo;
  const ripHi = core.hi;
  const stack = core.stack;
  const oldLo = i32[W_GPR + RSP * 2]!;
  const oldHi = i32[W_GPR + RSP * 2 + 1]!;
  if (call && newCpl < cpl) {
    const status = long
      ? callInnerLong(core, newCpl, oldLo, oldHi)
      : callInner(core, newCpl, hi & 0x1f, size, oldLo, ripLo);
    if (status !== STATUS_OK) return status;
    if (long && (!stack.push(8, core.selector(CS), 0) || !stack.push(8, ripLo, ripHi))) return core.status;
    if (long) core.setSegment(SS, newCpl, 0, 0, 0, newCpl << VMCB_ATTR_DPL_SHIFT);
    stack.commit();
  } else if (call && !pushReturn(core, size, length)) return core.status;
  cacheDescriptor(core, CS, (selector & ~3) | newCpl, codeLo, codeHi);
  i32[W_CPL] = newCpl;
  core.setRip(entry, entryHi);
  core.updateMode();
  return STATUS_RELOAD;
}

function callInnerLong(core: Core, cpl: number, oldLo: number, oldHi: number): number {
  const status = longStack(core, cpl);
  if (status !== STATUS_OK) return status;
  core.stack.flat(core.lo, core.hi, IMPLICIT);
  if (!core.stack.push(8, core.selector(SS), 0) || !core.stack.push(8, oldLo, oldHi)) return core.status;
  return STATUS_OK;
}

/** Switches to the stack of ring `cpl`, copying `count` parameters; everything is pushed here, SS is loaded. */
function callInner(core: Core, cpl: number, count: number, size: number, oldPointer: number, ip: number): number {
  const stack = core.stack;
  const parameters: number[] = [];
  stack.current(currentContext(core));
  for (let i = 0; i < count; i++) {
    if (!stack.pop(size)) return core.status;
    parameters.push(core.lo);
  }
  let status = innerStack(core, cpl);
  if (status !== STATUS_OK) return status;
  const pointer = core.lo;
  const selector = core.hi & 0xffff;
  status = checkStackSegment(core, selector, cpl, TS_VECTOR);
  if (status !== STATUS_OK) return status;
  const lo = core.lo;
  const hi = core.hi;
  useDescriptor(stack, lo, hi, IMPLICIT);
  stack.lo = pointer;
  stack.hi = 0;
  if (!stack.push(size, core.selector(SS), 0) || !stack.push(size, oldPointer, 0)) return core.status;
  for (let i = count - 1; i >= 0; i--) if (!stack.push(size, parameters[i]!, 0)) return core.status;
  if (!stack.push(size, core.selector(CS), 0) || !stack.push(size, ip, 0)) return core.status;
  cacheDescriptor(core, SS, selector, lo, hi);
  return STATUS_OK;
}

/** RETF with operand size `size`, releasing `release` bytes of parameters: a STATUS. */
export function farReturn(core: Core, size: number, release: number): number {
  const i32 = core.i32;
  const stack = core.stack;
  stack.current(currentContext(core));
  if (!stack.reachTop(size, 2)) return core.status;
  if (!stack.pop(size)) return core.status;
  const ripLo = core.lo;
  const ripHi = core.hi;
  if (!stack.pop(size)) return core.status;
  const selector = core.lo & 0xffff;
  if (core.realSegments()) {
    if (ripLo >>> 0 > i32[core.segment(CS) + 2]! >>> 0) return core.gp(0);
    stack.advance(release);
    stack.commit();
    return enterReal(core, selector, ripLo);
  }
  const cpl = core.cpl();
  let status = checkReturnCode(core, selector, cpl);
  if (status !== STATUS_OK) return status;
  const lo = core.lo;
  const hi = core.hi;
  const to64 = core.longMode() && (descriptorAttributes(hi) & VMCB_ATTR_L) !== 0;
  if (to64 ? !core.canonical(ripHi) : ripLo >>> 0 > descriptorLimit(lo, hi)) return core.gp(0);
  const newCpl = selector & 3;
  stack.advance(release);
  if (newCpl > cpl) {
    if (!stack.pop(size)) return core.status;
    const rspLo = core.lo;
    const rspHi = core.hi;
    if (!stack.pop(size)) return core.status;
    const stackSelector = core.lo & 0xffff;
    if ((stackSelector & 0xfffc) === 0 && to64 && newCpl < 3 && (stackSelector & 3) === newCpl) {
      core.setSegment(SS, stackSelector, 0, 0, 0, newCpl << VMCB_ATTR_DPL_SHIFT);
    } else {
      status = checkStackSegment(core, stackSelector, newCpl, GP_VECTOR);
      if (status !== STATUS_OK) return status;
      cacheDescriptor(core, SS, stackSelector, core.lo, core.hi);
    }
    setStackPointer(core, rspLo, rspHi, to64);
    core.stack.current(0);
    core.stack.advance(release);
    core.stack.commit();
  } else stack.commit();
  if (!markAccessed(core, selector, hi)) return core.status;
  cacheDescriptor(core, CS, selector, lo, hi);
  i32[W_CPL] = newCpl;
  core.setRip(ripLo, to64 ? ripHi : 0);
  if (newCpl > cpl) dropInnerSegments(core, newCpl);
  core.updateMode();
  return STATUS_RELOAD;
}
