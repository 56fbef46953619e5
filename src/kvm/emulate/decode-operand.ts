/** Turns an operand kind of the opcode table into an operand. @kvm emulate.c decode_operand */
import { ES, RAX, RBX, RCX, RDI, RDX, RSI } from '../../arch/registers.ts';
import type { EmulateCtxt } from './ctxt.ts';
import { insnFetch, insnFetchBytes } from './insn-fetch.ts';
import {
  BIT_OP,
  BYTE_OP,
  MMX,
  MODRM,
  OPERAND_ACC,
  OPERAND_ACC_HI,
  OPERAND_ACC_LO,
  OPERAND_CL,
  OPERAND_DI,
  OPERAND_DX,
  OPERAND_IMM,
  OPERAND_IMM_BYTE,
  OPERAND_IMM_F_ADDR,
  OPERAND_IMM_U_BYTE,
  OPERAND_IMM_U16,
  OPERAND_IMM64,
  OPERAND_MEM,
  OPERAND_MEM_F_ADDR,
  OPERAND_MEM8,
  OPERAND_MEM16,
  OPERAND_MEM32,
  OPERAND_MEM64,
  OPERAND_ONE,
  OPERAND_REG,
  OPERAND_SI,
  OPERAND_SREG,
  OPERAND_XLAT,
  SSE,
} from './opcode.ts';
import { OP_IMM, OP_MEM, OP_MM, OP_NONE, OP_REG, OP_XMM, type Operand } from './operand.ts';
import { X86EMUL_CONTINUE } from './ops.ts';
import {
  addHi,
  addressHi,
  addressLo,
  decodeRegister,
  fetchRegisterOperand,
  regHi,
  regLo,
  regRmw,
} from './registers.ts';

/** An immediate of `size` bytes. @kvm emulate.c decode_imm */
function decodeImm(ctxt: EmulateCtxt, op: Operand, size: number, signed: boolean): number {
  op.type = OP_IMM;
  op.bytes = size;
  op.eaLo = ctxt.nextEipLo;
  op.eaHi = ctxt.nextEipHi;
  const rc = insnFetch(ctxt, size);
  if (rc !== X86EMUL_CONTINUE) return rc;
  if (signed || size === 8) op.set(ctxt.immLo, ctxt.immHi);
  else op.set(size === 1 ? ctxt.immLo & 0xff : size === 2 ? ctxt.immLo & 0xffff : ctxt.immLo, 0);
  return X86EMUL_CONTINUE;
}

/** Bytes of an operand of the instruction's own size. */
function operandBytes(ctxt: EmulateCtxt): number {
  return (ctxt.d & BYTE_OP) !== 0 ? 1 : ctxt.opBytes;
}

/** The register that ModRM.reg, or the opcode itself, names. @kvm emulate.c decode_register_operand */
function decodeRegisterOperand(ctxt: EmulateCtxt, op: Operand): void {
  const reg = (ctxt.d & MODRM) !== 0 ? ctxt.modrmReg : (ctxt.b & 7) | ((ctxt.rexPrefix & 1) << 3);
  if ((ctxt.d & SSE) !== 0) {
    op.type = OP_XMM;
    op.bytes = 16;
    op.reg = reg;
    ctxt.ops.readXmm(ctxt, reg, op.val);
    return;
  }
  if ((ctxt.d & MMX) !== 0) {
    op.type = OP_MM;
    op.bytes = 8;
    op.reg = reg & 7;
    return;
  }
  op.type = OP_REG;
  op.bytes = operandBytes(ctxt);
  op.reg = decodeRegister(ctxt, reg, (ctxt.d & BYTE_OP) !== 0);
  fetchRegisterOperand(ctxt, op);
  op.keepOriginal();
}

/** Register `nr` in `bytes`. */
function fixedRegister(ctxt: EmulateCtxt, op: Operand, nr: number, bytes: number): void {
  regRmw(ctxt, nr);
  op.type = OP_REG;
  op.bytes = bytes;
  op.reg = 8 * nr;
  fetchRegisterOperand(ctxt, op);
}

/** The memory operand, or the register in its place, in `bytes`. */
function decodeMem(ctxt: EmulateCtxt, op: Operand, bytes: number): number {
  ctxt.memop.bytes = bytes;
  op.copyFrom(ctxt.memop);
  ctxt.memopp = op;
  if ((ctxt.d & BIT_OP) !== 0) fetchBitOperand(ctxt);
  op.keepOriginal();
  return X86EMUL_CONTINUE;
}

/** A bit offset in a register reaches beyond the operand: the words it skips move the address. @kvm emulate.c fetch_bit_operand */
function fetchBitOperand(ctxt: EmulateCtxt): void {
  const { src, dst } = ctxt;
  if (dst.type === OP_MEM && src.type === OP_REG) {
    const mask = ~(dst.bytes * 8 - 1);
    let lo = src.i32[0]!;
    if (src.bytes === 2) lo = (lo << 16) >> 16;
    const hi = src.bytes === 8 ? src.i32[1]! : lo >> 31;
    lo &= mask;
    const skipLo = (lo >>> 3) | (hi << 29);
    const eaHi = addHi(dst.eaLo, dst.eaHi, skipLo, hi >> 3);
    dst.eaLo = addressLo(ctxt.adBytes, (dst.eaLo + skipLo) | 0);
    dst.eaHi = addressHi(ctxt.adBytes, eaHi);
  }
  src.set(src.i32[0]! & (dst.bytes * 8 - 1), 0);
}

