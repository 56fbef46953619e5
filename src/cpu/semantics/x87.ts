/**
 * The x87 instructions. The unit itself is TypeScript (src/cpu/floating/x87-unit.ts); an emitter checks that it may be used and moves
 * operands. Registers hold the 80-bit format in FPU_REGS, in order from ST(0), as FXSAVE stores them.
 */
import { NM_VECTOR } from '../../arch/exceptions.ts';
import { CR0_EM, CR0_MP, CR0_TS } from '../../arch/registers.ts';
import { RECORD_RM } from '../decode/record.ts';
import {
  ASSIST_X87_COMMIT,
  ASSIST_X87_MOVE,
  ASSIST_X87_OPERAND,
  ASSIST_X87_REGISTERS,
  ASSIST_X87_STORE,
} from '../floating/assist.ts';
import { ASSIST_A, ASSIST_RESULT, ASSIST_STORES } from '../floating/fpu-memory.ts';
import { ACCESS_READ, ACCESS_WRITE, CR0_AT, FPU_SW_AT } from '../state.ts';
import { type I32, i32, i64, loadUnsigned, storeSized } from '../wasm/code.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { setState32, setState64, state32, state64 } from './state-access.ts';
import { requireNothingPending } from './vector.ts';

/** x87 instructions want neither emulation nor a task switch in between; all but a few report a pending exception first. */
export function requireX87(c: MachineContext, waits = true): void {
  c.f.if(i32.and(state32(CR0_AT), i32.const(CR0_EM | CR0_TS)), () => c.fault(NM_VECTOR));
  if (waits) requireNothingPending(c);
}

/** WAIT: a task switch matters only with CR0.MP. */
export const wait: MachineEmitter = (c) => {
  const bits = CR0_MP | CR0_TS;
  c.f.if(i32.eq(i32.and(state32(CR0_AT), i32.const(bits)), i32.const(bits)), () => c.fault(NM_VECTOR));
  requireNothingPending(c);
};
export const fnop: MachineEmitter = (c) => requireX87(c);

/** With a memory operand of `bytes` to read; `group` is the opcode byte, `digit` ModRM.reg. */
export const x87Operand =
  (group: number, digit: number, bytes: 2 | 4 | 8 | 10): MachineEmitter =>
  (c) => {
    requireX87(c);
    const at = c.pointer(bytes, ACCESS_READ);
    c.do(setState64(ASSIST_A, loadUnsigned(bytes === 10 ? 8 : bytes, at.get)));
    if (bytes === 10) c.do(setState64(ASSIST_A + 8, i64.load16U(at.get, 8)));
    c.assist(ASSIST_X87_OPERAND, i32.const(((group & 7) << 8) | (digit << 3)));
  };

/** With a memory operand of `bytes` to write. An unmasked exception leaves memory and the stack alone, a fault of the store the status word. */
export const x87Store =
  (group: number, digit: number, bytes: 2 | 4 | 8 | 10): MachineEmitter =>
  (c) => {
    requireX87(c);
    const before = c.f.i32(state32(FPU_SW_AT));
    c.assist(ASSIST_X87_STORE, i32.const(((group & 7) << 8) | (digit << 3)));
    c.f.if(state32(ASSIST_STORES), () => {
      const after = c.f.i32(state32(FPU_SW_AT));
      c.do(setState32(FPU_SW_AT, before.get));
      const at = c.pointer(bytes, ACCESS_WRITE);
      c.do(setState32(FPU_SW_AT, after.get));
      c.do(storeSized(bytes === 10 ? 8 : bytes, at.get, 0, state64(ASSIST_RESULT)));
      if (bytes === 10) c.do(i64.store16(at.get, 8, state64(ASSIST_RESULT + 8)));
      c.finish();
      c.assist(ASSIST_X87_COMMIT, i32.const(0));
    });
  };

/** The register number in ModRM.rm, without REX.B. */
const stackRegister = (c: MachineContext): I32 =>
  i32.and(i32.shrU(i32.load8U(c.record, RECORD_RM), i32.const(3)), i32.const(7));

/** Between ST(0) and ST(i). */
export const x87Registers =
  (group: number, digit: number): MachineEmitter =>
  (c) => {
    requireX87(c);
    const code = i32.const(((group & 7) << 8) | 0xc0 | (digit << 3));
    c.assist(ASSIST_X87_REGISTERS, i32.or(code, stackRegister(c)));
  };
/** One whose whole ModRM byte is part of the opcode. */
export const x87Fixed =
  (group: number, modrm: number): MachineEmitter =>
  (c) => {
    requireX87(c);
    c.assist(ASSIST_X87_REGISTERS, i32.const(((group & 7) << 8) | modrm));
  };
/** FCOMI and kin set the flags. */
export const x87Flags =
  (group: number, digit: number): MachineEmitter =>
  (c) => {
    x87Registers(group, digit)(c);
    c.setStatus(state32(ASSIST_RESULT));
  };
/** FCMOVcc by condition number. */
export const fcmov =
  (condition: number): MachineEmitter =>
  (c) => {
    requireX87(c);
    const taken = c.f.i32(c.condition(condition));
    c.assist(ASSIST_X87_MOVE, i32.or(stackRegister(c), i32.shl(taken.get, i32.const(3))));
  };
