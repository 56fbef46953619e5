/**
 * The functions that handlers share: the slow half of a memory access, segmentation, the stack outside 64-bit mode, exceptions, and
 * the door to the system port. Handlers return a status; functions that answer something else leave the status in the `fault` global.
 */
import { GP_VECTOR, SS_VECTOR } from '../../arch/exceptions.ts';
import { CR0_PE, DS, FS, RFLAGS_VM, RSP, SS } from '../../arch/registers.ts';
import { VMCB_ATTR_DB, VMCB_ATTR_P } from '../../arch/vmcb.ts';
import {
  RECORD_ADDRSIZE,
  RECORD_BASE,
  RECORD_DISP,
  RECORD_INDEX,
  RECORD_LENGTH,
  RECORD_SCALE,
  RECORD_SYSTEM_OP,
} from '../decode/record.ts';
import {
  ACCESS_READ,
  ACCESS_RMW,
  ACCESS_SEG_AT,
  ACCESS_SIZE_AT,
  ACCESS_WRITE,
  BUDGET_AT,
  CODE_MODE_AT,
  CR0_AT,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  GPR,
  INSN_LENGTH_AT,
  INSNS_AT,
  MMU_INDEX_AT,
  RFLAGS_AT,
  RIP_AT,
  SCRATCH,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SIZE,
  SEGMENTS_UNCHECKED_AT,
  STATUS_EXCEPTION,
  STATUS_OK,
  STATUS_RELOAD,
  TLB_BASE,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_PAGE,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
} from '../state.ts';
import { type I32, type I64, i32, i64, loadUnsigned, storeSized, T_I32, T_I64 } from '../wasm/code.ts';
import {
  call,
  type FunctionBuilder,
  type FunctionRef,
  type GlobalRef,
  getGlobal,
  type Local32,
  type Local64,
  setGlobal,
} from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { defineFlagFunctions, type FlagFunctions } from './flags.ts';
import { gpr, setState32, setState64, state32, state64, storeRegister } from './state-access.ts';

/** A direct branch was taken: RIP is set, the record's TAKEN link may be followed. Only inside the interpreter. */
export const STATUS_TAKEN = 5;
/** The record is no longer valid; nothing was executed. Only inside the interpreter. */
export const STATUS_STALE = 6;
/** A repeated string instruction did some of its iterations and stays where it is. Only inside the interpreter. */
export const STATUS_REPEAT = 7;
/** An indirect jump: RIP is set, nothing else changed. Only inside the interpreter. */
export const STATUS_JUMPED = 8;
/** A record cannot vouch for the page that its instruction ends in: fetch again. Only inside the interpreter. */
export const STATUS_REFETCH = 9;

const ZERO = i32.const(0);

export interface Support {
  /** () -> record at RIP, or a status below CODE_BASE: the decoder in TypeScript */
  readonly fetch: FunctionRef;
  /** () -> STATUS_EXCEPTION when a breakpoint is on the instruction at RIP */
  readonly breakpoint: FunctionRef;
  readonly flags: FlagFunctions;
  /** Status of the last function that answered no status itself. */
  readonly fault: GlobalRef;
  /** What BUDGET_AT was when INSNS_AT was last brought up to date. */
  readonly seenBudget: GlobalRef;
  /** (record): brings INSNS_AT and INSN_LENGTH_AT up to date for TypeScript to read. */
  readonly sync: FunctionRef;
  /** (vector, error code or -1) -> status */
  readonly raise: FunctionRef;
  /** (record, linear, size, access, segment) -> host pointer, SCRATCH when the access crosses a page, 0 with `fault` */
  readonly access: FunctionRef;
  /** The same after a miss in the TLB. */
  readonly slowAccess: FunctionRef;
  /** (record, linear, size) -> status: completes a write that went to SCRATCH */
  readonly finishWrite: FunctionRef;
  /** (record) -> offset of the memory operand, truncated to the address size */
  readonly offset: FunctionRef;
  /** (record) -> mask of the address size */
  readonly addressMask: FunctionRef;
  /** (offset, size, access, segment) -> linear address, with `fault` */
  readonly segmented: FunctionRef;
  /** (record, stack pointer, value, size) -> status */
  readonly stackWrite: FunctionRef;
  /** (record, stack pointer, size) -> value, with `fault` */
  readonly stackRead: FunctionRef;
  /** (value): writes SP, ESP or RSP, as wide as the stack is */
  readonly setStackPointer: FunctionRef;
  /** (record) -> status: the system port executes it */
  readonly system: FunctionRef;
}