/** A string operand at `seg`:(rSI or rDI). */
function decodeString(ctxt: EmulateCtxt, op: Operand, nr: number, seg: number): void {
  op.type = OP_MEM;
  op.bytes = operandBytes(ctxt);
  op.eaLo = addressLo(ctxt.adBytes, regLo(ctxt, nr));
  op.eaHi = addressHi(ctxt.adBytes, regHi(ctxt, nr));
  op.seg = seg;
  op.set(0, 0);
  op.count = 1;
}

/** Memory at rBX plus AL. */
function decodeXlat(ctxt: EmulateCtxt, op: Operand): void {
  op.type = OP_MEM;
  op.bytes = operandBytes(ctxt);
  const lo = regLo(ctxt, RBX);
  const al = regLo(ctxt, RAX) & 0xff;
  op.eaLo = addressLo(ctxt.adBytes, (lo + al) | 0);
  op.eaHi = addressHi(ctxt.adBytes, addHi(lo, regHi(ctxt, RBX), al, 0));
  op.seg = ctxt.segOverride;
  op.set(0, 0);
}

function implied(op: Operand, value: number, bytes: number): number {
  op.type = OP_IMM;
  op.bytes = bytes;
  op.set(value, 0);
  return X86EMUL_CONTINUE;
}

/** Fills `op` as `kind` (OPERAND_*) says. X86EMUL_*. @kvm emulate.c decode_operand */
export function decodeOperand(ctxt: EmulateCtxt, op: Operand, kind: number): number {
  const byteOp = (ctxt.d & BYTE_OP) !== 0;
  switch (kind) {
    case OPERAND_REG:
      decodeRegisterOperand(ctxt, op);
      return X86EMUL_CONTINUE;
    case OPERAND_MEM:
      return decodeMem(ctxt, op, operandBytes(ctxt));
    case OPERAND_MEM64:
      return decodeMem(ctxt, op, ctxt.opBytes === 8 ? 16 : 8);
    case OPERAND_MEM8:
      ctxt.memop.bytes = 1;
      if (ctxt.memop.type === OP_REG) {
        ctxt.memop.reg = decodeRegister(ctxt, ctxt.modrmRm, true);
        fetchRegisterOperand(ctxt, ctxt.memop);
      }
      return decodeMem(ctxt, op, 1);
    case OPERAND_MEM16:
      return decodeMem(ctxt, op, 2);
    case OPERAND_MEM32:
      return decodeMem(ctxt, op, 4);
    case OPERAND_MEM_F_ADDR:
      return decodeMem(ctxt, op, ctxt.opBytes + 2);
    case OPERAND_ACC:
      fixedRegister(ctxt, op, RAX, operandBytes(ctxt));
      op.keepOriginal();
      return X86EMUL_CONTINUE;
    case OPERAND_ACC_LO:
      fixedRegister(ctxt, op, RAX, byteOp ? 2 : ctxt.opBytes);
      op.keepOriginal();
      return X86EMUL_CONTINUE;
    case OPERAND_ACC_HI:
      if (byteOp) {
        op.type = OP_NONE;
        return X86EMUL_CONTINUE;
      }
      fixedRegister(ctxt, op, RDX, ctxt.opBytes);
      op.keepOriginal();
      return X86EMUL_CONTINUE;
    case OPERAND_DX:
      fixedRegister(ctxt, op, RDX, 2);
      return X86EMUL_CONTINUE;
    case OPERAND_DI:
      decodeString(ctxt, op, RDI, ES);
      return X86EMUL_CONTINUE;
    case OPERAND_SI:
      decodeString(ctxt, op, RSI, ctxt.segOverride);
      return X86EMUL_CONTINUE;
    case OPERAND_XLAT:
      decodeXlat(ctxt, op);
      return X86EMUL_CONTINUE;
    case OPERAND_CL:
      return implied(op, regLo(ctxt, RCX) & 0xff, 1);
    case OPERAND_ONE:
      return implied(op, 1, 1);
    case OPERAND_IMM_U_BYTE:
      return decodeImm(ctxt, op, 1, false);
    case OPERAND_IMM_BYTE:
      return decodeImm(ctxt, op, 1, true);
    case OPERAND_IMM:
      return decodeImm(ctxt, op, Math.min(operandBytes(ctxt), 4), true);
    case OPERAND_IMM64:
      return decodeImm(ctxt, op, ctxt.opBytes, true);
    case OPERAND_IMM_U16:
      return decodeImm(ctxt, op, 2, false);
    case OPERAND_IMM_F_ADDR:
      op.type = OP_IMM;
      op.eaLo = ctxt.nextEipLo;
      op.eaHi = ctxt.nextEipHi;
      op.bytes = ctxt.opBytes + 2;
      return insnFetchBytes(ctxt, op.val, op.bytes);
    default:
      if (kind >= OPERAND_SREG && kind < OPERAND_SREG + 6) return implied(op, kind - OPERAND_SREG, op.bytes);
      op.type = OP_NONE;
      return X86EMUL_CONTINUE;
  }
}
