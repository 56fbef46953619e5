/** IRET in every mode (@sdm 6.12, 6.14.3; @apm 8.9.3), and what a popped flags image may change. */
import { NP_VECTOR } from '../../arch/exceptions.ts';
import {
  CS,
  EFER_LMA,
  RFLAGS_AC,
  RFLAGS_CF,
  RFLAGS_DF,
  RFLAGS_ID,
  RFLAGS_IF,
  RFLAGS_IOPL,
  RFLAGS_IOPL_SHIFT,
  RFLAGS_NT,
  RFLAGS_OF,
  RFLAGS_PF,
  RFLAGS_RF,
  RFLAGS_SF,
  RFLAGS_TF,
  RFLAGS_VIF,
  RFLAGS_VIP,
  RFLAGS_VM,
  RFLAGS_ZF,
  RSP,
  SS,
  TR,
} from '../../arch/registers.ts';
import { descriptorAttributes, descriptorLimit, isCode, TYPE_DC } from '../../arch/segment.ts';
import {
  INTERCEPT_IRET,
  INTERCEPT_TASK_SWITCH,
  SVM_EXIT_IRET,
  SVM_EXIT_TASK_SWITCH,
  VMCB_ATTR_DB,
  VMCB_ATTR_DPL_SHIFT,
  VMCB_ATTR_L,
  VMCB_ATTR_P,
} from '../../arch/vmcb.ts';
import { INSNS_AT, RF_RIP_AT, RF_SINCE_AT, STATUS_EXCEPTION, STATUS_EXIT, STATUS_OK, STATUS_RELOAD } from '../state.ts';
import type { Core } from './core.ts';
import { currentContext, readAt } from './linear-memory.ts';
import {
  cacheDescriptor,
  cacheReal,
  checkStackSegment,
  dplOf,
  dropInnerSegments,
  fetchDescriptor,
  markAccessed,
  selectorError,
} from './segments.ts';
import { enterVirtual8086, flagsForbidden, iopl, popVirtualIf, virtualFlagsRefused } from './virtual-8086.ts';
import { W_CPL, W_EFER, W_GPR } from './words.ts';

const ARITHMETIC = RFLAGS_CF | RFLAGS_PF | (1 << 4) | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;
/** What any POPF or IRET may change. */
const ALWAYS = ARITHMETIC | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | RFLAGS_ID;

/** Bits of RFLAGS that a popped image may change at privilege `cpl` with `iopl`. */
function changeableFlags(cpl: number, iopl: number): number {
  return ALWAYS | (cpl === 0 ? RFLAGS_IOPL : 0) | (cpl <= iopl ? RFLAGS_IF : 0);
}

/** Puts a popped image of `size` bytes into RFLAGS as privilege `cpl` may; `extra` bits go in too. */
export function popFlags(core: Core, image: number, size: number, cpl: number, extra: number): void {
  const old = core.flags();
  const iopl = (old & RFLAGS_IOPL) >>> RFLAGS_IOPL_SHIFT;
  let mask = changeableFlags(cpl, iopl) | extra;
  if (size === 2) mask &= 0xffff;
  core.code.writeRflags((old & ~mask) | (image & mask));
  core.updateMmuIndex();
}

/** IRET with operand size `size`: a STATUS. NMIs are let in again, even when it faults (@sdm 6.7.1). */
export function iret(core: Core, size: number): number {
  if ((core.intercept3 & INTERCEPT_IRET) !== 0) return core.exit(SVM_EXIT_IRET);
  const status = iretInMode(core, size);
  if (status === STATUS_EXCEPTION && core.nmiBlocked) core.unblockingFault = core.i32[INSNS_AT >> 2]!;
  if (status !== STATUS_EXIT) core.nmiBlocked = false;
  return status;
}

function iretInMode(core: Core, size: number): number {
  if (!core.protectedMode()) return iretReal(core, size);
  const flags = core.flags();
  const long = core.longMode();
  if ((flags & RFLAGS_VM) !== 0) return flagsForbidden(core, size) ? core.gp(0) : iretReal(core, size);
  if ((flags & RFLAGS_NT) !== 0) return long ? core.gp(0) : returnTask(core);
  return iretProtected(core, size, long);
}

function iretReal(core: Core, size: number): number {
  const stack = core.stack;
  stack.current(currentContext(core));
  if (!stack.pop(size)) return core.status;
  const ip = core.lo;
  if (!stack.pop(size)) return core.status;
  const selector = core.lo & 0xffff;
  if (!stack.pop(size)) return core.status;
  const image = core.lo;
  if (ip >>> 0 > core.i32[core.segment(CS) + 2]! >>> 0) return core.gp(0);
  const virtual = core.virtual8086() && iopl(core) !== 3;
  if (virtual && virtualFlagsRefused(core, image)) return core.gp(0);
  stack.commit();
  cacheReal(core, CS, selector);
  core.setRip(ip, 0);
  popFlags(core, image, size, core.virtual8086() ? 3 : 0, RFLAGS_RF);
  if (virtual) popVirtualIf(core, image);
  return STATUS_RELOAD;
}

/** NT is set: IRET returns to the task that the TSS links to; an intercept, or #GP where there is none. */
function returnTask(core: Core): number {
  if ((core.intercept3 & INTERCEPT_TASK_SWITCH) === 0) return core.gp(0);
  const tr = core.segment(TR);
  if (!readAt(core, core.i32[tr]!, core.i32[tr + 1]!, 0, 2, 0)) return core.status;
  return core.exit(SVM_EXIT_TASK_SWITCH, core.lo, 0, 0, 1 << 4);
}

