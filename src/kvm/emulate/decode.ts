/** Instruction bytes to an instruction ready to execute. @kvm emulate.c x86_decode_insn */
import { CS, DS, ES, FS, GS, SS } from '../../arch/registers.ts';
import { EMULTYPE_TRAP_UD } from '../x86/emul-type.ts';
import {
  EMULATION_FAILED,
  EMULATION_OK,
  type EmulateCtxt,
  X86EMUL_MODE_PROT16,
  X86EMUL_MODE_PROT32,
  X86EMUL_MODE_PROT64,
} from './ctxt.ts';
import { decodeAbs, decodeModrm } from './decode-modrm.ts';
import { decodeOperand } from './decode-operand.ts';
import { fetchInsnBytes, insnFetch } from './insn-fetch.ts';
import { X86_INTERCEPT_NONE } from './intercepts.ts';
import {
  CHECK_PERM,
  EMULATE_ON_UD,
  INTERCEPT,
  IS_BRANCH,
  MEM_ABS,
  MMX,
  MODRM,
  NEAR_BRANCH,
  NO_16,
  NOT_IMPL,
  notImplemented,
  OP_3264,
  type Opcode,
  SPLIT_ESCAPE,
  SPLIT_MOD,
  SPLIT_NONE,
  SPLIT_PREFIX,
  SPLIT_REG,
  SPLIT_REG_MOD,
  SPLIT_RM,
  SSE,
  STACK,
} from './opcode.ts';
import { opcodeTable } from './opcode-map.ts';
import { opcodeMap0f38, twobyteTable } from './opcode-map-0f.ts';
import { OP_NONE } from './operand.ts';
import { X86EMUL_CONTINUE, X86EMUL_PROPAGATE_FAULT, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { addHi, addressHi, addressLo } from './registers.ts';

/** Segment that a prefix byte selects, or -1. */
function segmentPrefix(b: number): number {
  switch (b) {
    case 0x26:
      return ES;
    case 0x2e:
      return CS;
    case 0x36:
      return SS;
    case 0x3e:
      return DS;
    case 0x64:
      return FS;
    case 0x65:
      return GS;
    default:
      return -1;
  }
}

/** Reads prefixes; afterwards `ctxt.b` is the first opcode byte. */
function decodePrefixes(ctxt: EmulateCtxt, defOpBytes: number, defAdBytes: number): number {
  const long = ctxt.mode === X86EMUL_MODE_PROT64;
  ctxt.opPrefix = false;
  ctxt.hasSegOverride = false;
  ctxt.opBytes = defOpBytes;
  ctxt.adBytes = defAdBytes;
  for (;;) {
    const rc = insnFetch(ctxt, 1);
    if (rc !== X86EMUL_CONTINUE) return rc;
    const b = ctxt.immLo & 0xff;
    ctxt.b = b;
    const seg = segmentPrefix(b);
    if (long && (b & 0xf0) === 0x40) {
      ctxt.rexPrefix = b;
      continue;
    }
    if (b === 0x66) {
      ctxt.opPrefix = true;
      ctxt.opBytes = defOpBytes ^ 6;
    } else if (b === 0x67) {
      ctxt.adBytes = defAdBytes ^ (long ? 12 : 6);
    } else if (seg >= 0) {
      ctxt.hasSegOverride = true;
      ctxt.segOverride = seg;
    } else if (b === 0xf0) {
      ctxt.lockPrefix = 1;
    } else if (b === 0xf2 || b === 0xf3) {
      ctxt.repPrefix = b;
    } else {
      break;
    }
    // A prefix behind REX takes its effect away.
    ctxt.rexPrefix = 0;
  }
  if ((ctxt.rexPrefix & 8) !== 0) ctxt.opBytes = 8;
  return X86EMUL_CONTINUE;
}

/** The next opcode byte, and its row in `table`. */
function nextOpcode(ctxt: EmulateCtxt, table: readonly Opcode[], length: number): number {
  ctxt.opcodeLen = length;
  const rc = insnFetch(ctxt, 1);
  if (rc !== X86EMUL_CONTINUE) return rc;
  ctxt.b = ctxt.immLo & 0xff;
  ctxt.row = table[ctxt.b]!;
  return X86EMUL_CONTINUE;
}

/** One- to three-byte opcodes and the ModRM byte; the row goes to `ctxt.row`. */
function decodeOpcode(ctxt: EmulateCtxt): number {
  let rc = X86EMUL_CONTINUE;
  ctxt.row = opcodeTable[ctxt.b]!;
  if (ctxt.b === 0x0f) {
    rc = nextOpcode(ctxt, twobyteTable, 2);
    if (rc === X86EMUL_CONTINUE && (ctxt.b as number) === 0x38) rc = nextOpcode(ctxt, opcodeMap0f38, 3);
    if (rc !== X86EMUL_CONTINUE) return rc;
  }
  if ((ctxt.row.flags & MODRM) !== 0) {
    rc = insnFetch(ctxt, 1);
    if (rc !== X86EMUL_CONTINUE) return rc;
    ctxt.modrm = ctxt.immLo & 0xff;
  }
  // VEX is not emulated; outside 64-bit mode a memory form is LES or LDS.
  const vex = ctxt.opcodeLen === 1 && (ctxt.b === 0xc4 || ctxt.b === 0xc5);
  if (vex && (ctxt.mode === X86EMUL_MODE_PROT64 || ctxt.modrm >= 0xc0)) ctxt.row = notImplemented;
  return X86EMUL_CONTINUE;
}

/** Which row of a split opcode applies; -1 for a combination of prefixes that none has. */
function rowOf(ctxt: EmulateCtxt, opcode: Opcode): number {
  const { modrm } = ctxt;
  const reg = (modrm >> 3) & 7;
  switch (opcode.split) {
    case SPLIT_REG:
      return reg;
    case SPLIT_REG_MOD:
      return modrm >= 0xc0 ? 8 + reg : reg;
    case SPLIT_RM:
      return modrm & 7;
    case SPLIT_PREFIX:
      if (ctxt.opPrefix) return ctxt.repPrefix !== 0 ? -1 : 1;
      return ctxt.repPrefix === 0 ? 0 : ctxt.repPrefix - 0xf0;
    case SPLIT_ESCAPE:
      return modrm >= 0xc0 ? 8 + modrm - 0xc0 : reg;
    case SPLIT_MOD:
      return modrm >= 0xc0 ? 1 : 0;
    default:
      return ctxt.mode === X86EMUL_MODE_PROT64 ? 1 : 0;
  }
}

/** Follows splits to the row that has no more of them, collecting flags and operands. */
function resolve(ctxt: EmulateCtxt): number {
  let row = ctxt.row;
  ctxt.d = row.flags;
  ctxt.dDst = row.dst;
  ctxt.dSrc = row.src;
  ctxt.dSrc2 = row.src2;
  while (row.split !== SPLIT_NONE) {
    const index = rowOf(ctxt, row);
    if (index < 0) return X86EMUL_UNHANDLEABLE;
    row = row.table[index]!;
    ctxt.d |= row.flags;
    ctxt.dDst |= row.dst;
    ctxt.dSrc |= row.src;
    ctxt.dSrc2 |= row.src2;
  }
  ctxt.row = row;
  return X86EMUL_CONTINUE;
}

/** Operand size, as the instruction rather than its prefixes has it. */
function adjustOperandSize(ctxt: EmulateCtxt): void {
  const { d } = ctxt;
  const long = ctxt.mode === X86EMUL_MODE_PROT64;
  if (long) {
    if (ctxt.opBytes === 4 && (d & STACK) !== 0) ctxt.opBytes = 8;
    else if ((d & NEAR_BRANCH) !== 0) ctxt.opBytes = 8;
  }
  if ((d & OP_3264) !== 0) ctxt.opBytes = long ? 8 : 4;
  if ((d & NO_16) !== 0 && ctxt.opBytes === 2) ctxt.opBytes = 4;
  if ((d & SSE) !== 0) ctxt.opBytes = 16;
  else if ((d & MMX) !== 0) ctxt.opBytes = 8;
}

const SPECIAL = NOT_IMPL | STACK | OP_3264 | SSE | MMX | INTERCEPT | CHECK_PERM | NEAR_BRANCH | NO_16;

/** Memory operand, then source, second source and destination. */
function decodeOperands(ctxt: EmulateCtxt): number {
  let rc = X86EMUL_CONTINUE;
  if ((ctxt.d & MODRM) !== 0) {
    rc = decodeModrm(ctxt);
    if (!ctxt.hasSegOverride) ctxt.segOverride = ctxt.modrmSeg;
  } else {
    if ((ctxt.d & MEM_ABS) !== 0) rc = decodeAbs(ctxt);
    if (!ctxt.hasSegOverride) ctxt.segOverride = DS;
  }
  if (rc !== X86EMUL_CONTINUE) return rc;
  ctxt.memop.seg = ctxt.segOverride;
  rc = decodeOperand(ctxt, ctxt.src, ctxt.dSrc);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rc = decodeOperand(ctxt, ctxt.src2, ctxt.dSrc2);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rc = decodeOperand(ctxt, ctxt.dst, ctxt.dDst);
  // Relative to the next instruction, which is known only now that the immediates are read.
  const mem = ctxt.memopp;
  if (ctxt.ripRelative && mem !== null) {
    const hi = addHi(mem.eaLo, mem.eaHi, ctxt.nextEipLo, ctxt.nextEipHi);
    mem.eaLo = addressLo(ctxt.adBytes, (mem.eaLo + ctxt.nextEipLo) | 0);
    mem.eaHi = addressHi(ctxt.adBytes, hi);
  }
  return rc;
}

function decodeInsn(ctxt: EmulateCtxt, emulationType: number): number {
  let wide = false;
  if (ctxt.mode < X86EMUL_MODE_PROT16) {
    ctxt.ops.getSegment(ctxt, CS, ctxt.seg);
    wide = ctxt.seg.db !== 0;
  } else {
    wide = ctxt.mode >= X86EMUL_MODE_PROT32;
  }
  const defBytes = wide ? 4 : 2;
  let rc = decodePrefixes(ctxt, defBytes, ctxt.mode === X86EMUL_MODE_PROT64 ? 8 : defBytes);
  if (rc === X86EMUL_CONTINUE) rc = decodeOpcode(ctxt);
  if (rc === X86EMUL_CONTINUE) rc = resolve(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const { row, d } = ctxt;
  ctxt.isBranch = (row.flags & IS_BRANCH) !== 0;
  ctxt.execute = row.execute;
  if ((emulationType & EMULTYPE_TRAP_UD) !== 0 && (d & EMULATE_ON_UD) === 0) return X86EMUL_UNHANDLEABLE;
  if ((d & SPECIAL) !== 0) {
    ctxt.checkPerm = row.checkPerm;
    ctxt.intercept = row.intercept;
    if ((d & NOT_IMPL) !== 0) return X86EMUL_UNHANDLEABLE;
    adjustOperandSize(ctxt);
  }
  return decodeOperands(ctxt);
}

/**
 * Decodes the instruction at `ctxt.eip`. `insn` holds its bytes when the exit delivered them, else they are fetched. Answers
 * EMULATION_OK, or EMULATION_FAILED; then `haveException` tells a fault in fetching from an instruction that is not emulated.
 * `insn` may be `ctxt.fetch.data` itself. HOT
 * @kvm emulate.c x86_decode_insn
 */
export function x86DecodeInsn(
  ctxt: EmulateCtxt,
  insn: Uint8Array | null,
  insnLen: number,
  emulationType: number,
): number {
  const { fetch } = ctxt;
  ctxt.memop.type = OP_NONE;
  ctxt.memopp = null;
  ctxt.nextEipLo = ctxt.eipLo;
  ctxt.nextEipHi = ctxt.eipHi;
  fetch.ptr = 0;
  fetch.end = insnLen;
  ctxt.opcodeLen = 1;
  ctxt.intercept = X86_INTERCEPT_NONE;
  let rc = X86EMUL_CONTINUE;
  if (insn === null || insnLen === 0) rc = fetchInsnBytes(ctxt, 1);
  else if (insn !== fetch.data) for (let i = 0; i < insnLen; i++) fetch.data[i] = insn[i]!;
  if (rc === X86EMUL_CONTINUE) rc = decodeInsn(ctxt, emulationType);
  if (rc === X86EMUL_PROPAGATE_FAULT) ctxt.haveException = true;
  return rc !== X86EMUL_CONTINUE ? EMULATION_FAILED : EMULATION_OK;
}
