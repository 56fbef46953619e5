/**
 * Delivery of an event through the interrupt table: real mode's vectors, 16- and 32-bit gates, and long mode (@sdm 6.10 to 6.14;
 * @apm 8.6 to 8.9). One attempt: a fault meanwhile is answered as a STATUS with FAULT_* or EXIT_* filled, and nothing but bytes below
 * the old stack pointer has changed.
 */
import { NP_VECTOR, TS_VECTOR } from '../../arch/exceptions.ts';
import {
  CS,
  RFLAGS_AC,
  RFLAGS_IF,
  RFLAGS_NT,
  RFLAGS_RF,
  RFLAGS_TF,
  RFLAGS_VM,
  RSP,
  SS,
  TR,
} from '../../arch/registers.ts';
import {
  descriptorAttributes,
  descriptorBase,
  descriptorLimit,
  isCode,
  SYSTEM_INTERRUPT_GATE,
  SYSTEM_INTERRUPT_GATE16,
  SYSTEM_TASK_GATE,
  SYSTEM_TRAP_GATE,
  SYSTEM_TRAP_GATE16,
  TYPE_DC,
} from '../../arch/segment.ts';
import {
  INTERCEPT_TASK_SWITCH,
  SVM_EXIT_TASK_SWITCH,
  VMCB_ATTR_DB,
  VMCB_ATTR_DPL_SHIFT,
  VMCB_ATTR_L,
  VMCB_ATTR_P,
} from '../../arch/vmcb.ts';
import { IDTR_BASE, IDTR_LIMIT, STATUS_OK } from '../state.ts';
import type { Core } from './core.ts';
import { IMPLICIT, read, readAt } from './linear-memory.ts';
import {
  cacheDescriptor,
  cacheReal,
  checkStackSegment,
  dplOf,
  fetchDescriptor,
  markAccessed,
  selectorError,
} from './segments.ts';
import type { Stack } from './stack.ts';
import { dropDataSegments, pushDataSegments } from './virtual-8086.ts';
import { W_CPL, W_GPR } from './words.ts';

/** An event on its way to the guest; one object per processor, filled in place. */
export class GuestEvent {
  vector = 0;
  /** INT n, INT3, INTO, or a software interrupt injected: privilege-checked against the gate, no EXT in error codes. */
  software = false;
  hasError = false;
  error = 0;
  /** An exception in EVENTINJ form, what the exit of a task gate reports; 0 for all else. */
  info = 0;
  /** Return address. */
  ripLo = 0;
  ripHi = 0;
  /** The pushed image has RF set: a fault, whose instruction runs again. */
  resumeFlag = false;
}

/** Error code of a fault on the interrupt table's entry (@sdm 6.13). */
function gateError(core: Core, event: GuestEvent, long: boolean): number {
  if (core.profile.idtErrorAsQemu) return event.vector * (long ? 16 : 8) + 2;
  return event.vector * 8 + 2 + (event.software ? 0 : 1);
}

/** Error code of a fault on a selector met during delivery. */
function externalError(core: Core, event: GuestEvent, selector: number): number {
  return selectorError(selector) | (event.software || core.profile.idtErrorAsQemu ? 0 : 1);
}

/** Delivers `event`: a STATUS. HOT */
export function deliver(core: Core, event: GuestEvent): number {
  if (core.longMode()) return deliverLong(core, event);
  if (core.protectedMode()) return deliverProtected(core, event);
  return deliverReal(core, event);
}

/** FLAGS, CS and IP go onto the stack; its pointer is not stored yet. */
function pushReal(core: Core, event: GuestEvent, flags: number): boolean {
  const stack = core.stack;
  stack.current(IMPLICIT);
  return stack.push(2, flags, 0) && stack.push(2, core.selector(CS), 0) && stack.push(2, event.ripLo, 0);
}

