/** Binds the arithmetic instructions to the processor's calculator, and the few decimal ones KVM emulates itself. */
import { RAX, RDX, RFLAGS_AF, RFLAGS_CF, RFLAGS_OF, RFLAGS_PF, RFLAGS_SF, RFLAGS_ZF } from '../../arch/registers.ts';
import {
  ALU_ADC,
  ALU_ADD,
  ALU_AND,
  ALU_BSF,
  ALU_BSR,
  ALU_BT,
  ALU_BTC,
  ALU_BTR,
  ALU_BTS,
  ALU_CMP,
  ALU_DEC,
  ALU_DIV,
  ALU_IDIV,
  ALU_IMUL,
  ALU_IMUL2,
  ALU_INC,
  ALU_MUL,
  ALU_NEG,
  ALU_NOT,
  ALU_OR,
  ALU_RCL,
  ALU_RCR,
  ALU_ROL,
  ALU_ROR,
  ALU_SAR,
  ALU_SBB,
  ALU_SHL,
  ALU_SHLD,
  ALU_SHR,
  ALU_SHRD,
  ALU_SUB,
  ALU_TEST,
  ALU_XADD,
  ALU_XOR,
  Alu,
} from '../../cpu/alu.ts';
import type { EmulateCtxt, Handler } from './ctxt.ts';
import { BYTE_OP } from './opcode.ts';
import { OP_IMM, OP_NONE, OP_REG, type Operand } from './operand.ts';
import { X86EMUL_CONTINUE } from './ops.ts';
import { emulateDe } from './raise.ts';
import { regHi, regLo, regRmw } from './registers.ts';

const STATUS = RFLAGS_OF | RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF | RFLAGS_CF;

/** One calculator serves everybody: it keeps nothing between operations. Built on first use. */
let calculator: Alu | null = null;

/** Runs ALU_ `op` on `dst`, `first` and `second` and takes over the status flags. #DE as the instruction says. @kvm emulate.c fastop */
function calculate(ctxt: EmulateCtxt, op: number, dst: Operand, first: Operand, second: Operand): number {
  calculator ??= new Alu();
  const words = calculator.i32;
  const size = (ctxt.d & BYTE_OP) !== 0 ? 1 : ctxt.dst.bytes;
  words[0] = dst.i32[0]!;
  words[1] = dst.i32[1]!;
  words[2] = first.i32[0]!;
  words[3] = first.i32[1]!;
  words[4] = second.i32[0]!;
  words[5] = second.i32[1]!;
  const flags = calculator.exec(op, size, ctxt.eflags & STATUS);
  if (flags === -1) return emulateDe(ctxt);
  ctxt.eflags = (ctxt.eflags & ~STATUS) | (flags & STATUS);
  dst.set(words[0]!, words[1]!);
  return X86EMUL_CONTINUE;
}

/** dst <- dst op src. */
function binary(op: number): Handler {
  return (ctxt) => calculate(ctxt, op, ctxt.dst, ctxt.src, ctxt.src2);
}

/** dst <- dst shifted by src2, which is where the tables put shift counts. */
function shift(op: number): Handler {
  return (ctxt) => calculate(ctxt, op, ctxt.dst, ctxt.src2, ctxt.src);
}

export const emAdd = binary(ALU_ADD);
export const emOr = binary(ALU_OR);
export const emAdc = binary(ALU_ADC);
export const emSbb = binary(ALU_SBB);
export const emAnd = binary(ALU_AND);
export const emSub = binary(ALU_SUB);
export const emXor = binary(ALU_XOR);
export const emCmp = binary(ALU_CMP);
export const emTest = binary(ALU_TEST);
export const emInc = binary(ALU_INC);
export const emDec = binary(ALU_DEC);
export const emNeg = binary(ALU_NEG);
export const emNot = binary(ALU_NOT);
export const emRol = shift(ALU_ROL);
export const emRor = shift(ALU_ROR);
export const emRcl = shift(ALU_RCL);
export const emRcr = shift(ALU_RCR);
export const emShl = shift(ALU_SHL);
export const emShr = shift(ALU_SHR);
export const emSar = shift(ALU_SAR);
export const emShld = binary(ALU_SHLD);
export const emShrd = binary(ALU_SHRD);
export const emBt = binary(ALU_BT);
export const emBts = binary(ALU_BTS);
export const emBtr = binary(ALU_BTR);
export const emBtc = binary(ALU_BTC);
export const emImul = binary(ALU_IMUL2);

/** Flags of src - dst: string compares name their operands the other way round. @kvm emulate.c em_cmp_r */
export function emCmpR(ctxt: EmulateCtxt): number {
  const { dst, src } = ctxt;
  const lo = src.i32[0]!;
  const hi = src.i32[1]!;
  const rc = calculate(ctxt, ALU_CMP, src, dst, ctxt.src2);
  src.set(lo, hi);
  return rc;
}

export function emXadd(ctxt: EmulateCtxt): number {
  const { dst, src } = ctxt;
  const lo = dst.i32[0]!;
  const hi = dst.i32[1]!;
  const rc = calculate(ctxt, ALU_XADD, dst, src, ctxt.src2);
  src.set(lo, hi);
  return rc;
}

/** A zero source leaves the destination and sets ZF. */
function scan(op: number): Handler {
  return (ctxt) => {
    if ((ctxt.src.i32[0]! | ctxt.src.i32[1]!) === 0) ctxt.dst.type = OP_NONE;
    return calculate(ctxt, op, ctxt.dst, ctxt.src, ctxt.src2);
  };
}
export const emBsf = scan(ALU_BSF);
export const emBsr = scan(ALU_BSR);

