/** Expressions that read and write fields of the processor's state (src/cpu/state.ts) at fixed addresses. */
import { RSP } from '../../arch/registers.ts';
import { RECORD_BASE, RECORD_DISP, RECORD_INDEX, RECORD_SCALE } from '../decode/record.ts';
import { CODE_MODE_AT, GPR } from '../state.ts';
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

/** 64-bit code is running. */
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

/** RSP, whole. */
export const stackPointer = (): I64 => gpr(RSP, 8);
