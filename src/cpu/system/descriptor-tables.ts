/** LGDT and its kin, LLDT, LTR, and the instructions that ask about selectors (@sdm 2.4, 5.10; @apm 4.6, 15.9). */
import { NP_VECTOR } from '../../arch/exceptions.ts';
import { CR4_UMIP, LDTR, RFLAGS_ZF, TR } from '../../arch/registers.ts';
import {
  descriptorAttributes,
  descriptorBase,
  descriptorLimit,
  SELECTOR_TI,
  SYSTEM_CALL_GATE,
  SYSTEM_CALL_GATE16,
  SYSTEM_LDT,
  SYSTEM_TASK_GATE,
  SYSTEM_TSS,
  SYSTEM_TSS_BUSY,
  SYSTEM_TSS16,
  SYSTEM_TSS16_BUSY,
  TYPE_CODE,
  TYPE_DC,
  TYPE_RW,
} from '../../arch/segment.ts';
import {
  INTERCEPT_LOAD_GDTR,
  INTERCEPT_LOAD_IDTR,
  INTERCEPT_LOAD_LDTR,
  INTERCEPT_LOAD_TR,
  INTERCEPT_STORE_GDTR,
  INTERCEPT_STORE_IDTR,
  INTERCEPT_STORE_LDTR,
  INTERCEPT_STORE_TR,
  SVM_EXIT_GDTR_READ,
  SVM_EXIT_GDTR_WRITE,
  SVM_EXIT_IDTR_READ,
  SVM_EXIT_IDTR_WRITE,
  SVM_EXIT_LDTR_READ,
  SVM_EXIT_LDTR_WRITE,
  SVM_EXIT_TR_READ,
  SVM_EXIT_TR_WRITE,
  VMCB_ATTR_P,
  VMCB_ATTR_S,
} from '../../arch/vmcb.ts';
import { recordIsMemory, recordReg } from '../decode/record.ts';
import { ACCESS_RMW, GDTR_BASE, GDTR_LIMIT, IDTR_BASE, IDTR_LIMIT, STATUS_OK } from '../state.ts';
import type { Core } from './core.ts';
import { currentContext, readAt, writeAt } from './linear-memory.ts';
import { gprLo, operandAddress, readRm, setGpr, writeRm } from './operands.ts';
import {
  cacheNull,
  dplOf,
  fetchDescriptor,
  fetchDescriptorHigh,
  selectorError,
  storeDescriptorType,
} from './segments.ts';
import { translate } from './translation.ts';
import { W_CR4 } from './words.ts';

/** LGDT (`interrupts` false) or LIDT with operand size `size`. */
export function loadTable(core: Core, record: number, interrupts: boolean, size: number): number {
  if (core.cpl() !== 0) return core.gp(0);
  const intercept = interrupts ? INTERCEPT_LOAD_IDTR : INTERCEPT_LOAD_GDTR;
  if ((core.intercept3 & intercept) !== 0) return core.exit(interrupts ? SVM_EXIT_IDTR_WRITE : SVM_EXIT_GDTR_WRITE);
  const wide = core.mode64();
  if (!operandAddress(core, record, wide ? 10 : 6, false)) return core.status;
  const addressLo = core.addressLo;
  const addressHi = core.addressHi;
  const context = currentContext(core);
  const first = core.profile.readsHighWordFirst;
  if (first && !readAt(core, addressLo, addressHi, 2, wide ? 8 : 4, context)) return core.status;
  if (!readAt(core, addressLo, addressHi, 0, 2, context)) return core.status;
  const limit = core.lo;
  if (!readAt(core, addressLo, addressHi, 2, wide ? 8 : 4, context)) return core.status;
  if (wide && !core.canonicalBase(core.hi)) return core.gp(0);
  const i32 = core.i32;
  const base = (interrupts ? IDTR_BASE : GDTR_BASE) >> 2;
  i32[base] = !wide && size === 2 ? core.lo & 0xffffff : core.lo;
  i32[base + 1] = wide ? core.hi : 0;
  i32[(interrupts ? IDTR_LIMIT : GDTR_LIMIT) >> 2] = limit;
  return STATUS_OK;
}