function deliverReal(core: Core, event: GuestEvent): number {
  const i32 = core.i32;
  const offset = event.vector * 4;
  if (offset + 3 > (i32[IDTR_LIMIT >> 2]! & 0xffff)) return core.gp(gateError(core, event, false));
  const flags = core.flags();
  if (core.profile.realModePushesFirst && !pushReal(core, event, flags)) return core.status;
  if (!readAt(core, i32[IDTR_BASE >> 2]!, 0, offset, 4, IMPLICIT)) return core.status;
  const ip = core.lo & 0xffff;
  const selector = core.lo >>> 16;
  if (!core.profile.realModePushesFirst && !pushReal(core, event, flags)) return core.status;
  core.stack.commit();
  core.code.writeRflags(flags & ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF));
  cacheReal(core, CS, selector);
  core.setRip(ip, 0);
  core.updateMode();
  return STATUS_OK;
}

/** Checks the gate with high word `high`: STATUS_OK, or the fault. */
function checkGate(core: Core, event: GuestEvent, high: number, long: boolean): number {
  const attributes = descriptorAttributes(high);
  const type = attributes & 0x1f;
  const wide = type === SYSTEM_INTERRUPT_GATE || type === SYSTEM_TRAP_GATE;
  const narrow =
    !long && (type === SYSTEM_INTERRUPT_GATE16 || type === SYSTEM_TRAP_GATE16 || type === SYSTEM_TASK_GATE);
  if (!wide && !narrow) return core.gp(gateError(core, event, long));
  if (event.software && dplOf(attributes) < core.cpl()) return core.gp(gateError(core, event, long));
  if ((attributes & VMCB_ATTR_P) === 0) return core.raiseError(NP_VECTOR, gateError(core, event, long));
  return STATUS_OK;
}

/** Checks the handler's code segment; its descriptor stays in `core.lo` and `core.hi`. */
function checkHandler(core: Core, event: GuestEvent, selector: number, long: boolean): number {
  if ((selector & 0xfffc) === 0) return core.gp(externalError(core, event, 0));
  if (!fetchDescriptor(core, selector)) return core.status;
  const attributes = descriptorAttributes(core.hi);
  const error = externalError(core, event, selector);
  if (!isCode(attributes) || dplOf(attributes) > core.cpl()) return core.gp(error);
  if ((attributes & VMCB_ATTR_P) === 0) return core.raiseError(NP_VECTOR, error);
  if (long && ((attributes & VMCB_ATTR_L) === 0 || (attributes & VMCB_ATTR_DB) !== 0)) return core.gp(error);
  return STATUS_OK;
}

function deliverProtected(core: Core, event: GuestEvent): number {
  const i32 = core.i32;
  const offset = event.vector * 8;
  if (offset + 7 > (i32[IDTR_LIMIT >> 2]! & 0xffff)) return core.gp(gateError(core, event, false));
  if (!readAt(core, i32[IDTR_BASE >> 2]!, 0, offset, 8, IMPLICIT)) return core.status;
  const gateLo = core.lo;
  const gateHi = core.hi;
  let status = checkGate(core, event, gateHi, false);
  if (status !== STATUS_OK) return status;
  const gateType = (gateHi >>> 8) & 0x1f;
  const selector = gateLo >>> 16;
  if (gateType === SYSTEM_TASK_GATE) return taskSwitch(core, event, selector);
  const size = gateType === SYSTEM_INTERRUPT_GATE || gateType === SYSTEM_TRAP_GATE ? 4 : 2;
  const entry = (gateLo & 0xffff) | (size === 4 ? gateHi & 0xffff0000 : 0);
  status = checkHandler(core, event, selector, false);
  if (status !== STATUS_OK) return status;
  const codeLo = core.lo;
  const codeHi = core.hi;
  const codeAttributes = descriptorAttributes(codeHi);
  if (!markAccessed(core, selector, codeHi)) return core.status;
  const cpl = core.cpl();
  const newCpl = (codeAttributes & TYPE_DC) !== 0 ? cpl : dplOf(codeAttributes);
  const flags = core.flags();
  const from8086 = (flags & RFLAGS_VM) !== 0;
  if (from8086 && newCpl !== 0) return core.gp(externalError(core, event, selector));
  const stack = core.stack;
  let stackSelector = 0;
  let stackLo = 0;
  let stackHi = 0;
  if (newCpl < cpl) {
    status = innerStack(core, newCpl);
    if (status !== STATUS_OK) return status;
    const pointer = core.lo;
    stackSelector = core.hi & 0xffff;
    status = checkStackSegment(core, stackSelector, newCpl, TS_VECTOR);
    if (status !== STATUS_OK) return status;
    stackLo = core.lo;
    stackHi = core.hi;
    const kept = core.segment(SS);
    const oldSs = i32[kept + 4]!;
    useDescriptor(stack, stackLo, stackHi, IMPLICIT);
    stack.lo = pointer;
    stack.hi = 0;
    if (from8086 && !pushDataSegments(core, stack, size)) return core.status;
    if (!stack.push(size, oldSs, 0) || !stack.push(size, i32[W_GPR + RSP * 2]!, 0)) return core.status;
  } else {
    stack.current(newCpl === 3 ? 1 : IMPLICIT);
  }
  const image = event.resumeFlag ? flags | RFLAGS_RF : flags;
  if (!stack.push(size, image, 0) || !stack.push(size, core.selector(CS), 0) || !stack.push(size, event.ripLo, 0)) {
    return core.status;
  }
  if (event.hasError && !stack.push(size, event.error, 0)) return core.status;
  if (newCpl < cpl) cacheDescriptor(core, SS, stackSelector, stackLo, stackHi);
  stack.commit();
  if (from8086) dropDataSegments(core);
  cacheDescriptor(core, CS, (selector & ~3) | newCpl, codeLo, codeHi);
  i32[W_CPL] = newCpl;
  const interruptGate = gateType === SYSTEM_INTERRUPT_GATE || gateType === SYSTEM_INTERRUPT_GATE16;
  enter(core, flags, interruptGate);
  core.setRip(entry, 0);
  return STATUS_OK;
}