function iretProtected(core: Core, size: number, long: boolean): number {
  const i32 = core.i32;
  const stack = core.stack;
  const from64 = core.mode64();
  stack.current(currentContext(core));
  let ripLo: number;
  let ripHi: number;
  let selector: number;
  let image: number;
  const frame = from64 && size === 8 ? stack.take64(40) : -1;
  if (frame !== -1) {
    ripLo = i32[frame]!;
    ripHi = i32[frame + 1]!;
    selector = i32[frame + 2]! & 0xffff;
    image = i32[frame + 4]!;
  } else {
    if (!stack.reachTop(size, 3)) return core.status;
    if (!stack.pop(size)) return core.status;
    ripLo = core.lo;
    ripHi = core.hi;
    if (!stack.pop(size)) return core.status;
    selector = core.lo & 0xffff;
    if (!stack.pop(size)) return core.status;
    image = core.lo;
  }
  const cpl = core.cpl();
  if (!long && size === 4 && cpl === 0 && (image & RFLAGS_VM) !== 0) {
    return enterVirtual8086(core, stack, ripLo, selector, image);
  }
  const newCpl = selector & 3;
  const outer = newCpl > cpl;
  let rspLo = 0;
  let rspHi = 0;
  let stackSelector = 0;
  if (frame !== -1) {
    rspLo = i32[frame + 6]!;
    rspHi = i32[frame + 7]!;
    stackSelector = i32[frame + 8]! & 0xffff;
  } else if (outer || from64) {
    if (!stack.pop(size)) return core.status;
    rspLo = core.lo;
    rspHi = core.hi;
    if (!stack.pop(size)) return core.status;
    stackSelector = core.lo & 0xffff;
  }
  let status = checkReturnCode(core, selector, cpl);
  if (status !== STATUS_OK) return status;
  const codeLo = core.lo;
  const codeHi = core.hi;
  const attributes = descriptorAttributes(codeHi);
  const to64 = long && (attributes & VMCB_ATTR_L) !== 0;
  if (to64 ? !core.canonical(ripHi) : ripLo >>> 0 > descriptorLimit(codeLo, codeHi)) return core.gp(0);
  let nullStack = false;
  let stackLo = 0;
  let stackHi = 0;
  if (outer || from64) {
    if ((stackSelector & 0xfffc) === 0) {
      if (!to64 || newCpl === 3 || (stackSelector & 3) !== newCpl) return core.gp(0);
      nullStack = true;
    } else {
      status = checkStackSegment(core, stackSelector, newCpl, 13);
      if (status !== STATUS_OK) return status;
      stackLo = core.lo;
      stackHi = core.hi;
    }
  }
  if (!markAccessed(core, selector, codeHi)) return core.status;
  const oldCpl = cpl;
  cacheDescriptor(core, CS, selector, codeLo, codeHi);
  core.setRip(ripLo, to64 ? ripHi : 0);
  if (outer || from64) {
    if (nullStack) core.setSegment(SS, stackSelector, 0, 0, 0, newCpl << VMCB_ATTR_DPL_SHIFT);
    else cacheDescriptor(core, SS, stackSelector, stackLo, stackHi);
    setStackPointer(core, rspLo, rspHi, to64);
  } else stack.commit();
  i32[W_CPL] = newCpl;
  if (outer) dropInnerSegments(core, newCpl);
  const extra = RFLAGS_RF | (oldCpl === 0 && size !== 2 ? RFLAGS_VIF | RFLAGS_VIP : 0);
  popFlags(core, image, size, oldCpl, extra);
  if ((image & RFLAGS_RF) !== 0 && size !== 2) {
    i32[RF_RIP_AT >> 2] = ripLo;
    i32[(RF_RIP_AT >> 2) + 1] = ripHi;
    i32[RF_SINCE_AT >> 2] = i32[INSNS_AT >> 2]!;
  }
  core.updateMode();
  return STATUS_RELOAD;
}

/** Stores a popped stack pointer: whole, 32 or 16 bits, as the new stack segment says. */
export function setStackPointer(core: Core, lo: number, hi: number, to64: boolean): void {
  const i32 = core.i32;
  const at = W_GPR + RSP * 2;
  if (to64 || (i32[W_EFER]! & EFER_LMA) !== 0) {
    i32[at] = lo;
    i32[at + 1] = hi;
  } else if ((core.attributes(SS) & VMCB_ATTR_DB) !== 0) {
    i32[at] = lo;
    i32[at + 1] = 0;
  } else i32[at] = (i32[at]! & ~0xffff) | (lo & 0xffff);
}

/** Checks the code selector of a far return or IRET from privilege `cpl`; its descriptor stays in `core.lo` and `core.hi`. */
export function checkReturnCode(core: Core, selector: number, cpl: number): number {
  if ((selector & 0xfffc) === 0) return core.gp(0);
  if (!fetchDescriptor(core, selector)) return core.status;
  const attributes = descriptorAttributes(core.hi);
  const rpl = selector & 3;
  const dpl = dplOf(attributes);
  const conforming = (attributes & TYPE_DC) !== 0;
  if (!isCode(attributes) || rpl < cpl || (conforming ? dpl > rpl : dpl !== rpl)) {
    return core.gp(selectorError(selector));
  }
  if ((attributes & VMCB_ATTR_P) === 0) return core.raiseError(NP_VECTOR, selectorError(selector));
  const both = VMCB_ATTR_L | VMCB_ATTR_DB;
  if (core.longMode() && (attributes & both) === both) return core.gp(selectorError(selector));
  return STATUS_OK;
}
