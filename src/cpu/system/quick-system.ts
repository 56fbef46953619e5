/**
 * System instructions as generated code, where nothing intercepts them and nothing unusual follows; all else is the system port's. A call
 * of TypeScript costs as much as ten simple instructions. HOT
 */
import {
  CS,
  EFER_LMA,
  EFER_SCE,
  R8,
  RCX,
  RFLAGS_AC,
  RFLAGS_FIXED,
  RFLAGS_RF,
  RFLAGS_VM,
  SS,
} from '../../arch/registers.ts';
import {
  RECORD_ADDRSIZE,
  RECORD_LENGTH,
  RECORD_OPSIZE,
  RECORD_REG,
  RECORD_RM,
  RECORD_SEGMENT,
} from '../decode/record.ts';
import { LARGE_SHIFT, LARGE_STRETCHES } from '../mmu/tlb.ts';
import { STATUS_FLAGS } from '../semantics/flags.ts';
import type { SharedFunctions } from '../semantics/shared-functions.ts';
import { rawOffset, setState32, setState64, state32, state64 } from '../semantics/state-access.ts';
import {
  CODE_MODE_AT,
  CPL_AT,
  CR2_AT,
  CR3_AT,
  CR8_AT,
  EFER_AT,
  GPR,
  LSTAR_AT,
  MMU_INDEX_AT,
  QUICK_AT,
  QUICK_CR_READS,
  QUICK_CR8_WRITE,
  QUICK_FAST_CALLS,
  QUICK_INVLPG,
  RFLAGS_AT,
  RIP_AT,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SELECTOR,
  SEG_SIZE,
  SFMASK_AT,
  STAR_AT,
  STATUS_OK,
  STATUS_RELOAD,
  STATUS_RELOAD_TF,
  TLB_BASE,
  TLB_CODE_TAG,
  TLB_CONTEXTS,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_HAS_HUGE_AT,
  TLB_LARGE_AT,
  TLB_NO_TAG,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
  WALK_CACHE,
  WALK_CACHE_ENTRIES,
  WALK_CACHE_USED_AT,
} from '../state.ts';
import { SYS_INVLPG, SYS_IRET, SYS_MOV_FROM_CR, SYS_MOV_TO_CR, SYS_SYSCALL, SYS_SYSRET } from '../system-ops.ts';
import { type I32, i32, i64, T_I32 } from '../wasm/code.ts';
import { call, type FunctionBuilder, type FunctionRef } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { CODE64, DATA, USER } from './fast-calls.ts';
import { defineEventFunctions } from './quick-events.ts';
import { writeFlags } from './quick-tables.ts';

const c = i32.const;
const ZERO = c(0);
const and = (a: I32, mask: number): I32 => i32.and(a, c(mask));

/** What instructions may ask of QUICK_AT. */
const allowed = (what: number): I32 => and(state32(QUICK_AT), what);
const isMode = (mode: number): I32 => i32.eq(state32(CODE_MODE_AT), c(mode));
const isSupervisor64 = (): I32 => i32.and(i32.eqz(state32(CPL_AT)), i32.eq(state32(CODE_MODE_AT), c(2)));

export interface QuickFunctions {
  /** See EventFunctions. */
  readonly deliver: FunctionRef;
  /** Handlers by the numbers of system-ops.ts. */
  readonly handlers: ReadonlyMap<number, FunctionRef>;
}

