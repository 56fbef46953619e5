/** ModRM, SIB and displacement: the memory operand, or the register in its place. @kvm emulate.c decode_modrm, decode_abs */
import { DS, RBP, RBX, RDI, RSI, RSP, SS } from '../../arch/registers.ts';
import { type EmulateCtxt, X86EMUL_MODE_PROT64 } from './ctxt.ts';
import { insnFetch } from './insn-fetch.ts';
import { BYTE_OP, INC_SP, MMX, NO_MOD, SSE } from './opcode.ts';
import { OP_MEM, OP_MM, OP_REG, OP_XMM } from './operand.ts';
import { X86EMUL_CONTINUE } from './ops.ts';
import { addHi, decodeRegister, fetchRegisterOperand, regHi, regLo } from './registers.ts';

/** Adds (lo, hi) to the effective address. */
function addEa(ctxt: EmulateCtxt, lo: number, hi: number): void {
  const { memop } = ctxt;
  memop.eaHi = addHi(memop.eaLo, memop.eaHi, lo, hi);
  memop.eaLo = (memop.eaLo + lo) | 0;
}

/** Adds a sign-extended displacement of `size` bytes. */
function addDisplacement(ctxt: EmulateCtxt, size: number): number {
  const rc = insnFetch(ctxt, size);
  if (rc === X86EMUL_CONTINUE) addEa(ctxt, ctxt.immLo, ctxt.immHi);
  return rc;
}

/** Adds a base register; rSP and rBP imply SS. */
function addBase(ctxt: EmulateCtxt, nr: number): void {
  addEa(ctxt, regLo(ctxt, nr), regHi(ctxt, nr));
  if (nr === RSP || nr === RBP) ctxt.modrmSeg = SS;
}

/** Fills `ctxt.memop` from the ModRM byte in `ctxt.modrm`. @kvm emulate.c decode_modrm */
export function decodeModrm(ctxt: EmulateCtxt): number {
  const { memop, modrm, rexPrefix } = ctxt;
  ctxt.modrmMod = modrm >> 6;
  ctxt.modrmReg = ((rexPrefix << 1) & 8) | ((modrm >> 3) & 7);
  ctxt.modrmRm = ((rexPrefix << 3) & 8) | (modrm & 7);
  ctxt.modrmSeg = DS;
  if (ctxt.modrmMod === 3 || (ctxt.d & NO_MOD) !== 0) {
    decodeRegisterForm(ctxt);
    return X86EMUL_CONTINUE;
  }
  memop.type = OP_MEM;
  memop.eaLo = 0;
  memop.eaHi = 0;
  const rc = ctxt.adBytes === 2 ? decodeAddress16(ctxt) : decodeAddress(ctxt);
  if (rc === X86EMUL_CONTINUE && ctxt.adBytes !== 8) memop.eaHi = 0;
  return rc;
}

/** ModRM.rm names a register. */
function decodeRegisterForm(ctxt: EmulateCtxt): void {
  const { memop } = ctxt;
  const byteOp = (ctxt.d & BYTE_OP) !== 0;
  memop.type = OP_REG;
  memop.bytes = byteOp ? 1 : ctxt.opBytes;
  memop.reg = decodeRegister(ctxt, ctxt.modrmRm, byteOp);
  if ((ctxt.d & SSE) !== 0) {
    memop.type = OP_XMM;
    memop.bytes = 16;
    memop.reg = ctxt.modrmRm;
    ctxt.ops.readXmm(ctxt, memop.reg, memop.val);
  } else if ((ctxt.d & MMX) !== 0) {
    memop.type = OP_MM;
    memop.bytes = 8;
    memop.reg = ctxt.modrmRm & 7;
  } else {
    fetchRegisterOperand(ctxt, memop);
  }
}

/** 16-bit addressing: pairs of base and index. @sdm table 2-1 */
function decodeAddress16(ctxt: EmulateCtxt): number {
  const { memop, modrmMod: mod, modrmRm: rm } = ctxt;
  const direct = mod === 0 && rm === 6;
  let ea = 0;
  if (mod !== 0 || direct) {
    const rc = insnFetch(ctxt, mod === 1 ? 1 : 2);
    if (rc !== X86EMUL_CONTINUE) return rc;
    ea = ctxt.immLo;
  }
  if (rm === 0 || rm === 1 || rm === 7) ea += regLo(ctxt, RBX);
  else if (rm === 2 || rm === 3 || (rm === 6 && !direct)) {
    ea += regLo(ctxt, RBP);
    ctxt.modrmSeg = SS;
  }
  if (rm === 0 || rm === 2 || rm === 4) ea += regLo(ctxt, RSI);
  else if (rm === 1 || rm === 3 || rm === 5) ea += regLo(ctxt, RDI);
  memop.eaLo = ea & 0xffff;
  return X86EMUL_CONTINUE;
}

/** 32- and 64-bit addressing. @sdm tables 2-2 and 2-3 */
function decodeAddress(ctxt: EmulateCtxt): number {
  const { modrmMod: mod, modrmRm: rm } = ctxt;
  let rc = X86EMUL_CONTINUE;
  if ((rm & 7) === 4) {
    rc = decodeSib(ctxt);
  } else if ((rm & 7) === 5 && mod === 0) {
    rc = addDisplacement(ctxt, 4);
    if (rc === X86EMUL_CONTINUE && ctxt.mode === X86EMUL_MODE_PROT64) ctxt.ripRelative = true;
  } else {
    addBase(ctxt, rm);
  }
  if (rc !== X86EMUL_CONTINUE || mod === 0) return rc;
  return addDisplacement(ctxt, mod === 1 ? 1 : 4);
}

function decodeSib(ctxt: EmulateCtxt): number {
  const rc = insnFetch(ctxt, 1);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const sib = ctxt.immLo & 0xff;
  const index = ((ctxt.rexPrefix << 2) & 8) | ((sib >> 3) & 7);
  const base = ((ctxt.rexPrefix << 3) & 8) | (sib & 7);
  const scale = sib >> 6;
  if ((base & 7) === 5 && ctxt.modrmMod === 0) {
    const fetched = addDisplacement(ctxt, 4);
    if (fetched !== X86EMUL_CONTINUE) return fetched;
  } else {
    addBase(ctxt, base);
    if ((ctxt.d & INC_SP) !== 0 && base === RSP) addEa(ctxt, ctxt.opBytes, 0);
  }
  if (index !== 4) {
    const lo = regLo(ctxt, index);
    const hi = regHi(ctxt, index);
    addEa(ctxt, lo << scale, scale === 0 ? hi : (hi << scale) | (lo >>> (32 - scale)));
  }
  return X86EMUL_CONTINUE;
}

/** An address that is in the instruction itself. @kvm emulate.c decode_abs */
export function decodeAbs(ctxt: EmulateCtxt): number {
  const { memop, adBytes } = ctxt;
  memop.type = OP_MEM;
  const rc = insnFetch(ctxt, adBytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  memop.eaLo = adBytes === 2 ? ctxt.immLo & 0xffff : ctxt.immLo;
  memop.eaHi = adBytes === 8 ? ctxt.immHi : 0;
  return X86EMUL_CONTINUE;
}