/** One-operand multiply: rAX in dst, rDX in src, the factor in src2; bytes give AX in dst. @kvm emulate.c em_mul_ex */
function multiply(op: number): Handler {
  return (ctxt) => {
    const { dst, src, src2 } = ctxt;
    const rc = calculate(ctxt, op, dst, src2, src);
    const words = calculator!.i32;
    if ((ctxt.d & BYTE_OP) !== 0) dst.set((dst.i32[0]! & 0xff) | ((words[2]! & 0xff) << 8), 0);
    else src.set(words[2]!, words[3]!);
    return rc;
  };
}
export const emMulEx = multiply(ALU_MUL);
export const emImulEx = multiply(ALU_IMUL);

/** One-operand divide: rDX:rAX in src and dst, the divisor in src2; bytes divide AX. #DE. @kvm emulate.c em_div_ex */
function divide(op: number): Handler {
  return (ctxt) => {
    const { dst, src, src2 } = ctxt;
    const bytes = (ctxt.d & BYTE_OP) !== 0;
    if (bytes) src.set((dst.i32[0]! >> 8) & 0xff, 0);
    const rc = calculate(ctxt, op, dst, src2, src);
    if (rc !== X86EMUL_CONTINUE) return rc;
    const words = calculator!.i32;
    if (bytes) dst.set((dst.i32[0]! & 0xff) | ((words[4]! & 0xff) << 8), 0);
    else src.set(words[4]!, words[5]!);
    return X86EMUL_CONTINUE;
  };
}
export const emDivEx = divide(ALU_DIV);
export const emIdivEx = divide(ALU_IDIV);

export function emImul3op(ctxt: EmulateCtxt): number {
  ctxt.dst.set(ctxt.src2.i32[0]!, ctxt.src2.i32[1]!);
  return emImul(ctxt);
}

/** Compares rAX with dst; ends with what to write in dst and, on a mismatch, in rAX through src. @kvm emulate.c em_cmpxchg */
export function emCmpxchg(ctxt: EmulateCtxt): number {
  const { dst, src } = ctxt;
  dst.keepOriginal();
  src.keepOriginal();
  dst.set(regLo(ctxt, RAX), regHi(ctxt, RAX));
  src.set(dst.orig32[0]!, dst.orig32[1]!);
  emCmp(ctxt);
  if ((ctxt.eflags & RFLAGS_ZF) !== 0) {
    src.type = OP_NONE;
    dst.set(src.orig32[0]!, src.orig32[1]!);
  } else {
    regRmw(ctxt, RAX);
    src.type = OP_REG;
    src.reg = 8 * RAX;
    src.set(dst.orig32[0]!, dst.orig32[1]!);
    dst.set(dst.orig32[0]!, dst.orig32[1]!);
  }
  return X86EMUL_CONTINUE;
}

/** Sign of the accumulator into every bit of rDX. @kvm emulate.c em_cwd */
export function emCwd(ctxt: EmulateCtxt): number {
  const { dst, src } = ctxt;
  regRmw(ctxt, RDX);
  dst.type = OP_REG;
  dst.bytes = src.bytes;
  dst.reg = 8 * RDX;
  const top = src.bytes === 8 ? src.i32[1]! : src.i32[0]! << (src.bytes === 2 ? 16 : 0);
  dst.set(top >> 31, top >> 31);
  return X86EMUL_CONTINUE;
}

/** PF, ZF and SF of dst in the operand size: OR with zero. */
function flagsOfResult(ctxt: EmulateCtxt): number {
  ctxt.src.type = OP_IMM;
  ctxt.src.set(0, 0);
  ctxt.src.bytes = 1;
  return emOr(ctxt);
}

/** @kvm emulate.c em_das */
export function emDas(ctxt: EmulateCtxt): number {
  const before = ctxt.dst.i32[0]! & 0xff;
  const oldCarry = (ctxt.eflags & RFLAGS_CF) !== 0;
  let al = before;
  let carry = false;
  const adjust = (al & 15) > 9 || (ctxt.eflags & RFLAGS_AF) !== 0;
  if (adjust) {
    al = (al - 6) & 0xff;
    carry = oldCarry || al >= 250;
  }
  if (before > 0x99 || oldCarry) {
    al = (al - 0x60) & 0xff;
    carry = true;
  }
  ctxt.dst.set(al, 0);
  flagsOfResult(ctxt);
  ctxt.eflags &= ~(RFLAGS_AF | RFLAGS_CF);
  if (carry) ctxt.eflags |= RFLAGS_CF;
  if (adjust) ctxt.eflags |= RFLAGS_AF;
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_aam */
export function emAam(ctxt: EmulateCtxt): number {
  const divisor = ctxt.src.i32[0]!;
  if (divisor === 0) return emulateDe(ctxt);
  const value = ctxt.dst.i32[0]!;
  const al = value & 0xff;
  ctxt.dst.set((value & 0xffff_0000) | (al % divisor) | (Math.floor(al / divisor) << 8), 0);
  return flagsOfResult(ctxt);
}

/** @kvm emulate.c em_aad */
export function emAad(ctxt: EmulateCtxt): number {
  const value = ctxt.dst.i32[0]!;
  const al = ((value & 0xff) + ((value >> 8) & 0xff) * ctxt.src.i32[0]!) & 0xff;
  ctxt.dst.set((value & 0xffff_0000) | al, 0);
  return flagsOfResult(ctxt);
}

/** AL <- all ones if CF, else zero. */
export function emSalc(ctxt: EmulateCtxt): number {
  ctxt.dst.set((ctxt.eflags & RFLAGS_CF) !== 0 ? 0xff : 0, 0);
  return X86EMUL_CONTINUE;
}
