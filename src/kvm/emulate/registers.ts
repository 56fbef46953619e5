/** The emulator's copy of the general registers: loaded on first use, stored back only when the instruction completes. */
import { RSP, SS } from '../../arch/registers.ts';
import { type EmulateCtxt, X86EMUL_MODE_PROT64 } from './ctxt.ts';
import { type Operand, REG_RFLAGS } from './operand.ts';

/** Makes register `nr` readable in `ctxt.regs`. @kvm kvm_emulate.h reg_read */
function regLoad(ctxt: EmulateCtxt, nr: number): void {
  const bit = 1 << nr;
  if ((ctxt.regsValid & bit) === 0) {
    ctxt.regsValid |= bit;
    ctxt.ops.readGpr(ctxt, nr);
  }
}

/** Low half of register `nr`. */
export function regLo(ctxt: EmulateCtxt, nr: number): number {
  regLoad(ctxt, nr);
  return ctxt.regs[2 * nr]!;
}

/** High half of register `nr`. */
export function regHi(ctxt: EmulateCtxt, nr: number): number {
  regLoad(ctxt, nr);
  return ctxt.regs[2 * nr + 1]!;
}

/** Replaces register `nr`. @kvm kvm_emulate.h reg_write */
export function regWrite(ctxt: EmulateCtxt, nr: number, lo: number, hi: number): void {
  const bit = 1 << nr;
  ctxt.regsValid |= bit;
  ctxt.regsDirty |= bit;
  ctxt.regs[2 * nr] = lo;
  ctxt.regs[2 * nr + 1] = hi;
}

/** Makes register `nr` readable and counts it as changed. @kvm kvm_emulate.h reg_rmw */
export function regRmw(ctxt: EmulateCtxt, nr: number): void {
  regLoad(ctxt, nr);
  ctxt.regsDirty |= 1 << nr;
}

/** @kvm emulate.c writeback_registers */
export function writebackRegisters(ctxt: EmulateCtxt): void {
  for (let left = ctxt.regsDirty; left !== 0; left &= left - 1) ctxt.ops.writeGpr(ctxt, 31 - Math.clz32(left & -left));
}

/** @kvm emulate.c invalidate_registers */
export function invalidateRegisters(ctxt: EmulateCtxt): void {
  ctxt.regsDirty = 0;
  ctxt.regsValid = 0;
}

/**
 * Stores `bytes` of a value at byte offset `off` of the register file, as a register write does: four bytes clear the upper half, one or
 * two leave the rest alone. @kvm insn-eval.h insn_assign_reg
 */
export function assignReg(ctxt: EmulateCtxt, off: number, lo: number, hi: number, bytes: number): void {
  switch (bytes) {
    case 1:
      ctxt.regs8[off] = lo;
      break;
    case 2:
      ctxt.regs16[off >> 1] = lo;
      break;
    case 4:
      ctxt.regs[off >> 2] = lo;
      ctxt.regs[(off >> 2) + 1] = 0;
      break;
    case 8:
      ctxt.regs[off >> 2] = lo;
      ctxt.regs[(off >> 2) + 1] = hi;
      break;
  }
}

/** Replaces only the low `size` bytes (2, 4 or 8) of register `nr`: how stack addresses move. @kvm emulate.c assign_masked */
export function assignMasked(ctxt: EmulateCtxt, nr: number, lo: number, hi: number, size: number): void {
  regRmw(ctxt, nr);
  if (size === 2) {
    ctxt.regs16[4 * nr] = lo;
    return;
  }
  ctxt.regs[2 * nr] = lo;
  if (size === 8) ctxt.regs[2 * nr + 1] = hi;
}

