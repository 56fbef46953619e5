/** The context of the calculator (src/cpu/alu.ts): three operands in fixed slots of a small memory, flags and registers in its state. */
import { type I64, i32, loadSigned, loadUnsigned, storeSized, zeroExtend } from '../wasm/code.ts';
import type { FunctionBuilder, FunctionRef, Local64 } from '../wasm/function.ts';
import { Context } from './context.ts';
import type { FlagFunctions } from './flags.ts';

/** Bytes from one operand slot to the next. */
export const SLOT = 8;

export class CalculatorContext extends Context {
  private readonly countIndex: number;

  /** @param countIndex the operand that is one byte whatever the operand size: a shift count */
  constructor(f: FunctionBuilder, size: number, flags: FlagFunctions, raise: FunctionRef, countIndex: number) {
    super(f, size, flags, raise);
    this.countIndex = countIndex;
  }
  sizeOf(index: number): number {
    return index === this.countIndex ? 1 : this.size;
  }
  isMemory(): boolean {
    return false;
  }
  read(index: number): Local64 {
    return this.f.i64(loadSigned(this.sizeOf(index), i32.const(0), index * SLOT));
  }
  readUnsigned(index: number): Local64 {
    return this.f.i64(loadUnsigned(this.sizeOf(index), i32.const(0), index * SLOT));
  }
  update(index: number): Local64 {
    return this.read(index);
  }
  write(index: number, value: I64): void {
    this.do(storeSized(8, i32.const(0), index * SLOT, zeroExtend(this.size, value)));
  }
}