const low = (value: I64): I32 => i32.wrap(value);
const high = (value: I64): I32 => i32.wrap(i64.shrU(value, i64.const(32)));
const segmentField = (segment: I32, field: number): I32 => i32.load(i32.mul(segment, i32.const(SEG_SIZE)), SEG + field);
const segmentBase = (segment: I32): I64 => i64.load(i32.mul(segment, i32.const(SEG_SIZE)), SEG + SEG_BASE);
export const isLongMode = (): I32 => i32.eq(state32(CODE_MODE_AT), i32.const(2));
/** The register whose byte offset is the record's field `field`. */
export const recordRegister = (record: I32, field: number): I64 => i64.load(i32.load8U(record, field), GPR);

/** Base + index * scale + displacement of a record, not truncated. */
export const rawOffset = (record: I32): I64 =>
  i64.add(
    i64.add(
      recordRegister(record, RECORD_BASE),
      i64.shl(recordRegister(record, RECORD_INDEX), i64.load8U(record, RECORD_SCALE)),
    ),
    i64.load(record, RECORD_DISP),
  );

/** Offset from TLB_BASE of the entry for a linear address in the current context. */
export const tlbEntry = (linear: I64): I32 => {
  const index = i32.and(i32.shrU(low(linear), i32.const(12)), i32.const(TLB_ENTRIES - 1));
  const context = i32.mul(state32(MMU_INDEX_AT), i32.const(TLB_ENTRIES * TLB_ENTRY_SIZE));
  return i32.add(i32.mul(index, i32.const(TLB_ENTRY_SIZE)), context);
};

/**
 * Looks `linear` up in the TLB: a host pointer in a new local, or what `missed` puts there. An access that crosses a page misses,
 * because its last byte is compared.
 */
export function lookUpTlb(
  f: FunctionBuilder,
  linear: Local64,
  lastByte: I64 | undefined,
  access: number,
  missed: (pointer: Local32) => void,
): Local32 {
  const pageMask = i64.const(-4096);
  const entry = f.i32(tlbEntry(linear.get));
  const pointer = f.i32();
  const end = lastByte === undefined ? linear.get : i64.add(linear.get, lastByte);
  const tag = i64.load(entry.get, TLB_BASE + (access === ACCESS_READ ? TLB_READ_TAG : TLB_WRITE_TAG));
  f.if(
    i64.eq(i64.and(end, pageMask), tag),
    () => {
      const inPage = i32.and(low(linear.get), i32.const(0xfff));
      f.do(pointer.set(i32.or(i32.load(entry.get, TLB_BASE + TLB_PAGE), inPage)));
    },
    () => missed(pointer),
  );
  return pointer;
}

