import { CS, DS, ES, FS, GS, RFLAGS_AC, RFLAGS_NT, RFLAGS_RF, RSP, SS, TR } from '../../arch/registers.ts';
import { VMCB_ATTR_DPL_SHIFT, VMCB_ATTR_P } from '../../arch/vmcb.ts';
import { RECORD_OPSIZE } from '../decode/record.ts';
import type { SharedFunctions } from '../semantics/shared-functions.ts';
import { setState32, setState64, state32, state64 } from '../semantics/state-access.ts';
import {
  CODE_MODE_AT,
  CPL_AT,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  GPR,
  MMU_INDEX_AT,
  QUICK_AT,
  QUICK_EXCEPTIONS_AT,
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
import { call, type FunctionRef } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { defineDeliver32, defineIret32 } from './quick-events32.ts';
import {
  and,
  beginHandler,
  bits,
  c,
  cache,
  DPL,
  field,
  flagsOf,
  isCode,
  noteResumeFlag,
  POPPED,
  STACK_DECIDES,
  STACK_KIND,
  Tables,
  TYPE,
  usual,
  writeFlags,
  ZERO,
} from './quick-tables.ts';

export interface EventFunctions {
  /** () -> whether the exception in FAULT_* has been delivered; INSNS_AT is up to date. */
  readonly deliver: FunctionRef;
  /** (record) -> status: IRET */
  readonly iret: FunctionRef;
}

/** Adds the functions. */
export function defineEventFunctions(m: ModuleBuilder, s: SharedFunctions): EventFunctions {
  const t = new Tables(m);
  const deliver32 = defineDeliver32(m, s, t);
  const iret32 = defineIret32(m, s, t);

  const deliver = m.function([], [T_I32], (f) => {
    const fail = (bad: I32): void => f.if(bad, () => f.return(ZERO));
    const vector = f.i32(state32(FAULT_VECTOR));
    fail(i32.gtU(vector.get, c(31)));
    fail(i32.eqz(i32.and(i32.shrU(state32(QUICK_EXCEPTIONS_AT), vector.get), c(1))));
    f.if(i32.eq(state32(CODE_MODE_AT), c(1)), () => f.return(call(deliver32, vector.get)));
    usual(64, fail);

    const gate = t.gate(f, vector.get, 16, fail);
    const low = f.i64(i64.load(gate.get));
    const selector = f.i32(bits(low.get, 16, 0xffff));
    const code = t.descriptor(f, selector.get, fail);
    isCode(code, 64, fail);
    fail(bits(code.get, DPL, 3));

    const cpl = f.i32(state32(CPL_AT));
    const rsp = f.i64(state64(GPR + RSP * 8));
    const ist = f.i32(bits(low.get, 32, 7));
    f.if(i32.or(ist.get, cpl.get), () => {
      const slot = i32.select(ist.get, i32.add(i32.shl(i32.add(ist.get, c(3)), c(3)), c(4)), c(4));
      const from = f.i32(slot);
      fail(i32.gtU(i32.add(from.get, c(7)), state32(field(TR, SEG_LIMIT))));
      const linear = i64.add(state64(field(TR, SEG_BASE)), i64.extendU(from.get));
      f.do(rsp.set(i64.load(t.at(f, linear, 8, TLB_READ_TAG, fail).get)));
    });
    const hasError = f.i32(i32.ne(state32(FAULT_HAS_ERROR), ZERO));
    const size = i64.select(hasError.get, i64.const(48), i64.const(40));
    f.do(rsp.set(i64.sub(i64.and(rsp.get, i64.const(-16)), size)));
    const top = t.at(f, rsp.get, 48, TLB_WRITE_TAG, fail);

    // From here on everything succeeds.
    const flags = f.i32(flagsOf(s));
    f.if(hasError.get, () => {
      f.do(i64.store(top.get, 0, i64.extendU(state32(FAULT_ERROR))));
      f.do(top.set(i32.add(top.get, c(8))));
    });
    f.do(
      i64.store(top.get, 0, state64(RIP_AT)),
      i64.store(top.get, 8, i64.extendU(state32(field(CS, SEG_SELECTOR)))),
      i64.store(top.get, 16, i64.extendU(i32.or(flags.get, c(RFLAGS_RF)))),
      i64.store(top.get, 24, state64(GPR + RSP * 8)),
      i64.store(top.get, 32, i64.extendU(state32(field(SS, SEG_SELECTOR)))),
      setState64(GPR + RSP * 8, rsp.get),
    );
    f.if(cpl.get, () => {
      f.do(setState64(field(SS, SEG_BASE), i64.const(0)), setState64(field(SS, SEG_LIMIT), i64.const(0)));
      f.do(setState32(field(SS, SEG_SELECTOR), ZERO), setState32(CPL_AT, ZERO));
    });
    cache(f, CS, and(selector.get, ~3), code);
    const entry = i64.or(
      i64.or(i64.and(low.get, i64.const(0xffff)), i64.and(i64.shrU(low.get, i64.const(32)), i64.const(0xffff0000))),
      i64.shl(i64.load(gate.get, 8), i64.const(32)),
    );
    beginHandler(f, flags, bits(low.get, TYPE, 1), vector.get, entry);
    f.do(c(1));
  });

  const iret = m.function([T_I32], [T_I32], (f) => {
    const record = f.param32(0).get;
    f.if(i32.eq(state32(CODE_MODE_AT), c(1)), () => f.return(call(iret32, record)));
    const fail = (bad: I32): void => f.if(bad, () => f.return(call(s.system, record)));
    fail(i32.eqz(and(state32(QUICK_AT), QUICK_IRET)));
    fail(i32.ne(i32.load8U(record, RECORD_OPSIZE), c(8)));
    usual(64, fail);
    fail(i32.or(state32(CPL_AT), and(state32(RFLAGS_AT), RFLAGS_NT)));
    const top = t.at(f, state64(GPR + RSP * 8), 40, TLB_READ_TAG, fail);
    fail(and(top.get, 7));
    const rip = f.i64(i64.load(top.get));
    const selector = f.i32(i32.load16U(top.get, 8));
    const image = f.i32(i32.load(top.get, 16));
    const stack = f.i32(i32.load16U(top.get, 32));
    const cpl = f.i32(and(selector.get, 3));
    fail(i32.and(i32.ne(cpl.get, ZERO), i32.ne(cpl.get, c(3))));
    fail(and(image.get, RFLAGS_AC));
    fail(i64.ne(i64.shrS(i64.shl(rip.get, i64.const(16)), i64.const(16)), rip.get));
    const code = t.descriptor(f, selector.get, fail);
    isCode(code, 64, fail);
    fail(i32.ne(bits(code.get, DPL, 3), cpl.get));
    const data = f.i64();
    const isNull = f.i32(i32.eqz(and(stack.get, 0xfffc)));
    fail(i32.ne(and(stack.get, 3), cpl.get));
    f.if(
      isNull.get,
      () => fail(cpl.get),
      () => {
        f.do(data.set(t.descriptor(f, stack.get, fail).get));
        fail(i32.ne(bits(data.get, TYPE, STACK_DECIDES), c(STACK_KIND)));
        fail(i32.ne(bits(data.get, DPL, 3), cpl.get));
      },
    );

    // From here on everything succeeds.
    noteResumeFlag(f, s, record, image.get, rip.get);
    f.do(setState64(GPR + RSP * 8, i64.load(top.get, 24)), setState64(RIP_AT, rip.get));
    cache(f, CS, selector.get, code);
    f.if(
      isNull.get,
      () => {
        f.do(setState64(field(SS, SEG_BASE), i64.const(0)), setState64(field(SS, SEG_LIMIT), i64.const(0)));
        f.do(setState32(field(SS, SEG_SELECTOR), stack.get));
      },
      () => cache(f, SS, stack.get, data),
    );
    f.if(cpl.get, () => {
      f.do(setState32(CPL_AT, c(3)));
      // What only the inner ring may use becomes null.
      for (const n of [ES, DS, FS, GS]) {
        const attributes = f.i32(state32(field(n, SEG_ATTR)));
        const conforming = i32.eq(and(attributes.get, 0xc), c(0xc));
        const open = i32.eq(and(attributes.get, 3 << VMCB_ATTR_DPL_SHIFT), c(3 << VMCB_ATTR_DPL_SHIFT));
        const isFree = n === FS || n === GS ? i32.eqz(and(state32(field(n, SEG_SELECTOR)), 0xfffc)) : ZERO;
        f.if(i32.eqz(i32.or(i32.or(conforming, open), isFree)), () => {
          f.do(setState32(field(n, SEG_ATTR), and(attributes.get, ~VMCB_ATTR_P)));
          f.do(setState32(field(n, SEG_SELECTOR), ZERO));
        });
      }
    });
    f.do(setState32(MMU_INDEX_AT, i32.select(cpl.get, c(1), ZERO)));
    writeFlags(f, i32.or(and(state32(RFLAGS_AT), ~POPPED), and(image.get, POPPED)));
    f.do(c(STATUS_RELOAD));
  });

  return { deliver, iret };
}
