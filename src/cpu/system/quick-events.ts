/**
 * Delivery of exceptions in long mode, and the IRET that ends their handlers, as generated code: what src/cpu/system/delivery.ts and iret.ts
 * do when nothing is in the way. The TLB holds every page that they look at, descriptors have been used before, the handler is
 * supervisor code of 64 bits, and nothing asks for attention. Otherwise nothing has happened, and TypeScript does it. A kernel that maps
 * pages as they are touched spends most of its time here. HOT
 */
import { PF_VECTOR } from '../../arch/exceptions.ts';
import {
  CS,
  DS,
  EFER_LMA,
  ES,
  FS,
  GS,
  RFLAGS_AC,
  RFLAGS_CF,
  RFLAGS_DF,
  RFLAGS_ID,
  RFLAGS_IF,
  RFLAGS_IOPL,
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
import { SELECTOR_TI } from '../../arch/segment.ts';
import { VMCB_ATTR_DPL_SHIFT, VMCB_ATTR_P } from '../../arch/vmcb.ts';
import { RECORD_OPSIZE } from '../decode/record.ts';
import { STATUS_FLAGS } from '../semantics/flags.ts';
import type { SharedFunctions } from '../semantics/shared-functions.ts';
import { setState32, setState64, state32, state64 } from '../semantics/state-access.ts';
import { tlbEntry } from '../semantics/tlb-lookup.ts';
import {
  BUDGET_AT,
  CODE_MODE_AT,
  CPL_AT,
  CR2_AT,
  EFER_AT,
  EVENT_AT,
  FAULT_ADDRESS,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  FLAGS_OP,
  FLAGS_SRC,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  IDTR_BASE,
  IDTR_LIMIT,
  INSNS_AT,
  INT_SHADOW_AT,
  MMU_INDEX_AT,
  QUICK_AT,
  QUICK_EXCEPTIONS_AT,
  QUICK_IRET,
  RF_RIP_AT,
  RF_SINCE_AT,
  RFLAGS_AT,
  RIP_AT,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SELECTOR,
  SEG_SIZE,
  STATUS_RELOAD,
  TLB_BASE,
  TLB_PAGE,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
  WALK_BLOCKED_AT,
} from '../state.ts';
import { type I32, type I64, i32, i64, T_I32, T_I64 } from '../wasm/code.ts';
import { call, type FunctionBuilder, type FunctionRef, type Local32, type Local64 } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';

const c = i32.const;
const ZERO = c(0);
const and = (a: I32, mask: number): I32 => i32.and(a, c(mask));
const bits = (a: I64, shift: number, mask: number): I32 => and(i32.wrap(i64.shrU(a, i64.const(shift))), mask);
const field = (segment: number, at: number): number => SEG + segment * SEG_SIZE + at;

/** Of a descriptor's or a gate's high word, in the whole: S and type, DPL, P, L and D. */
const TYPE = 40;
const DPL = 45;
const LONG = 53;
const GRANULARITY = 55;
const GATE_INTERRUPT = 0xe;
/** P, S, code and accessed. */
const CODE_KIND = 0x99;
/** P, S, data, writable and accessed. */
const STACK_KIND = 0x93;
/** Bits of the byte at TYPE that decide what a descriptor is: all but DPL, readable code, and expand-down data. */
const CODE_DECIDES = 0x9d;
const STACK_DECIDES = 0x9b;

const ARITHMETIC = RFLAGS_CF | RFLAGS_PF | (1 << 4) | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;
/** What IRET at CPL 0 takes from the image. */
const POPPED =
  ARITHMETIC |
  RFLAGS_TF |
  RFLAGS_DF |
  RFLAGS_NT |
  RFLAGS_AC |
  RFLAGS_ID |
  RFLAGS_IOPL |
  RFLAGS_IF |
  RFLAGS_RF |
  RFLAGS_VIF |
  RFLAGS_VIP;

/** Sets RFLAGS, whole. */
export function writeFlags(f: FunctionBuilder, value: I32): void {
  f.do(setState32(RFLAGS_AT, and(value, ~STATUS_FLAGS)), setState32(FLAGS_OP, ZERO));
  f.do(setState64(FLAGS_SRC, i64.extendU(and(value, STATUS_FLAGS))));
}

/** (linear address, bytes, offset of the tag) -> host pointer in the supervisor's context, or 0 */
function defineLook(m: ModuleBuilder): FunctionRef {
  return m.function([T_I64, T_I32, T_I32], [T_I32], (f) => {
    const linear = f.param64(0).get;
    const offset = f.i32(and(i32.wrap(linear), 0xfff));
    const entry = f.i32(tlbEntry(linear, ZERO));
    const tag = i64.load(i32.add(entry.get, f.param32(2).get), TLB_BASE);
    const inside = i32.leU(i32.add(offset.get, f.param32(1).get), c(4096));
    const hit = i32.and(i64.eq(i64.and(linear, i64.const(-4096)), tag), inside);
    f.do(i32.select(hit, i32.or(i32.load(entry.get, TLB_BASE + TLB_PAGE), offset.get), ZERO));
  });
}

/** Stores a descriptor into segment register `segment`. */
function cache(f: FunctionBuilder, segment: number, selector: I32, descriptor: Local64): void {
  const d = descriptor.get;
  const base = i64.or(
    i64.and(i64.shrU(d, i64.const(16)), i64.const(0xffffff)),
    i64.shl(i64.shrU(d, i64.const(56)), i64.const(24)),
  );
  const limit = f.i32(i32.or(and(i32.wrap(d), 0xffff), i32.and(i32.shl(bits(d, 48, 15), c(16)), c(0xf0000))));
  f.if(bits(d, GRANULARITY, 1), () => f.do(limit.set(i32.or(i32.shl(limit.get, c(12)), c(0xfff)))));
  const attributes = i32.or(bits(d, 40, 0xff), i32.shl(bits(d, 52, 0xf), c(8)));
  f.do(setState64(field(segment, SEG_BASE), base), setState32(field(segment, SEG_LIMIT), limit.get));
  f.do(setState32(field(segment, SEG_ATTR), attributes), setState32(field(segment, SEG_SELECTOR), selector));
}

export interface EventFunctions {
  /** () -> whether the exception in FAULT_* has been delivered; INSNS_AT is up to date. */
  readonly deliver: FunctionRef;
  /** (record) -> status: IRET */
  readonly iret: FunctionRef;
}

/** Adds the functions. */
export function defineEventFunctions(m: ModuleBuilder, s: SharedFunctions): EventFunctions {
  const look = defineLook(m);
  const at = (f: FunctionBuilder, linear: I64, size: number, tag: number, fail: (bad: I32) => void): Local32 => {
    const pointer = f.i32(call(look, linear, c(size), c(tag)));
    fail(i32.eqz(pointer.get));
    return pointer;
  };
  /** The descriptor of a selector in the GDT. */
  const descriptorOf = (f: FunctionBuilder, selector: I32, fail: (bad: I32) => void): Local64 => {
    fail(i32.or(i32.eqz(and(selector, 0xfffc)), and(selector, SELECTOR_TI)));
    const offset = f.i32(and(selector, 0xfff8));
    fail(i32.gtU(i32.add(offset.get, c(7)), and(state32(GDTR_LIMIT), 0xffff)));
    const linear = i64.add(state64(GDTR_BASE), i64.extendU(offset.get));
    return f.i64(i64.load(at(f, linear, 8, TLB_READ_TAG, fail).get));
  };
  /** 64-bit code that has been used before, not conforming. */
  const isCode = (_f: FunctionBuilder, d: Local64, fail: (bad: I32) => void): void => {
    fail(i32.ne(bits(d.get, TYPE, CODE_DECIDES), c(CODE_KIND)));
    fail(i32.ne(bits(d.get, LONG, 3), c(1)));
  };
  /** Long mode, 64-bit code, without what changes how memory is reached. */
  const usual = (fail: (bad: I32) => void): void => {
    fail(i32.eqz(and(state32(EFER_AT), EFER_LMA)));
    fail(i32.ne(state32(CODE_MODE_AT), c(2)));
    fail(i32.or(state32(EVENT_AT), state32(WALK_BLOCKED_AT)));
    fail(and(state32(RFLAGS_AT), RFLAGS_AC | RFLAGS_VM));
  };

  const deliver = m.function([], [T_I32], (f) => {
    const fail = (bad: I32): void => f.if(bad, () => f.return(ZERO));
    const vector = f.i32(state32(FAULT_VECTOR));
    fail(i32.gtU(vector.get, c(31)));
    fail(i32.eqz(i32.and(i32.shrU(state32(QUICK_EXCEPTIONS_AT), vector.get), c(1))));
    usual(fail);

    const offset = f.i32(i32.shl(vector.get, c(4)));
    fail(i32.gtU(i32.add(offset.get, c(15)), and(state32(IDTR_LIMIT), 0xffff)));
    const gate = at(f, i64.add(state64(IDTR_BASE), i64.extendU(offset.get)), 16, TLB_READ_TAG, fail);
    const low = f.i64(i64.load(gate.get));
    // Present, and an interrupt or trap gate.
    fail(i32.ne(bits(low.get, TYPE, 0x9e), c(0x80 | GATE_INTERRUPT)));
    const selector = f.i32(bits(low.get, 16, 0xffff));
    const code = descriptorOf(f, selector.get, fail);
    isCode(f, code, fail);
    fail(bits(code.get, DPL, 3));

    const cpl = f.i32(state32(CPL_AT));
    const rsp = f.i64(state64(GPR + RSP * 8));
    const ist = f.i32(bits(low.get, 32, 7));
    f.if(i32.or(ist.get, cpl.get), () => {
      const slot = i32.select(ist.get, i32.add(i32.shl(i32.add(ist.get, c(3)), c(3)), c(4)), c(4));
      const from = f.i32(slot);
      fail(i32.gtU(i32.add(from.get, c(7)), state32(field(TR, SEG_LIMIT))));
      const linear = i64.add(state64(field(TR, SEG_BASE)), i64.extendU(from.get));
      f.do(rsp.set(i64.load(at(f, linear, 8, TLB_READ_TAG, fail).get)));
    });
    const hasError = f.i32(i32.ne(state32(FAULT_HAS_ERROR), ZERO));
    const size = i64.select(hasError.get, i64.const(48), i64.const(40));
    f.do(rsp.set(i64.sub(i64.and(rsp.get, i64.const(-16)), size)));
    const top = at(f, rsp.get, 48, TLB_WRITE_TAG, fail);

    // From here on everything succeeds.
    const flags = f.i32(i32.or(and(state32(RFLAGS_AT), ~STATUS_FLAGS), call(s.flags.status)));
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
    const cleared = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF;
    const interrupts = i32.select(bits(low.get, TYPE, 1), c(-1), c(~RFLAGS_IF));
    writeFlags(f, i32.and(and(flags.get, ~cleared), interrupts));
    const entry = i64.or(
      i64.or(i64.and(low.get, i64.const(0xffff)), i64.and(i64.shrU(low.get, i64.const(32)), i64.const(0xffff0000))),
      i64.shl(i64.load(gate.get, 8), i64.const(32)),
    );
    f.do(setState32(MMU_INDEX_AT, ZERO), setState64(RIP_AT, entry), setState32(INT_SHADOW_AT, ZERO));
    f.if(i32.eq(vector.get, c(PF_VECTOR)), () => f.do(setState64(CR2_AT, state64(FAULT_ADDRESS))));
    // An event takes an instruction's worth of time.
    f.do(setState32(BUDGET_AT, i32.sub(state32(BUDGET_AT), c(1))));
    f.do(c(1));
  });

  const iret = m.function([T_I32], [T_I32], (f) => {
    const record = f.param32(0).get;
    const fail = (bad: I32): void => f.if(bad, () => f.return(call(s.system, record)));
    fail(i32.eqz(and(state32(QUICK_AT), QUICK_IRET)));
    fail(i32.ne(i32.load8U(record, RECORD_OPSIZE), c(8)));
    usual(fail);
    fail(i32.or(state32(CPL_AT), and(state32(RFLAGS_AT), RFLAGS_NT)));
    const top = at(f, state64(GPR + RSP * 8), 40, TLB_READ_TAG, fail);
    fail(and(top.get, 7));
    const rip = f.i64(i64.load(top.get));
    const selector = f.i32(i32.load16U(top.get, 8));
    const image = f.i32(i32.load(top.get, 16));
    const stack = f.i32(i32.load16U(top.get, 32));
    const cpl = f.i32(and(selector.get, 3));
    fail(i32.and(i32.ne(cpl.get, ZERO), i32.ne(cpl.get, c(3))));
    fail(and(image.get, RFLAGS_AC));
    fail(i64.ne(i64.shrS(i64.shl(rip.get, i64.const(16)), i64.const(16)), rip.get));
    const code = descriptorOf(f, selector.get, fail);
    isCode(f, code, fail);
    fail(i32.ne(bits(code.get, DPL, 3), cpl.get));
    const data = f.i64();
    const isNull = f.i32(i32.eqz(and(stack.get, 0xfffc)));
    fail(i32.ne(and(stack.get, 3), cpl.get));
    f.if(
      isNull.get,
      () => fail(cpl.get),
      () => {
        f.do(data.set(descriptorOf(f, stack.get, fail).get));
        fail(i32.ne(bits(data.get, TYPE, STACK_DECIDES), c(STACK_KIND)));
        fail(i32.ne(bits(data.get, DPL, 3), cpl.get));
      },
    );

    // From here on everything succeeds.
    f.if(and(image.get, RFLAGS_RF), () => {
      f.do(call(s.sync, record), setState64(RF_RIP_AT, rip.get), setState32(RF_SINCE_AT, state32(INSNS_AT)));
    });
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