/** Byte offset in the register file of the register that an encoding names; AH..BH without REX. @kvm emulate.c decode_register */
export function decodeRegister(ctxt: EmulateCtxt, reg: number, byteOp: boolean): number {
  if (byteOp && ctxt.rexPrefix === 0 && reg >= 4 && reg < 8) {
    regRmw(ctxt, reg & 3);
    return 8 * (reg & 3) + 1;
  }
  regRmw(ctxt, reg);
  return 8 * reg;
}

/** Loads an OP_REG operand's value, zero-extended. @kvm emulate.c fetch_register_operand */
export function fetchRegisterOperand(ctxt: EmulateCtxt, op: Operand): void {
  switch (op.bytes) {
    case 1:
      op.set(ctxt.regs8[op.reg]!, 0);
      break;
    case 2:
      op.set(ctxt.regs16[op.reg >> 1]!, 0);
      break;
    case 4:
      op.set(ctxt.regs[op.reg >> 2]!, 0);
      break;
    case 8:
      op.set(ctxt.regs[op.reg >> 2]!, ctxt.regs[(op.reg >> 2) + 1]!);
      break;
  }
}

/** Stores an OP_REG operand's value. @kvm emulate.c write_register_operand */
export function writeRegisterOperand(ctxt: EmulateCtxt, op: Operand): void {
  if (op.reg === REG_RFLAGS) {
    const value = op.i32[0]!;
    ctxt.eflags = op.bytes === 2 ? (ctxt.eflags & ~0xffff) | (value & 0xffff) : value;
    return;
  }
  assignReg(ctxt, op.reg, op.i32[0]!, op.i32[1]!, op.bytes);
}

/** Low half of an address cut to `adBytes`. @kvm emulate.c address_mask */
export function addressLo(adBytes: number, lo: number): number {
  return adBytes === 2 ? lo & 0xffff : lo;
}

/** High half of an address cut to `adBytes`. */
export function addressHi(adBytes: number, hi: number): number {
  return adBytes === 8 ? hi : 0;
}

/** Adds `inc` to register `nr` in the width of addresses. @kvm emulate.c register_address_increment */
export function registerAddressIncrement(ctxt: EmulateCtxt, nr: number, inc: number): void {
  regRmw(ctxt, nr);
  const lo = ctxt.regs[2 * nr]!;
  const sum = (lo + inc) | 0;
  assignReg(ctxt, 8 * nr, sum, addHi(lo, ctxt.regs[2 * nr + 1]!, inc, inc >> 31), ctxt.adBytes);
}

/** True when register `nr`, in the width of addresses, is zero. */
export function registerAddressIsZero(ctxt: EmulateCtxt, nr: number): boolean {
  const lo = addressLo(ctxt.adBytes, regLo(ctxt, nr));
  return (lo | addressHi(ctxt.adBytes, regHi(ctxt, nr))) === 0;
}

/** High half of (aLo, aHi) + (bLo, bHi); the low half is `(aLo + bLo) | 0`. */
export function addHi(aLo: number, aHi: number, bLo: number, bHi: number): number {
  const carry = (aLo >>> 0) + (bLo >>> 0) > 0xffff_ffff ? 1 : 0;
  return (aHi + bHi + carry) | 0;
}

/** Width in bytes of stack addresses: 2, 4 or 8. @kvm emulate.c stack_size */
export function stackSize(ctxt: EmulateCtxt): number {
  if (ctxt.mode === X86EMUL_MODE_PROT64) return 8;
  ctxt.ops.getSegment(ctxt, SS, ctxt.seg);
  return ctxt.seg.db !== 0 ? 4 : 2;
}

/** Moves the stack pointer by `inc` bytes. @kvm emulate.c rsp_increment */
export function rspIncrement(ctxt: EmulateCtxt, inc: number): void {
  regRmw(ctxt, RSP);
  const lo = ctxt.regs[2 * RSP]!;
  const hi = ctxt.regs[2 * RSP + 1]!;
  assignMasked(ctxt, RSP, (lo + inc) | 0, addHi(lo, hi, inc, inc >> 31), stackSize(ctxt));
}
