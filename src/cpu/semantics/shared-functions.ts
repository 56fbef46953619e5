/**
 * The functions that handlers share. Handlers return a status; functions that answer something else leave the status in the `fault`
 * global.
 */
import { DS } from '../../arch/registers.ts';
import { RECORD_LENGTH, RECORD_SYSTEM_OP } from '../decode/record.ts';
import {
  ACCESS_SEG_AT,
  BUDGET_AT,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  INSN_LENGTH_AT,
  INSNS_AT,
  RIP_AT,
  STATUS_EXCEPTION,
  STATUS_EXIT,
  STATUS_RELOAD,
} from '../state.ts';
import { i32, i64, T_I32 } from '../wasm/code.ts';
import { call, type FunctionRef, type GlobalRef, getGlobal, setGlobal } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { defineFlagFunctions, type FlagFunctions } from './flags.ts';
import { defineMemoryFunctions, type MemoryFunctions } from './memory-functions.ts';
import { definePortExit } from './port-exit.ts';
import { defineSegmentFunctions, type SegmentFunctions } from './segment-functions.ts';
import { defineStackFunctions, type StackFunctions } from './stack-functions.ts';
import { setState32, setState64, state32, state64 } from './state-access.ts';

const ZERO = i32.const(0);

export interface SharedFunctions extends MemoryFunctions, SegmentFunctions, StackFunctions {
  /** () -> record at RIP, or a status below CODE_BASE: the decoder in TypeScript */
  readonly fetch: FunctionRef;
  /** () -> STATUS_EXCEPTION when a breakpoint is on the instruction at RIP */
  readonly breakpoint: FunctionRef;
  /** (record): it has been reached so often that it is worth compiling */
  readonly hot: FunctionRef;
  readonly flags: FlagFunctions;
  /** Status of the last function that answered no status itself. */
  readonly fault: GlobalRef;
  /** What BUDGET_AT was when INSNS_AT was last brought up to date. */
  readonly seenBudget: GlobalRef;
  /** (record): brings INSNS_AT and INSN_LENGTH_AT up to date for TypeScript to read. */
  readonly sync: FunctionRef;
  /** (vector, error code or -1) -> status */
  readonly raise: FunctionRef;
  /** (record) -> status: the system port executes it */
  readonly system: FunctionRef;
  /** (ASSIST_* operation, argument) -> status: floating point that TypeScript does */
  readonly assist: FunctionRef;
}

/** Adds the shared functions to a module; imports come first, so it is called before any other function is declared. */
export function defineSharedFunctions(m: ModuleBuilder): SharedFunctions {
  const translate = m.import('translate', [T_I32, T_I32, T_I32], [T_I32]);
  const reach = m.import('reach', [T_I32, T_I32, T_I32], [T_I32]);
  const readCross = m.import('readCross', [T_I32, T_I32, T_I32, T_I32], [T_I32]);
  const writeCross = m.import('writeCross', [T_I32, T_I32, T_I32], [T_I32]);
  const lastStatus = m.import('lastStatus', [], [T_I32]);
  const systemPort = m.import('system', [T_I32, T_I32], [T_I32]);
  const fetch = m.import('fetch', [], [T_I32]);
  const breakpoint = m.import('breakpoint', [], [T_I32]);
  const assist = m.import('assist', [T_I32, T_I32], [T_I32]);
  const hot = m.import('hot', [T_I32], []);
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

  const memory = defineMemoryFunctions(m, { translate, reach, readCross, writeCross, lastStatus }, { fault, sync });
  const segments = defineSegmentFunctions(m, { fault, raise });
  const stack = defineStackFunctions(m, fault, memory, segments);

  const portExit = definePortExit(m);
  const system = m.function([T_I32], [T_I32], (f) => {
    const record = f.param32(0);
    f.do(call(sync, record.get));
    f.if(call(portExit, record.get), () => f.return(i32.const(STATUS_EXIT)));
    f.do(setState32(ACCESS_SEG_AT, i32.const(DS)));
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

  const functions = { fetch, breakpoint, hot, flags, fault, seenBudget, sync, raise, system, assist };
  return { ...functions, ...memory, ...segments, ...stack };
}