/** Points `stack` at the segment that a descriptor describes. */
export function useDescriptor(stack: Stack, lo: number, hi: number, context: number): void {
  stack.use(descriptorBase(lo, hi), descriptorLimit(lo, hi), descriptorAttributes(hi), context);
}

/** Flags and mode of the handler. */
function enter(core: Core, flags: number, interruptGate: boolean): void {
  const cleared = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM | (interruptGate ? RFLAGS_IF : 0);
  core.code.writeRflags(flags & ~cleared);
  core.updateMode();
}

/** Reads SS:eSP of ring `ring` from the 16- or 32-bit TSS: pointer in `core.lo`, selector in `core.hi`. */
export function innerStack(core: Core, ring: number): number {
  const i32 = core.i32;
  const tr = core.segment(TR);
  const wide = (i32[tr + 3]! & 8) !== 0;
  const offset = wide ? ring * 8 + 4 : ring * 4 + 2;
  if (offset + (wide ? 7 : 3) > i32[tr + 2]! >>> 0) {
    return core.raiseError(TS_VECTOR, selectorError(i32[tr + 4]!));
  }
  if (!readAt(core, i32[tr]!, i32[tr + 1]!, offset, wide ? 8 : 4, IMPLICIT)) return core.status;
  if (!wide) {
    core.hi = core.lo >>> 16;
    core.lo &= 0xffff;
  }
  return STATUS_OK;
}

/** Reads RSPn (slot 0 to 2) or ISTn (slot 4 to 10) of the 64-bit TSS into `core.lo` and `core.hi`. */
export function longStack(core: Core, slot: number): number {
  const i32 = core.i32;
  const tr = core.segment(TR);
  const offset = slot * 8 + 4;
  if (offset + 7 > i32[tr + 2]! >>> 0) return core.raiseError(TS_VECTOR, selectorError(i32[tr + 4]!));
  if (!readAt(core, i32[tr]!, i32[tr + 1]!, offset, 8, IMPLICIT)) return core.status;
  return STATUS_OK;
}