/** SGDT (`interrupts` false) or SIDT. */
export function storeTable(core: Core, record: number, interrupts: boolean): number {
  if (core.cpl() !== 0 && (core.i32[W_CR4]! & CR4_UMIP) !== 0) return core.gp(0);
  const intercept = interrupts ? INTERCEPT_STORE_IDTR : INTERCEPT_STORE_GDTR;
  if ((core.intercept3 & intercept) !== 0) return core.exit(interrupts ? SVM_EXIT_IDTR_READ : SVM_EXIT_GDTR_READ);
  const wide = core.mode64();
  if (!operandAddress(core, record, wide ? 10 : 6, true)) return core.status;
  const i32 = core.i32;
  const lo = core.addressLo;
  const hi = core.addressHi;
  const context = currentContext(core);
  const base = (interrupts ? IDTR_BASE : GDTR_BASE) >> 2;
  const limit = i32[(interrupts ? IDTR_LIMIT : GDTR_LIMIT) >> 2]!;
  if (!writeAt(core, lo, hi, 0, 2, limit, 0, context)) return core.status;
  if (!writeAt(core, lo, hi, 2, wide ? 8 : 4, i32[base]!, i32[base + 1]!, context)) return core.status;
  return STATUS_OK;
}

/** Where LDTR and TR instructions exist at all: not in real or virtual-8086 mode. */
function protectedOnly(core: Core): boolean {
  return !core.realSegments();
}

/** LLDT (`task` false) or LTR. */
export function loadSystemSegment(core: Core, record: number, task: boolean): number {
  if (!protectedOnly(core)) return core.ud();
  if (core.cpl() !== 0) return core.gp(0);
  const intercept = task ? INTERCEPT_LOAD_TR : INTERCEPT_LOAD_LDTR;
  if ((core.intercept3 & intercept) !== 0) return core.exit(task ? SVM_EXIT_TR_WRITE : SVM_EXIT_LDTR_WRITE);
  if (!readRm(core, record, 2)) return core.status;
  const selector = core.lo & 0xffff;
  if ((selector & 0xfffc) === 0) {
    if (task) return core.gp(0);
    cacheNull(core, LDTR, selector);
    return STATUS_OK;
  }
  const error = selectorError(selector);
  if ((selector & SELECTOR_TI) !== 0) return core.gp(error);
  if (!fetchDescriptor(core, selector)) return core.status;
  const lo = core.lo;
  const hi = core.hi;
  const attributes = descriptorAttributes(hi);
  const type = attributes & 0x1f;
  const long = core.longMode();
  const good = task ? type === SYSTEM_TSS || (!long && type === SYSTEM_TSS16) : type === SYSTEM_LDT;
  if (!good) return core.gp(error);
  if ((attributes & VMCB_ATTR_P) === 0) return core.raiseError(NP_VECTOR, error);
  let baseHi = 0;
  if (long) {
    if (!fetchDescriptorHigh(core, selector)) return core.status;
    baseHi = core.lo;
    if (!core.canonicalBase(baseHi)) return core.gp(error);
  }
  if (task && !storeDescriptorType(core, selector, hi | 0x200)) return core.status;
  const n = task ? TR : LDTR;
  const busy = task ? 2 : 0;
  core.setSegment(n, selector, descriptorBase(lo, hi), baseHi, descriptorLimit(lo, hi), attributes | busy);
  return STATUS_OK;
}

/** SLDT (`task` false) or STR; `size` is that of a register destination. */
export function storeSystemSegment(core: Core, record: number, task: boolean, size: number): number {
  if (!protectedOnly(core)) return core.ud();
  if (core.cpl() !== 0 && (core.i32[W_CR4]! & CR4_UMIP) !== 0) return core.gp(0);
  const intercept = task ? INTERCEPT_STORE_TR : INTERCEPT_STORE_LDTR;
  if ((core.intercept3 & intercept) !== 0) return core.exit(task ? SVM_EXIT_TR_READ : SVM_EXIT_LDTR_READ);
  return writeRm(core, record, 2, size, core.selector(task ? TR : LDTR), 0) ? STATUS_OK : core.status;
}

function setZf(core: Core, on: boolean): number {
  const flags = core.flags();
  core.code.writeRflags(on ? flags | RFLAGS_ZF : flags & ~RFLAGS_ZF);
  return STATUS_OK;
}

