/** The shared functions of the stack: as wide as the stack segment says, RSP as a whole in 64-bit mode. */
import { RSP, SS } from '../../arch/registers.ts';
import { VMCB_ATTR_DB } from '../../arch/vmcb.ts';
import { ACCESS_READ, ACCESS_WRITE, GPR, SCRATCH, SEG_ATTR, STATUS_OK } from '../state.ts';
import { i32, i64, loadUnsigned, storeSized, T_I32, T_I64 } from '../wasm/code.ts';
import { call, type FunctionRef, type GlobalRef, getGlobal, setGlobal } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import type { MemoryFunctions } from './memory-functions.ts';
import { type SegmentFunctions, segmentField } from './segment-functions.ts';
import { isLongMode, setState64, storeRegister } from './state-access.ts';

const ZERO = i32.const(0);

export interface StackFunctions {
  /** (record, stack pointer, value, size) -> status */
  readonly stackWrite: FunctionRef;
  /** (record, stack pointer, size) -> value, with `fault` */
  readonly stackRead: FunctionRef;
  /** (value): writes SP, ESP or RSP, as wide as the stack is */
  readonly setStackPointer: FunctionRef;
}

/** Adds the functions. `fault` is that of SharedFunctions. */
export function defineStackFunctions(
  m: ModuleBuilder,
  fault: GlobalRef,
  { access, finishWrite }: MemoryFunctions,
  { segmented }: SegmentFunctions,
): StackFunctions {
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

  return { stackWrite, stackRead, setStackPointer };
}