/** Adds the shared functions to a module; imports come first, so it is called before any other function is declared. */
export function defineSupport(m: ModuleBuilder): Support {
  const translate = m.import('translate', [T_I32, T_I32, T_I32], [T_I32]);
  const readCross = m.import('readCross', [T_I32, T_I32, T_I32, T_I32], [T_I32]);
  const writeCross = m.import('writeCross', [T_I32, T_I32, T_I32], [T_I32]);
  const lastStatus = m.import('lastStatus', [], [T_I32]);
  const systemPort = m.import('system', [T_I32, T_I32], [T_I32]);
  const fetch = m.import('fetch', [], [T_I32]);
  const breakpoint = m.import('breakpoint', [], [T_I32]);
  const flags = defineFlagFunctions(m);
  const fault = m.global();
  const seenBudget = m.global();

  const sync = m.function([T_I32], [], (f) => {
    const record = f.param32(0);
    f.do(setState32(INSN_LENGTH_AT, i32.load8U(record.get, RECORD_LENGTH)));
    const retired = i64.extendS(i32.sub(getGlobal(seenBudget), state32(BUDGET_AT)));
    f.do(setState64(INSNS_AT, i64.add(state64(INSNS_AT), retired)));
    f.do(setGlobal(seenBudget, state32(BUDGET_AT)));
  });

  const raise = m.function([T_I32, T_I32], [T_I32], (f) => {
    const error = f.param32(1);
    f.do(setState32(FAULT_VECTOR, f.param32(0).get));
    const hasError = i32.ne(error.get, i32.const(-1));
    f.do(setState32(FAULT_HAS_ERROR, hasError), setState32(FAULT_ERROR, i32.select(hasError, error.get, ZERO)));
    f.do(i32.const(STATUS_EXCEPTION));
  });

  const slowAccess = m.function([T_I32, T_I64, T_I32, T_I32, T_I32], [T_I32], (f) => {
    const linear = f.param64(1);
    const size = f.param32(2);
    const access = f.param32(3);
    const [lo, hi] = [low(linear.get), high(linear.get)];
    f.do(
      call(sync, f.param32(0).get),
      setState32(ACCESS_SEG_AT, f.param32(4).get),
      setState32(ACCESS_SIZE_AT, size.get),
    );
    f.do(setGlobal(fault, ZERO));
    f.if(i32.gtU(i32.add(i32.and(lo, i32.const(0xfff)), size.get), i32.const(4096)), () => {
      // A write is left to finishWrite: nothing is written before both pages are known.
      f.if(i32.ne(access.get, i32.const(ACCESS_WRITE)), () => {
        f.do(setGlobal(fault, call(readCross, lo, hi, size.get, access.get)));
        f.if(getGlobal(fault), () => f.return(ZERO));
      });
      f.return(i32.const(SCRATCH));
    });
    const pointer = f.i32(call(translate, lo, hi, access.get));
    f.if(i32.eq(pointer.get, i32.const(-1)), () => {
      f.do(setGlobal(fault, call(lastStatus)));
      f.return(ZERO);
    });
    f.do(pointer.get);
  });

  const access = m.function([T_I32, T_I64, T_I32, T_I32, T_I32], [T_I32], (f) => {
    const linear = f.param64(1);
    const size = f.param32(2);
    const last = i64.extendU(i32.sub(size.get, i32.const(1)));
    const slow = (pointer: Local32): void =>
      f.do(pointer.set(call(slowAccess, f.param32(0).get, linear.get, size.get, f.param32(3).get, f.param32(4).get)));
    f.if(f.param32(3).get, () => f.return(lookUpTlb(f, linear, last, ACCESS_RMW, slow).get));
    f.do(lookUpTlb(f, linear, last, ACCESS_READ, slow).get);
  });

  const finishWrite = m.function([T_I32, T_I64, T_I32], [T_I32], (f) => {
    f.do(call(sync, f.param32(0).get));
    f.do(call(writeCross, low(f.param64(1).get), high(f.param64(1).get), f.param32(2).get));
  });

  const addressMask = m.function([T_I32], [T_I64], (f) => {
    const size = f.i32(i32.load8U(f.param32(0).get, RECORD_ADDRSIZE));
    f.if(i32.eq(size.get, i32.const(8)), () => f.return(i64.const(-1)));
    f.do(i64.select(i32.eq(size.get, i32.const(4)), i64.const(0xffffffff), i64.const(0xffff)));
  });

  const offset = m.function([T_I32], [T_I64], (f) => {
    const record = f.param32(0);
    f.do(i64.and(rawOffset(record.get), call(addressMask, record.get)));
  });

  const segmented = m.function([T_I64, T_I32, T_I32, T_I32], [T_I64], (f) => {
    const at = f.param64(0);
    const segment = f.param32(3);
    const base = segmentBase(segment.get);
    f.do(setGlobal(fault, ZERO));
    f.if(isLongMode(), () => {
      f.if(i32.geU(segment.get, i32.const(FS)), () => f.return(i64.add(at.get, base)));
      f.return(at.get);
    });
    const attr = f.i32(segmentField(segment.get, SEG_ATTR));
    // All of 4 GiB, present, writable data: nothing to check.
    const flat = i32.and(
      i32.eq(i32.and(attr.get, i32.const(VMCB_ATTR_P | 0xe)), i32.const(VMCB_ATTR_P | 2)),
      i32.eq(segmentField(segment.get, SEG_LIMIT), i32.const(-1)),
    );
    const unchecked = i32.or(flat, state32(SEGMENTS_UNCHECKED_AT));
    f.if(unchecked, () => f.return(i64.and(i64.add(at.get, base), i64.const(0xffffffff))));
    const bad = f.i32(i32.eqz(i32.and(attr.get, i32.const(VMCB_ATTR_P))));
    const has = (bits: number): I32 => i32.and(attr.get, i32.const(bits));
    const isProtected = i32.and(
      i32.and(state32(CR0_AT), i32.const(CR0_PE)),
      i32.eqz(i32.and(state32(RFLAGS_AT), i32.const(RFLAGS_VM))),
    );
    f.if(isProtected, () => {
      f.if(
        f.param32(2).get,
        () => f.do(bad.set(i32.or(bad.get, i32.ne(has(0xa), i32.const(2))))),
        () => f.do(bad.set(i32.or(bad.get, i32.eq(has(0xa), i32.const(8))))),
      );
    });
    const limit = f.i64(i64.extendU(segmentField(segment.get, SEG_LIMIT)));
    const last = f.i64(i64.add(at.get, i64.extendU(i32.sub(f.param32(1).get, i32.const(1)))));
    f.if(
      i32.eq(has(0xc), i32.const(4)),
      () => {
        const top = i64.select(has(VMCB_ATTR_DB), i64.const(0xffffffff), i64.const(0xffff));
        f.do(bad.set(i32.or(bad.get, i32.or(i64.leU(at.get, limit.get), i64.gtU(last.get, top)))));
      },
      () => {
        const outside = i32.and(i64.gtU(last.get, limit.get), i64.ne(limit.get, i64.const(0xffffffff)));
        f.do(bad.set(i32.or(bad.get, outside)));
      },
    );
    f.if(bad.get, () => {
      const vector = i32.select(i32.eq(segment.get, i32.const(SS)), i32.const(SS_VECTOR), i32.const(GP_VECTOR));
      f.do(setGlobal(fault, call(raise, vector, ZERO)));
    });
    f.do(i64.and(i64.add(at.get, base), i64.const(0xffffffff)));
  });

  /** The linear address of `sp` bytes into the stack segment. */
  const stackLinear = m.function([T_I64, T_I32, T_I32], [T_I64], (f) => {
    const at = f.param64(0);
    f.do(setGlobal(fault, ZERO));
    f.if(isLongMode(), () => f.return(at.get));
    const wide = i32.and(segmentField(i32.const(SS), SEG_ATTR), i32.const(VMCB_ATTR_DB));
    const mask = i64.select(wide, i64.const(0xffffffff), i64.const(0xffff));
    f.do(call(segmented, i64.and(at.get, mask), f.param32(1).get, f.param32(2).get, i32.const(SS)));
  });

  const stackWrite = m.function([T_I32, T_I64, T_I64, T_I32], [T_I32], (f) => {
    const record = f.param32(0);
    const size = f.param32(3);
    const linear = f.i64(call(stackLinear, f.param64(1).get, size.get, i32.const(ACCESS_WRITE)));
    f.if(getGlobal(fault), () => f.return(getGlobal(fault)));
    const pointer = f.i32(call(access, record.get, linear.get, size.get, i32.const(ACCESS_WRITE), i32.const(SS)));
    f.if(i32.eqz(pointer.get), () => f.return(getGlobal(fault)));
    const store = (bytes: number) => (): void => f.do(storeSized(bytes, pointer.get, 0, f.param64(2).get));
    f.switch(i32.shrU(size.get, i32.const(2)), [store(2), store(4)], store(8));
    f.if(i32.eq(pointer.get, i32.const(SCRATCH)), () => f.return(call(finishWrite, record.get, linear.get, size.get)));
    f.do(i32.const(STATUS_OK));
  });

  const stackRead = m.function([T_I32, T_I64, T_I32], [T_I64], (f) => {
    const size = f.param32(2);
    const linear = f.i64(call(stackLinear, f.param64(1).get, size.get, i32.const(ACCESS_READ)));
    f.if(getGlobal(fault), () => f.return(i64.const(0)));
    const pointer = f.i32(call(access, f.param32(0).get, linear.get, size.get, i32.const(ACCESS_READ), i32.const(SS)));
    f.if(i32.eqz(pointer.get), () => f.return(i64.const(0)));
    const load = (bytes: number) => (): void => f.return(loadUnsigned(bytes, pointer.get));
    f.switch(i32.shrU(size.get, i32.const(2)), [load(2), load(4)], load(8));
    f.unreachable();
  });

  const setStackPointer = m.function([T_I64], [], (f) => {
    const value = f.param64(0);
    const at = GPR + RSP * 8;
    f.if(isLongMode(), () => {
      f.do(setState64(at, value.get));
      f.return();
    });
    f.if(
      i32.and(segmentField(i32.const(SS), SEG_ATTR), i32.const(VMCB_ATTR_DB)),
      () => f.do(storeRegister(ZERO, at, 4, value.get)),
      () => f.do(storeRegister(ZERO, at, 2, value.get)),
    );
  });

  const system = m.function([T_I32], [T_I32], (f) => {
    const record = f.param32(0);
    f.do(call(sync, record.get), setState32(ACCESS_SEG_AT, i32.const(DS)));
    // Taken now: the port may drop all decoded code.
    const length = f.i64(i64.load8U(record.get, RECORD_LENGTH));
    const status = f.i32(call(systemPort, i32.load16U(record.get, RECORD_SYSTEM_OP), record.get));
    f.do(setGlobal(seenBudget, state32(BUDGET_AT)));
    f.if(i32.eqz(status.get), () => {
      f.do(setState64(RIP_AT, i64.add(state64(RIP_AT), length.get)));
      f.do(status.set(i32.const(STATUS_RELOAD)));
    });
    f.do(status.get);
  });

  return {
    fetch,
    breakpoint,
    flags,
    fault,
    seenBudget,
    sync,
    raise,
    access,
    slowAccess,
    finishWrite,
    offset,
    addressMask,
    segmented,
    stackWrite,
    stackRead,
    setStackPointer,
    system,
  };
}

/** RSP, whole. */
export const stackPointer = (): I64 => gpr(RSP, 8);
