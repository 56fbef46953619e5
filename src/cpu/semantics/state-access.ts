/** Expressions that read and write fields of the processor's state (src/cpu/state.ts) at fixed addresses. */

import { GPR } from '../state.ts';
import { type Code, type I32, type I64, i32, i64, loadSigned, loadUnsigned, zeroExtend } from '../wasm/code.ts';

const ZERO = i32.const(0);

export const state32 = (at: number): I32 => i32.load(ZERO, at);
export const state64 = (at: number): I64 => i64.load(ZERO, at);
export const setState32 = (at: number, value: I32): Code => i32.store(ZERO, at, value);
export const setState64 = (at: number, value: I64): Code => i64.store(ZERO, at, value);

/** The low `size` bytes of general register `number`, sign-extended. */
export const gprSigned = (number: number, size: number): I64 => loadSigned(size, ZERO, GPR + number * 8);
/** The low `size` bytes of general register `number`, zero-extended. */
export const gpr = (number: number, size: number): I64 => loadUnsigned(size, ZERO, GPR + number * 8);
/** Writes a general register as an instruction of that operand size does: 4 bytes clear the upper half, 1 and 2 keep the rest. */
export const setGpr = (number: number, size: number, value: I64): Code =>
  storeRegister(ZERO, GPR + number * 8, size, value);

/** Writes `size` bytes of the register at `address` + `offset`; 4 bytes clear the upper half. */
export function storeRegister(address: I32, offset: number, size: number, value: I64): Code {
  if (size === 1) return i64.store8(address, offset, value);
  if (size === 2) return i64.store16(address, offset, value);
  return i64.store(address, offset, zeroExtend(size, value));
}
