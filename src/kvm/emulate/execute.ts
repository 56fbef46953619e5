/** Carries out a decoded instruction: checks, reads its operands, executes, writes back. @kvm emulate.c x86_emulate_insn */
import { PFERR_WRITE } from '../../arch/error-code.ts';
import { PF_VECTOR } from '../../arch/exceptions.ts';
import { CR0_EM, CR0_TS, CR4_OSFXSR, RCX, RDI, RFLAGS_DF, RFLAGS_RF, RFLAGS_ZF, RSI } from '../../arch/registers.ts';
import {
  EMULATION_FAILED,
  EMULATION_INTERCEPTED,
  EMULATION_OK,
  EMULATION_RESTART,
  type EmulateCtxt,
  X86EMUL_MODE_PROT16,
  X86EMUL_MODE_PROT64,
} from './ctxt.ts';
import { flushPendingX87Faults } from './fpu.ts';
import { X86_ICPT_POST_EXCEPT, X86_ICPT_POST_MEMACCESS, X86_ICPT_PRE_EXCEPT } from './intercepts.ts';
import { segmentedCmpxchg, segmentedRead, segmentedWrite } from './memory.ts';
import {
  CHECK_PERM,
  INTERCEPT,
  LOCK,
  MMX,
  MOV,
  NO_64,
  NO_ACCESS,
  NO_WRITE,
  OPERAND_DI,
  OPERAND_IMPLICIT,
  OPERAND_MEM_F_ADDR,
  OPERAND_SI,
  PRIV,
  PROT,
  SRC_WRITE,
  SSE,
  STRING,
  UNDEFINED,
} from './opcode.ts';
import { OP_MEM, OP_MEM_STR, OP_MM, OP_REG, OP_XMM, type Operand } from './operand.ts';
import { X86EMUL_CONTINUE, X86EMUL_INTERCEPTED, X86EMUL_PROPAGATE_FAULT, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { emulateGp, emulateNm, emulateUd } from './raise.ts';
import {
  addressHi,
  addressLo,
  regHi,
  registerAddressIncrement,
  registerAddressIsZero,
  regLo,
  regWrite,
  writebackRegisters,
  writeRegisterOperand,
} from './registers.ts';
import { readCr } from './segmentation.ts';

/** A repeated instruction gives the guest a chance to run every so many iterations. */
const REP_CHUNK = 1024;
const CPUID_VENDOR_INTEL = { ebx: 0x756e_6547, ecx: 0x6c65_746e, edx: 0x4965_6e69 };

/** Beyond CONTINUE and the failures: a repeated string instruction whose count is zero. */
const NOTHING_TO_DO = -1;

const CHECKED = NO_64 | UNDEFINED | SSE | MMX | INTERCEPT | CHECK_PERM | PRIV | PROT | STRING;

/** Asks the vendor whether a nested hypervisor intercepts the instruction. @kvm kvm_emulate.h check_intercept */
function checkIntercept(ctxt: EmulateCtxt, wanted: boolean, stage: number): number {
  return wanted && ctxt.intercept !== 0 ? ctxt.ops.intercept(ctxt, ctxt.intercept, stage) : X86EMUL_CONTINUE;
}

/** Vector instructions: #UD and #NM by CR0 and CR4, then pending x87 exceptions and the MMX operands. */
function checkVector(ctxt: EmulateCtxt): number {
  const { d } = ctxt;
  const sse = (d & SSE) !== 0;
  if ((readCr(ctxt, 0) & CR0_EM) !== 0) return emulateUd(ctxt);
  if (sse && (readCr(ctxt, 4) & CR4_OSFXSR) === 0) return emulateUd(ctxt);
  if ((readCr(ctxt, 0) & CR0_TS) !== 0) return emulateNm(ctxt);
  if ((d & MMX) === 0) return X86EMUL_CONTINUE;
  const rc = flushPendingX87Faults(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;
  fetchPossibleMmxOperand(ctxt, ctxt.src);
  fetchPossibleMmxOperand(ctxt, ctxt.src2);
  if ((d & MOV) === 0) fetchPossibleMmxOperand(ctxt, ctxt.dst);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c fetch_possible_mmx_operand */
function fetchPossibleMmxOperand(ctxt: EmulateCtxt, op: Operand): void {
  if (op.type === OP_MM) ctxt.ops.readMmx(ctxt, op.reg, op.val);
}

/** Everything that can forbid the instruction before it touches memory, in the order in which it is found. */
function checkInstruction(ctxt: EmulateCtxt, intercepts: boolean): number {
  const { d, ops } = ctxt;
  if ((d & NO_64) !== 0 && ctxt.mode === X86EMUL_MODE_PROT64) return emulateUd(ctxt);
  if ((d & UNDEFINED) !== 0) return emulateUd(ctxt);
  let rc = X86EMUL_CONTINUE;
  if ((d & (SSE | MMX)) !== 0) rc = checkVector(ctxt);
  if (rc === X86EMUL_CONTINUE) rc = checkIntercept(ctxt, intercepts, X86_ICPT_PRE_EXCEPT);
  if (rc !== X86EMUL_CONTINUE) return rc;
  if ((d & PROT) !== 0 && ctxt.mode < X86EMUL_MODE_PROT16) return emulateUd(ctxt);
  if ((d & PRIV) !== 0 && ops.cpl(ctxt) !== 0) return emulateGp(ctxt, 0);
  if ((d & CHECK_PERM) !== 0) rc = ctxt.checkPerm!(ctxt);
  if (rc === X86EMUL_CONTINUE) rc = checkIntercept(ctxt, intercepts, X86_ICPT_POST_EXCEPT);
  if (rc !== X86EMUL_CONTINUE) return rc;
  if (ctxt.repPrefix !== 0 && (d & STRING) !== 0 && registerAddressIsZero(ctxt, RCX)) {
    stringRegistersQuirk(ctxt);
    ctxt.eipLo = ctxt.nextEipLo;
    ctxt.eipHi = ctxt.nextEipHi;
    ctxt.eflags &= ~RFLAGS_RF;
    return NOTHING_TO_DO;
  }
  return X86EMUL_CONTINUE;
}

const leaf = new Uint32Array(4);

/** Intel clears upper halves when a 32-bit count is zero. @kvm emulate.c string_registers_quirk */
function stringRegistersQuirk(ctxt: EmulateCtxt): void {
  if (ctxt.adBytes !== 4) return;
  leaf.fill(0);
  ctxt.ops.getCpuid(ctxt, leaf, true);
  const vendor = CPUID_VENDOR_INTEL;
  if (leaf[1] !== vendor.ebx || leaf[2] !== vendor.ecx || leaf[3] !== vendor.edx) return;
  regWrite(ctxt, RCX, 0, 0);
  const movs = ctxt.b === 0xa4 || ctxt.b === 0xa5;
  if (movs) regWrite(ctxt, RSI, regLo(ctxt, RSI), 0);
  if (movs || ctxt.b === 0xaa || ctxt.b === 0xab) regWrite(ctxt, RDI, regLo(ctxt, RDI), 0);
}

function readOperand(ctxt: EmulateCtxt, op: Operand): number {
  return segmentedRead(ctxt, op.seg, op.eaLo, op.eaHi, op.val, 0, op.bytes);
}

/** Memory operands: sources, and the destination unless it is only written. */
function readOperands(ctxt: EmulateCtxt): number {
  const { d, src, src2, dst } = ctxt;
  if (src.type === OP_MEM && (d & NO_ACCESS) === 0) {
    const rc = readOperand(ctxt, src);
    if (rc !== X86EMUL_CONTINUE) return rc;
    src.keepOriginal();
  }
  if (src2.type === OP_MEM) {
    const rc = readOperand(ctxt, src2);
    if (rc !== X86EMUL_CONTINUE) return rc;
  }
  if (ctxt.dDst === OPERAND_IMPLICIT) return X86EMUL_CONTINUE;
  if (dst.type === OP_MEM && (d & MOV) === 0) {
    const rc = readOperand(ctxt, dst);
    if (rc !== X86EMUL_CONTINUE) {
      // Read for the sake of the write that follows: the guest is told of a write.
      const page = rc === X86EMUL_PROPAGATE_FAULT && ctxt.exception.vector === PF_VECTOR;
      if (page && (d & NO_WRITE) === 0) ctxt.exception.errorCode |= PFERR_WRITE;
      return rc;
    }
  }
  dst.keepOriginal();
  return X86EMUL_CONTINUE;
}

/** Stores an operand where it lives. @kvm emulate.c writeback */
function writeback(ctxt: EmulateCtxt, op: Operand): number {
  switch (op.type) {
    case OP_REG:
      writeRegisterOperand(ctxt, op);
      return X86EMUL_CONTINUE;
    case OP_MEM:
      if (ctxt.lockPrefix !== 0) {
        return segmentedCmpxchg(ctxt, op.seg, op.eaLo, op.eaHi, op.orig, op.val, op.bytes);
      }
      return segmentedWrite(ctxt, op.seg, op.eaLo, op.eaHi, op.val, 0, op.bytes);
    case OP_MEM_STR:
      return segmentedWrite(ctxt, op.seg, op.eaLo, op.eaHi, op.data, op.dataOff, op.bytes * op.count);
    case OP_XMM:
      ctxt.ops.writeXmm(ctxt, op.reg, op.val);
      return X86EMUL_CONTINUE;
    case OP_MM:
      ctxt.ops.writeMmx(ctxt, op.reg, op.val);
      return X86EMUL_CONTINUE;
    default:
      return X86EMUL_CONTINUE;
  }
}

/** Moves rSI or rDI past the elements done. @kvm emulate.c string_addr_inc */
function stringAddrInc(ctxt: EmulateCtxt, nr: number, op: Operand): void {
  const count = (ctxt.eflags & RFLAGS_DF) !== 0 ? -op.count : op.count;
  registerAddressIncrement(ctxt, nr, count * op.bytes);
  op.eaLo = addressLo(ctxt.adBytes, regLo(ctxt, nr));
  op.eaHi = addressHi(ctxt.adBytes, regHi(ctxt, nr));
}

/** CMPS and SCAS end when ZF is not what REPE or REPNE asks for. @kvm emulate.c string_insn_completed */
function stringInsnCompleted(ctxt: EmulateCtxt): boolean {
  const { b } = ctxt;
  if (b !== 0xa6 && b !== 0xa7 && b !== 0xae && b !== 0xaf) return false;
  const zero = (ctxt.eflags & RFLAGS_ZF) !== 0;
  return zero === (ctxt.repPrefix === 0xf2);
}

const FINISHED = 0;
const AGAIN = 1;
const LEAVE = 2;

/** After one iteration of a repeated string instruction: finished, on at once, or back to the guest with rIP where it is. */
function continueString(ctxt: EmulateCtxt): number {
  const count = ctxt.dSrc === OPERAND_SI ? ctxt.src.count : ctxt.dst.count;
  registerAddressIncrement(ctxt, RCX, -count);
  if (stringInsnCompleted(ctxt)) {
    ctxt.eflags &= ~RFLAGS_RF;
    return FINISHED;
  }
  const ahead = ctxt.ioRead;
  const more = ahead.end !== 0 ? ahead.end !== ahead.pos : (regLo(ctxt, RCX) & (REP_CHUNK - 1)) !== 0;
  return more ? AGAIN : LEAVE;
}

/** The end of every instruction: what was changed becomes visible, or not. */
function finish(ctxt: EmulateCtxt, rc: number): number {
  if (rc === X86EMUL_PROPAGATE_FAULT) ctxt.haveException = true;
  if (rc === X86EMUL_INTERCEPTED) return EMULATION_INTERCEPTED;
  if (rc === X86EMUL_CONTINUE || rc === NOTHING_TO_DO) writebackRegisters(ctxt);
  return rc === X86EMUL_UNHANDLEABLE ? EMULATION_FAILED : EMULATION_OK;
}

/** Checks and reads; X86EMUL_CONTINUE when the instruction may be executed. */
function prepare(ctxt: EmulateCtxt, intercepts: boolean): number {
  const { d } = ctxt;
  if (ctxt.lockPrefix !== 0 && ((d & LOCK) === 0 || ctxt.dst.type !== OP_MEM)) return emulateUd(ctxt);
  if (ctxt.dSrc === OPERAND_MEM_F_ADDR && ctxt.src.type !== OP_MEM) return emulateUd(ctxt);
  let rc = X86EMUL_CONTINUE;
  if ((d & CHECKED) !== 0) rc = checkInstruction(ctxt, intercepts);
  if (rc === X86EMUL_CONTINUE) rc = readOperands(ctxt);
  if (rc === X86EMUL_CONTINUE) rc = checkIntercept(ctxt, intercepts, X86_ICPT_POST_MEMACCESS);
  return rc;
}

/**
 * Emulates the decoded instruction: EMULATION_OK (done, or an exception in `haveException`, or waiting for userspace), EMULATION_RESTART
 * (call again at once: REP), EMULATION_FAILED, EMULATION_INTERCEPTED.
 * @kvm emulate.c x86_emulate_insn
 */
export function x86EmulateInsn(ctxt: EmulateCtxt, checkIntercepts: boolean): number {
  const { d, src, dst } = ctxt;
  const repeated = ctxt.repPrefix !== 0 && (d & STRING) !== 0;
  const dstType = dst.type;
  ctxt.memRead.pos = 0;
  let rc = prepare(ctxt, checkIntercepts);
  if (rc !== X86EMUL_CONTINUE) return finish(ctxt, rc);

  if (repeated) ctxt.eflags |= RFLAGS_RF;
  else ctxt.eflags &= ~RFLAGS_RF;
  if (ctxt.execute === null) return EMULATION_FAILED;
  rc = ctxt.execute(ctxt);
  if (rc === X86EMUL_CONTINUE && (d & SRC_WRITE) !== 0) rc = writeback(ctxt, src);
  if (rc === X86EMUL_CONTINUE && (d & NO_WRITE) === 0) rc = writeback(ctxt, dst);
  if (rc !== X86EMUL_CONTINUE) return finish(ctxt, rc);

  // The decoded operands serve the next iteration too.
  dst.type = dstType;
  if (ctxt.dSrc === OPERAND_SI) stringAddrInc(ctxt, RSI, src);
  if (ctxt.dDst === OPERAND_DI) stringAddrInc(ctxt, RDI, dst);
  if (repeated) {
    const next = continueString(ctxt);
    if (next === AGAIN) {
      ctxt.memRead.end = 0;
      writebackRegisters(ctxt);
      return EMULATION_RESTART;
    }
    if (next === LEAVE) return finish(ctxt, rc);
  }
  ctxt.eipLo = ctxt.nextEipLo;
  ctxt.eipHi = ctxt.mode === X86EMUL_MODE_PROT64 ? ctxt.nextEipHi : 0;
  return finish(ctxt, rc);
}
