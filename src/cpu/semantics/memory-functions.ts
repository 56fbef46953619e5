/** The shared functions behind a memory operand: the TLB, the walk after a miss, accesses that cross a page. */
import { defineRefill } from '../mmu/refill.ts';
import { ACCESS_READ, ACCESS_RMW, ACCESS_SEG_AT, ACCESS_SIZE_AT, ACCESS_WRITE, SCRATCH } from '../state.ts';
import { type I32, type I64, i32, i64, T_I32, T_I64 } from '../wasm/code.ts';
import { call, type FunctionRef, type GlobalRef, getGlobal, type Local32, setGlobal } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { setState32 } from './state-access.ts';
import { lookUpTlb } from './tlb-lookup.ts';

const ZERO = i32.const(0);
const low = (value: I64): I32 => i32.wrap(value);
const high = (value: I64): I32 => i32.wrap(i64.shrU(value, i64.const(32)));

export interface MemoryFunctions {
  /** (record, linear, size, access, segment) -> host pointer, SCRATCH when the access crosses a page, 0 with `fault` */
  readonly access: FunctionRef;
  /** The same after a miss in the TLB. */
  readonly slowAccess: FunctionRef;
  /** The same as `slowAccess` out of compiled code, which has not stored its registers: 0 and no `fault` for what it leaves to the interpreter. */
  readonly reach: FunctionRef;
  /** (record, linear, size) -> status: completes a write that went to SCRATCH */
  readonly finishWrite: FunctionRef;
}

/** What these functions call in TypeScript. */
export interface MemoryImports {
  /** (linear lo, hi, access) -> host pointer, -1 for a fault */
  readonly translate: FunctionRef;
  /** The same for compiled code; -2: the interpreter's. */
  readonly reach: FunctionRef;
  /** (linear lo, hi, size, access) -> status: into SCRATCH */
  readonly readCross: FunctionRef;
  /** (linear lo, hi, size) -> status: from SCRATCH */
  readonly writeCross: FunctionRef;
  /** () -> status of the fault that `translate` met */
  readonly lastStatus: FunctionRef;
}

/** Adds the functions. `fault` and `sync` are those of SharedFunctions. */
export function defineMemoryFunctions(
  m: ModuleBuilder,
  imports: MemoryImports,
  { fault, sync }: { readonly fault: GlobalRef; readonly sync: FunctionRef },
): MemoryFunctions {
  const { translate, readCross, writeCross, lastStatus } = imports;

  const refill = defineRefill(m);

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
    const pointer = f.i32(call(refill, linear.get, access.get));
    f.if(pointer.get, () => f.return(pointer.get));
    f.do(pointer.set(call(translate, lo, hi, access.get)));
    f.if(i32.eq(pointer.get, i32.const(-1)), () => {
      f.do(setGlobal(fault, call(lastStatus)));
      f.return(ZERO);
    });
    f.do(pointer.get);
  });

  const reach = m.function([T_I32, T_I64, T_I32, T_I32, T_I32], [T_I32], (f) => {
    const linear = f.param64(1);
    const size = f.param32(2);
    const [lo, hi] = [low(linear.get), high(linear.get)];
    f.do(setGlobal(fault, ZERO));
    f.if(i32.gtU(i32.add(i32.and(lo, i32.const(0xfff)), size.get), i32.const(4096)), () => f.return(ZERO));
    const pointer = f.i32(call(refill, linear.get, f.param32(3).get));
    f.if(pointer.get, () => f.return(pointer.get));
    f.do(setState32(ACCESS_SEG_AT, f.param32(4).get), setState32(ACCESS_SIZE_AT, size.get));
    f.do(pointer.set(call(imports.reach, lo, hi, f.param32(3).get)));
    f.if(i32.eq(pointer.get, i32.const(-2)), () => f.return(ZERO));
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

  return { access, slowAccess, reach, finishWrite };
}
