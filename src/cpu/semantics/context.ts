/**
 * What an emitter sees. An emitter is the one description of an instruction: it asks its context for operands and hands back results,
 * and the context decides what code that becomes: a handler that reads register numbers from a decoded record, the calculator's
 * fixed slots, or code inlined into a larger function.
 *
 * Order is the emitter's duty: everything that can fault comes before the first register or flag is written. `write` to memory is
 * among what can fault, so it precedes register and flag writes.
 */
import { RFLAGS_CF } from '../../arch/registers.ts';
import { GPR } from '../state.ts';
import { type Code, type I32, type I64, i32, i64, signExtend, zeroExtend } from '../wasm/code.ts';
import { call, type FunctionBuilder, type FunctionRef, type Local64 } from '../wasm/function.ts';
import { condition, type FlagFunctions, storeExplicitFlags, storeFlags } from './flags.ts';
import { gpr, gprSigned, setGpr } from './state-access.ts';

export abstract class Context {
  readonly f: FunctionBuilder;
  /** Operand size in bytes. */
  readonly size: number;
  readonly flags: FlagFunctions;
  /** `raise(vector, errorCode or -1)` fills FAULT_* and answers the status to return. */
  readonly raise: FunctionRef;

  constructor(f: FunctionBuilder, size: number, flags: FlagFunctions, raise: FunctionRef) {
    this.f = f;
    this.size = size;
    this.flags = flags;
    this.raise = raise;
  }

  /** Operand `index`, sign-extended from its size. */
  abstract read(index: number): Local64;
  /** Operand `index`, zero-extended from its size. */
  abstract readUnsigned(index: number): Local64;
  /** Operand `index`, sign-extended, when it will be written next: memory is translated for writing before it is read. */
  abstract update(index: number): Local64;
  /** Writes operand `index`, truncated to its size. */
  abstract write(index: number, value: I64): void;
  /** Size in bytes of operand `index`. */
  abstract sizeOf(index: number): number;
  /** Whether operand `index` is memory. */
  abstract isMemory(index: number): boolean;

  /** The low `size` bytes of general register `number`, zero-extended. */
  gpr(number: number, size: number): I64 {
    return gpr(number, size);
  }
  /** The low `size` bytes of general register `number`, sign-extended. */
  gprSigned(number: number, size: number): I64 {
    return gprSigned(number, size);
  }
  /** Writes general register `number` as an instruction of operand size `size` does. */
  setGpr(number: number, size: number, value: I64): void {
    this.f.do(setGpr(number, size, value));
  }
  /** AH, zero-extended, and its new value. */
  ah(): I64 {
    return i64.load8U(i32.const(0), GPR + 1);
  }
  setAh(value: I64): void {
    this.f.do(i64.store8(i32.const(0), GPR + 1, value));
  }
  /** Operand `index` when the code that is made serves one value of it only. */
  constant(_index: number): number | undefined {
    return undefined;
  }
  /** Sign-extends a value from the operand size. */
  sized(value: I64): I64 {
    return signExtend(this.size, value);
  }
  /** Zero-extends a value from the operand size. */
  unsized(value: I64): I64 {
    return zeroExtend(this.size, value);
  }
  /** Leaves flags to be derived from a result, sign-extended like its operands; see flags.ts. */
  setFlags(kind: number, result: I64, dst?: I64, src?: I64): void {
    this.f.do(storeFlags(kind, result, dst, src));
  }
  /** Sets all six status flags from a word. */
  setStatus(word: I32): void {
    this.f.do(storeExplicitFlags(word));
  }
  /** The six status flags as a word. */
  status(): I32 {
    return call(this.flags.status);
  }
  /** Sets CF to a 0 or 1 and keeps the other flags. */
  setCarry(bit: I32): void {
    this.setStatus(i32.or(i32.and(this.status(), i32.const(~RFLAGS_CF)), bit));
  }
  /** CF as 0 or 1. */
  carry(): I32 {
    return call(this.flags.carry);
  }
  /** Condition `cc` as 0 or 1. */
  condition(cc: number): I32 {
    return condition(this.f, this.flags, cc);
  }
  /** Ends the instruction with an exception. */
  fault(vector: number, errorCode = -1): void {
    this.f.return(call(this.raise, i32.const(vector), i32.const(errorCode)));
  }
  do(...code: Code[]): void {
    this.f.do(...code);
  }
}

/** The meaning of an instruction whose operands are values: works in every kind of context. */
export type ValueEmitter = (c: Context) => void;
