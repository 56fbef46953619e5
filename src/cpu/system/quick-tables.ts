/** What generated event delivery and returns share (quick-events.ts): descriptors and stacks through the TLB, segment registers, flags. HOT */
import { PF_VECTOR } from '../../arch/exceptions.ts';
import {
  EFER_LMA,
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
} from '../../arch/registers.ts';
import { SELECTOR_TI } from '../../arch/segment.ts';
import { STATUS_FLAGS } from '../semantics/flags.ts';
import type { SharedFunctions } from '../semantics/shared-functions.ts';
import { setState32, setState64, state32, state64 } from '../semantics/state-access.ts';
import { tlbEntry } from '../semantics/tlb-lookup.ts';
import {
  BUDGET_AT,
  CODE_MODE_AT,
  CR2_AT,
  EFER_AT,
  EVENT_AT,
  FAULT_ADDRESS,
  FLAGS_OP,
  FLAGS_SRC,
  GDTR_BASE,
  GDTR_LIMIT,
  IDTR_BASE,
  IDTR_LIMIT,
  INSNS_AT,
  INT_SHADOW_AT,
  MMU_INDEX_AT,
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
  TLB_BASE,
  TLB_PAGE,
  TLB_READ_TAG,
  WALK_BLOCKED_AT,
} from '../state.ts';
import { type I32, type I64, i32, i64, T_I32, T_I64 } from '../wasm/code.ts';
import { call, type FunctionBuilder, type FunctionRef, type Local32, type Local64 } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';

export const c = i32.const;
export const ZERO = c(0);
export const and = (a: I32, mask: number): I32 => i32.and(a, c(mask));
export const bits = (a: I64, shift: number, mask: number): I32 => and(i32.wrap(i64.shrU(a, i64.const(shift))), mask);
export const field = (segment: number, at: number): number => SEG + segment * SEG_SIZE + at;

/** Of a descriptor's or a gate's high word, in the whole: S and type, DPL, P, L and D. */
export const TYPE = 40;
export const DPL = 45;
const LONG = 53;
const GRANULARITY = 55;
const GATE_INTERRUPT = 0xe;
/** P, S, code and accessed. */
const CODE_KIND = 0x99;
/** P, S, data, writable and accessed. */
export const STACK_KIND = 0x93;
/** Bits of the byte at TYPE that decide what a descriptor is: all but DPL, readable code, and expand-down data. */
const CODE_DECIDES = 0x9d;
export const STACK_DECIDES = 0x9b;

const ARITHMETIC = RFLAGS_CF | RFLAGS_PF | (1 << 4) | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;
/** What IRET at CPL 0 takes from the image. */
export const POPPED =
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
export function cache(f: FunctionBuilder, segment: number, selector: I32, descriptor: Local64): void {
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

/** Ends the quick way when `bad` is not 0. */
export type Fail = (bad: I32) => void;

/** Reads of tables and stacks, in functions of one module. */
export class Tables {
  private readonly look: FunctionRef;

  constructor(m: ModuleBuilder) {
    this.look = defineLook(m);
  }
  /** A host pointer to `size` bytes, where the TLB has them. */
  at(f: FunctionBuilder, linear: I64, size: number, tag: number, fail: Fail): Local32 {
    const pointer = f.i32(call(this.look, linear, c(size), c(tag)));
    fail(i32.eqz(pointer.get));
    return pointer;
  }
  /** The descriptor of a selector in the GDT. */
  descriptor(f: FunctionBuilder, selector: I32, fail: Fail): Local64 {
    fail(i32.or(i32.eqz(and(selector, 0xfffc)), and(selector, SELECTOR_TI)));
    const offset = f.i32(and(selector, 0xfff8));
    fail(i32.gtU(i32.add(offset.get, c(7)), and(state32(GDTR_LIMIT), 0xffff)));
    const linear = i64.add(state64(GDTR_BASE), i64.extendU(offset.get));
    return f.i64(i64.load(this.at(f, linear, 8, TLB_READ_TAG, fail).get));
  }
  /** The gate of `vector`, of `size` bytes: present, for interrupts or traps. */
  gate(f: FunctionBuilder, vector: I32, size: 8 | 16, fail: Fail): Local32 {
    const offset = f.i32(i32.mul(vector, c(size)));
    fail(i32.gtU(i32.add(offset.get, c(size - 1)), and(state32(IDTR_LIMIT), 0xffff)));
    const gate = this.at(f, i64.add(state64(IDTR_BASE), i64.extendU(offset.get)), size, TLB_READ_TAG, fail);
    fail(i32.ne(bits(i64.load(gate.get), TYPE, 0x9e), c(0x80 | GATE_INTERRUPT)));
    return gate;
  }
}

/** Code that has been used before, not conforming, of 64 bits or of 32. */
export function isCode(d: Local64, size: 64 | 32, fail: Fail): void {
  fail(i32.ne(bits(d.get, TYPE, CODE_DECIDES), c(CODE_KIND)));
  fail(i32.ne(bits(d.get, LONG, 3), c(size === 64 ? 1 : 2)));
}

/** Code of `size` bits runs, without what changes how memory is reached. */
export function usual(size: 64 | 32, fail: Fail): void {
  const long = and(state32(EFER_AT), EFER_LMA);
  fail(size === 64 ? i32.eqz(long) : long);
  fail(i32.ne(state32(CODE_MODE_AT), c(size === 64 ? 2 : 1)));
  fail(i32.or(state32(EVENT_AT), state32(WALK_BLOCKED_AT)));
  fail(and(state32(RFLAGS_AT), RFLAGS_AC | RFLAGS_VM));
}

/** RFLAGS, whole. */
export const flagsOf = (s: SharedFunctions): I32 =>
  i32.or(and(state32(RFLAGS_AT), ~STATUS_FLAGS), call(s.flags.status));

/** Flags and what else changes when a handler at `entry` begins, once the frame is pushed; `kind`: bit 0 of the gate's type, a trap. */
export function beginHandler(f: FunctionBuilder, flags: Local32, kind: I32, vector: I32, entry: I64): void {
  const interrupts = i32.select(kind, c(-1), c(~RFLAGS_IF));
  writeFlags(f, f.i32(i32.and(and(flags.get, ~(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF)), interrupts)).get);
  f.do(setState32(MMU_INDEX_AT, ZERO), setState64(RIP_AT, entry), setState32(INT_SHADOW_AT, ZERO));
  f.if(i32.eq(vector, c(PF_VECTOR)), () => f.do(setState64(CR2_AT, state64(FAULT_ADDRESS))));
  // An event takes an instruction's worth of time.
  f.do(setState32(BUDGET_AT, i32.sub(state32(BUDGET_AT), c(1))));
}

/** RFLAGS.RF in a popped image is meant at `rip`. */
export function noteResumeFlag(f: FunctionBuilder, s: SharedFunctions, record: I32, image: I32, rip: I64): void {
  f.if(and(image, RFLAGS_RF), () => {
    f.do(call(s.sync, record), setState64(RF_RIP_AT, rip), setState32(RF_SINCE_AT, state32(INSNS_AT)));
  });
}