/**
 * Reads the descriptor of `selector` without faulting on a bad selector: 1 found, 0 no such descriptor, -1 a fault of the access.
 */
function probe(core: Core, selector: number): number {
  if ((selector & 0xfffc) === 0) return 0;
  const table = (selector & SELECTOR_TI) !== 0 ? core.segment(LDTR) : -1;
  const limit = table === -1 ? core.i32[GDTR_LIMIT >> 2]! & 0xffff : core.i32[table + 2]! >>> 0;
  if ((selector & 0xfff8) + 7 > limit) return 0;
  return fetchDescriptor(core, selector) ? 1 : -1;
}

/** True when the privilege rules let the program ask about the segment; conforming code is open to all. */
function visible(core: Core, selector: number, attributes: number): boolean {
  const conforming = (attributes & (VMCB_ATTR_S | TYPE_CODE | TYPE_DC)) === (VMCB_ATTR_S | TYPE_CODE | TYPE_DC);
  const dpl = dplOf(attributes);
  return conforming || (dpl >= core.cpl() && dpl >= (selector & 3));
}

/** VERR (`forWrite` false) or VERW. */
export function verify(core: Core, record: number, forWrite: boolean): number {
  if (!protectedOnly(core)) return core.ud();
  if (!readRm(core, record, 2)) return core.status;
  const selector = core.lo & 0xffff;
  const found = probe(core, selector);
  if (found < 0) return core.status;
  if (found === 0) return setZf(core, false);
  const attributes = descriptorAttributes(core.hi);
  const code = (attributes & TYPE_CODE) !== 0;
  const rw = (attributes & TYPE_RW) !== 0;
  const ok = (attributes & VMCB_ATTR_S) !== 0 && (forWrite ? !code && rw : !code || rw);
  return setZf(core, ok && visible(core, selector, attributes));
}

/** LAR (`limit` false) or LSL into the reg operand of `size` bytes. */
export function askSelector(core: Core, record: number, limit: boolean, size: number): number {
  if (!protectedOnly(core)) return core.ud();
  if (!readRm(core, record, 2)) return core.status;
  const selector = core.lo & 0xffff;
  const found = probe(core, selector);
  if (found < 0) return core.status;
  if (found === 0) return setZf(core, false);
  const attributes = descriptorAttributes(core.hi);
  const type = attributes & 0xf;
  const system = (attributes & VMCB_ATTR_S) === 0;
  const long = core.longMode();
  const tss = type === SYSTEM_TSS || type === SYSTEM_TSS_BUSY;
  const tss16 = !long && (type === SYSTEM_TSS16 || type === SYSTEM_TSS16_BUSY);
  const gate = type === SYSTEM_CALL_GATE || (!long && (type === SYSTEM_CALL_GATE16 || type === SYSTEM_TASK_GATE));
  const known = !system || tss || tss16 || type === SYSTEM_LDT || (!limit && gate);
  if (!known || !visible(core, selector, attributes)) return setZf(core, false);
  const value = limit ? descriptorLimit(core.lo, core.hi) | 0 : core.hi & 0x00ffff00;
  setGpr(core, recordReg(core.u8, record), size, value, 0);
  return setZf(core, true);
}

/** Read-modify-write: the operand must be writable before it is read, but where the processor finds out as it goes. */
function reachForWriting(core: Core, record: number): boolean {
  if (core.profile.rmwFaultsAsRead || !recordIsMemory(core.u8, record)) return true;
  if (!operandAddress(core, record, 2, true)) return false;
  return translate(core, core.addressLo, core.addressHi, ACCESS_RMW, currentContext(core)) !== -1;
}

/** ARPL: raises the RPL of rm to that of reg. */
export function arpl(core: Core, record: number): number {
  if (!protectedOnly(core)) return core.ud();
  if (!reachForWriting(core, record) || !readRm(core, record, 2)) return core.status;
  const selector = core.lo & 0xffff;
  const rpl = gprLo(core, recordReg(core.u8, record)) & 3;
  if ((selector & 3) >= rpl) return setZf(core, false);
  if (!writeRm(core, record, 2, 2, (selector & ~3) | rpl, 0)) return core.status;
  return setZf(core, true);
}