/** Adds the functions. */
export function defineQuickSystem(m: ModuleBuilder, s: SharedFunctions): QuickFunctions {
  const { deliver, iret } = defineEventFunctions(m, s);
  const handler = (body: (f: FunctionBuilder, record: I32, fail: (bad: I32) => void) => void): FunctionRef =>
    m.function([T_I32], [T_I32], (f) => {
      const record = f.param32(0).get;
      body(f, record, (bad) => f.if(bad, () => f.return(call(s.system, record))));
    });

  /** CR2, CR3 and CR8. */
  const movFromCr = handler((f, record, fail) => {
    const n = f.i32(i32.load8U(record, RECORD_REG));
    fail(i32.eqz(i32.and(allowed(QUICK_CR_READS), i32.shl(c(1), n.get))));
    fail(state32(CPL_AT));
    const at = i32.select(i32.eq(n.get, c(8)), c(CR8_AT), i32.select(i32.eq(n.get, c(2)), c(CR2_AT), c(CR3_AT)));
    const whole = i64.select(isMode(2), i64.const(-1), i64.const(0xffffffff));
    f.do(i64.store(i32.load8U(record, RECORD_RM), GPR, i64.and(i64.load(at), whole)));
    f.do(c(STATUS_OK));
  });

  /** CR8. */
  const movToCr = handler((f, record, fail) => {
    fail(i32.or(i32.ne(i32.load8U(record, RECORD_REG), c(8)), i32.eqz(allowed(QUICK_CR8_WRITE))));
    fail(i32.eqz(isSupervisor64()));
    const value = f.i64(i64.load(i32.load8U(record, RECORD_RM), GPR));
    fail(i64.gtU(value.get, i64.const(15)));
    f.do(setState32(CR8_AT, i32.wrap(value.get)));
    f.do(c(STATUS_OK));
  });

  /** Without pieces of large pages around the address. */
  const invlpg = handler((f, record, fail) => {
    fail(i32.or(i32.eqz(allowed(QUICK_INVLPG)), state32(CPL_AT)));
    const size = i32.load8U(record, RECORD_ADDRSIZE);
    const segment = f.i32(i32.load8U(record, RECORD_SEGMENT));
    const linear = f.i64(rawOffset(record));
    const mask = f.i64(i64.const(-1));
    f.if(
      isMode(2),
      () => fail(i32.or(i32.ne(size, c(8)), i32.gtU(segment.get, c(3)))),
      () => {
        fail(i32.or(i32.eqz(isMode(1)), i32.ne(size, c(4))));
        f.do(mask.set(i64.const(0xffffffff)));
        const base = i64.load(i32.mul(segment.get, c(SEG_SIZE)), SEG + SEG_BASE);
        f.do(linear.set(i64.and(i64.add(linear.get, base), mask.get)));
      },
    );
    fail(i64.ne(i64.shrS(i64.shl(linear.get, i64.const(16)), i64.const(16)), linear.get));
    const va = f.i32(i32.wrap(linear.get));
    const stretch = and(i32.shrU(va.get, c(LARGE_SHIFT)), LARGE_STRETCHES - 1);
    fail(i32.or(state32(TLB_HAS_HUGE_AT), i32.load8U(stretch, TLB_LARGE_AT)));
    f.if(state32(WALK_CACHE_USED_AT), () => {
      for (let i = 0; i < WALK_CACHE_ENTRIES; i++) f.do(setState32(WALK_CACHE + 16 * i, ZERO));
      f.do(setState32(WALK_CACHE_USED_AT, ZERO));
    });
    const tag = f.i64(i64.and(linear.get, i64.const(-4096)));
    const entry = f.i32(i32.mul(and(i32.shrU(va.get, c(12)), TLB_ENTRIES - 1), c(TLB_ENTRY_SIZE)));
    for (let context = 0; context < TLB_CONTEXTS; context++) {
      const base = TLB_BASE + context * TLB_ENTRIES * TLB_ENTRY_SIZE;
      const tags = [TLB_READ_TAG, TLB_WRITE_TAG, TLB_CODE_TAG].map((t) => base + t);
      const hit = tags.map((t) => i64.eq(i64.load(entry.get, t), tag.get)).reduce((a, b) => i32.or(a, b));
      f.if(hit, () => f.do(...tags.map((t) => i32.store(entry.get, t, c(TLB_NO_TAG)))));
    }
    const next = i64.add(state64(RIP_AT), i64.load8U(record, RECORD_LENGTH));
    f.do(setState64(RIP_AT, i64.and(next, mask.get)), c(STATUS_RELOAD));
  });

  const flat = (f: FunctionBuilder, n: number, selector: I32, attributes: number): void => {
    const at = SEG + n * SEG_SIZE;
    f.do(setState64(at + SEG_BASE, i64.const(0)), setState32(at + SEG_LIMIT, c(-1)));
    f.do(setState32(at + SEG_ATTR, c(attributes)), setState32(at + SEG_SELECTOR, selector));
  };
  /** The flags whole, in long mode with fast system calls, from 64-bit code. */
  const begin = (fail: (bad: I32) => void): void => {
    fail(i32.eqz(allowed(QUICK_FAST_CALLS)));
    fail(i32.ne(and(state32(EFER_AT), EFER_SCE | EFER_LMA), c(EFER_SCE | EFER_LMA)));
    fail(i32.or(i32.ne(state32(CODE_MODE_AT), c(2)), and(state32(RFLAGS_AT), RFLAGS_AC)));
  };
  const R11 = GPR + (R8 + 3) * 8;

  const syscall = handler((f, record, fail) => {
    begin(fail);
    const selector = f.i32(i32.load16U(ZERO, STAR_AT + 4));
    const flags = f.i32(and(i32.or(and(state32(RFLAGS_AT), ~STATUS_FLAGS), call(s.flags.status)), ~RFLAGS_RF));
    f.do(setState64(GPR + RCX * 8, i64.add(state64(RIP_AT), i64.load8U(record, RECORD_LENGTH))));
    f.do(setState64(R11, i64.extendU(flags.get)));
    flat(f, CS, and(selector.get, 0xfffc), CODE64);
    flat(f, SS, and(i32.add(selector.get, c(8)), 0xffff), DATA);
    f.do(setState32(CPL_AT, ZERO), setState32(MMU_INDEX_AT, ZERO), setState64(RIP_AT, state64(LSTAR_AT)));
    const kept = i32.and(flags.get, i32.xor(state32(SFMASK_AT), c(-1)));
    writeFlags(f, f.i32(i32.or(kept, c(RFLAGS_FIXED))).get);
    f.do(c(STATUS_RELOAD_TF));
  });

  const sysret = handler((f, record, fail) => {
    begin(fail);
    fail(i32.or(state32(CPL_AT), i32.ne(i32.load8U(record, RECORD_OPSIZE), c(8))));
    // Vendors differ about a target that is not canonical.
    const target = f.i64(state64(GPR + RCX * 8));
    fail(i64.ne(i64.shrS(i64.shl(target.get, i64.const(16)), i64.const(16)), target.get));
    const image = f.i32(and(state32(R11), 0x3f7fd5 & ~(RFLAGS_RF | RFLAGS_VM)));
    fail(and(image.get, RFLAGS_AC));
    const selector = f.i32(i32.load16U(ZERO, STAR_AT + 6));
    flat(f, CS, i32.or(and(i32.add(selector.get, c(16)), 0xffff), c(3)), CODE64 | USER);
    flat(f, SS, i32.or(and(i32.add(selector.get, c(8)), 0xffff), c(3)), DATA | USER);
    f.do(setState32(CPL_AT, c(3)), setState32(MMU_INDEX_AT, c(1)), setState64(RIP_AT, target.get));
    writeFlags(f, f.i32(i32.or(image.get, c(RFLAGS_FIXED))).get);
    f.do(c(STATUS_RELOAD_TF));
  });

  return {
    deliver,
    handlers: new Map([
      [SYS_IRET, iret],
      [SYS_MOV_FROM_CR, movFromCr],
      [SYS_MOV_TO_CR, movToCr],
      [SYS_INVLPG, invlpg],
      [SYS_SYSCALL, syscall],
      [SYS_SYSRET, sysret],
    ]),
  };
}