function deliverLong(core: Core, event: GuestEvent): number {
  const i32 = core.i32;
  const offset = event.vector * 16;
  if (offset + 15 > (i32[IDTR_LIMIT >> 2]! & 0xffff)) return core.gp(gateError(core, event, true));
  const sum = (i32[IDTR_BASE >> 2]! >>> 0) + offset;
  const idtLo = sum | 0;
  const idtHi = (i32[(IDTR_BASE >> 2) + 1]! + (sum >= 0x1_0000_0000 ? 1 : 0)) | 0;
  if (!read(core, idtLo, idtHi, 8, IMPLICIT)) return core.status;
  const gateLo = core.lo;
  const gateHi = core.hi;
  if (!readAt(core, idtLo, idtHi, 8, 4, IMPLICIT)) return core.status;
  const entryHi = core.lo;
  let status = checkGate(core, event, gateHi, true);
  if (status !== STATUS_OK) return status;
  const selector = gateLo >>> 16;
  status = checkHandler(core, event, selector, true);
  if (status !== STATUS_OK) return status;
  const codeLo = core.lo;
  const codeHi = core.hi;
  const codeAttributes = descriptorAttributes(codeHi);
  if (!markAccessed(core, selector, codeHi)) return core.status;
  const cpl = core.cpl();
  const newCpl = (codeAttributes & TYPE_DC) !== 0 ? cpl : dplOf(codeAttributes);
  const ist = gateHi & 7;
  let rspLo = i32[W_GPR + RSP * 2]!;
  let rspHi = i32[W_GPR + RSP * 2 + 1]!;
  const oldLo = rspLo;
  const oldHi = core.mode64() ? rspHi : 0;
  if (ist !== 0 || newCpl < cpl) {
    status = longStack(core, ist !== 0 ? ist + 3 : newCpl);
    if (status !== STATUS_OK) return status;
    rspLo = core.lo;
    rspHi = core.hi;
  }
  const stack = core.stack;
  stack.flat(rspLo & ~15, rspHi, newCpl === 3 ? 1 : IMPLICIT);
  const flags = core.flags();
  const image = event.resumeFlag ? flags | RFLAGS_RF : flags;
  if (!pushFrame64(core, event, image, oldLo, oldHi)) return core.status;
  stack.commit();
  if (newCpl < cpl) core.setSegment(SS, newCpl, 0, 0, 0, newCpl << VMCB_ATTR_DPL_SHIFT);
  cacheDescriptor(core, CS, (selector & ~3) | newCpl, codeLo, codeHi);
  i32[W_CPL] = newCpl;
  enter(core, flags, ((gateHi >>> 8) & 0x1f) === SYSTEM_INTERRUPT_GATE);
  core.setRip((gateLo & 0xffff) | (gateHi & 0xffff0000), entryHi);
  return STATUS_OK;
}

/** Pushes SS:RSP, flags, CS:RIP and the error code; false with `core.status`. HOT */
function pushFrame64(core: Core, event: GuestEvent, image: number, oldLo: number, oldHi: number): boolean {
  const { stack, i32 } = core;
  const ss = core.selector(SS);
  const cs = core.selector(CS);
  let at = stack.room64(event.hasError ? 48 : 40);
  if (at === -1) {
    return (
      stack.push(8, ss, 0) &&
      stack.push(8, oldLo, oldHi) &&
      stack.push(8, image, 0) &&
      stack.push(8, cs, 0) &&
      stack.push(8, event.ripLo, event.ripHi) &&
      (!event.hasError || stack.push(8, event.error, 0))
    );
  }
  if (event.hasError) {
    i32[at] = event.error;
    i32[at + 1] = 0;
    at += 2;
  }
  i32[at] = event.ripLo;
  i32[at + 1] = event.ripHi;
  i32[at + 2] = cs;
  i32[at + 3] = 0;
  i32[at + 4] = image;
  i32[at + 5] = 0;
  i32[at + 6] = oldLo;
  i32[at + 7] = oldHi;
  i32[at + 8] = ss;
  i32[at + 9] = 0;
  return true;
}

/**
 * A task gate: hardware task switches exist as an intercept only (KVM emulates them); without it the gate is refused with #GP.
 * @apm 15.14.1
 */
function taskSwitch(core: Core, event: GuestEvent, selector: number): number {
  if ((core.intercept3 & INTERCEPT_TASK_SWITCH) === 0) return core.gp(externalError(core, event, selector));
  const hasError = event.hasError ? 1 << 12 : 0;
  // The gate is that of the last exception, whatever was under way when it came: what KVM goes by when it steps over INT n or not.
  if (event.info !== 0) {
    core.event = event.info;
    core.eventError = event.hasError ? event.error : 0;
  }
  return core.exit(SVM_EXIT_TASK_SWITCH, selector, 0, event.error, hasError);
}
