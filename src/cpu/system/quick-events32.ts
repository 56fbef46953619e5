/** The same as quick-events.ts for 32-bit supervisor code whose segments are open: gates and returns without a change of privilege. HOT */
import { CR0_PE, CS, RFLAGS_AC, RFLAGS_NT, RFLAGS_RF, RFLAGS_VM, RSP, SS } from '../../arch/registers.ts';
import { VMCB_ATTR_DB, VMCB_ATTR_P } from '../../arch/vmcb.ts';
import { RECORD_OPSIZE } from '../decode/record.ts';
import type { SharedFunctions } from '../semantics/shared-functions.ts';
import { setState64, state32 } from '../semantics/state-access.ts';
import {
  CPL_AT,
  CR0_AT,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  GPR,
  QUICK_AT,
  QUICK_IRET,
  RFLAGS_AT,
  RIP_AT,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SELECTOR,
  STATUS_RELOAD,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
} from '../state.ts';
import { type I32, i32, i64, T_I32 } from '../wasm/code.ts';
import { call, type FunctionRef, type Local64 } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import {
  and,
  beginHandler,
  bits,
  c,
  cache,
  DPL,
  type Fail,
  field,
  flagsOf,
  isCode,
  noteResumeFlag,
  POPPED,
  type Tables,
  TYPE,
  usual,
  writeFlags,
  ZERO,
} from './quick-tables.ts';

/** Supervisor code with a stack of all 4 GiB. */
function usualStack(fail: Fail): void {
  usual(32, fail);
  fail(i32.or(i32.eqz(and(state32(CR0_AT), CR0_PE)), state32(CPL_AT)));
  const open = VMCB_ATTR_P | VMCB_ATTR_DB;
  fail(i32.ne(and(state32(field(SS, SEG_ATTR)), open | 0x1c), c(open | 0x10)));
  fail(i32.or(state32(field(SS, SEG_BASE)), i32.ne(state32(field(SS, SEG_LIMIT)), c(-1))));
}
/** Of privilege 0 and all of 4 GiB. */
function isOpen(code: Local64, fail: Fail): void {
  isCode(code, 32, fail);
  fail(bits(code.get, DPL, 3));
  fail(i32.or(i32.ne(bits(code.get, 0, 0xffff), c(0xffff)), i32.ne(bits(code.get, 48, 0x8f), c(0x8f))));
}

/** (vector) -> whether the exception in FAULT_* has been delivered */
export function defineDeliver32(m: ModuleBuilder, s: SharedFunctions, t: Tables): FunctionRef {
  return m.function([T_I32], [T_I32], (f) => {
    const vector = f.param32(0).get;
    const fail: Fail = (bad) => f.if(bad, () => f.return(ZERO));
    usualStack(fail);
    const gate = f.i64(i64.load(t.gate(f, vector, 8, fail).get));
    const selector = f.i32(bits(gate.get, 16, 0xffff));
    const code = t.descriptor(f, selector.get, fail);
    isOpen(code, fail);
    const hasError = f.i32(i32.ne(state32(FAULT_HAS_ERROR), ZERO));
    const esp = f.i32(i32.sub(state32(GPR + RSP * 8), i32.select(hasError.get, c(16), c(12))));
    fail(i32.gtU(esp.get, c(-17)));
    const top = t.at(f, i64.extendU(esp.get), 16, TLB_WRITE_TAG, fail);

    // From here on everything succeeds.
    const flags = f.i32(flagsOf(s));
    f.if(hasError.get, () => {
      f.do(i32.store(top.get, 0, state32(FAULT_ERROR)), top.set(i32.add(top.get, c(4))));
    });
    f.do(
      i32.store(top.get, 0, state32(RIP_AT)),
      i32.store(top.get, 4, state32(field(CS, SEG_SELECTOR))),
      i32.store(top.get, 8, i32.or(flags.get, c(RFLAGS_RF))),
      setState64(GPR + RSP * 8, i64.extendU(esp.get)),
    );
    cache(f, CS, and(selector.get, ~3), code);
    const low = i64.and(gate.get, i64.const(0xffff));
    const entry = i64.or(low, i64.and(i64.shrU(gate.get, i64.const(32)), i64.const(0xffff0000)));
    beginHandler(f, flags, bits(gate.get, TYPE, 1), vector, entry);
    f.do(c(1));
  });
}

/** (record) -> status: IRET */
export function defineIret32(m: ModuleBuilder, s: SharedFunctions, t: Tables): FunctionRef {
  return m.function([T_I32], [T_I32], (f) => {
    const record = f.param32(0).get;
    const fail: Fail = (bad: I32) => f.if(bad, () => f.return(call(s.system, record)));
    fail(i32.eqz(and(state32(QUICK_AT), QUICK_IRET)));
    fail(i32.ne(i32.load8U(record, RECORD_OPSIZE), c(4)));
    usualStack(fail);
    fail(and(state32(RFLAGS_AT), RFLAGS_NT));
    const esp = f.i32(state32(GPR + RSP * 8));
    const top = t.at(f, i64.extendU(esp.get), 12, TLB_READ_TAG, fail);
    const selector = f.i32(i32.load16U(top.get, 4));
    const image = f.i32(i32.load(top.get, 8));
    fail(i32.or(and(selector.get, 3), and(image.get, RFLAGS_AC | RFLAGS_VM)));
    const code = t.descriptor(f, selector.get, fail);
    isOpen(code, fail);

    // From here on everything succeeds.
    const rip = f.i64(i64.load32U(top.get));
    noteResumeFlag(f, s, record, image.get, rip.get);
    f.do(setState64(GPR + RSP * 8, i64.extendU(i32.add(esp.get, c(12)))), setState64(RIP_AT, rip.get));
    cache(f, CS, selector.get, code);
    writeFlags(f, f.i32(i32.or(and(state32(RFLAGS_AT), ~POPPED), and(image.get, POPPED))).get);
    f.do(c(STATUS_RELOAD));
  });
}
