/** Instructions that move and convert data. */
import { RAX, RBX, RCX, RDX, RFLAGS_CF, RFLAGS_DF, RFLAGS_FIXED, RFLAGS_ZF } from '../../arch/registers.ts';
import { testCc } from './conditions.ts';
import type { EmulateCtxt } from './ctxt.ts';
import { loadSegmentDescriptor } from './descriptors.ts';
import { OP_NONE, type Operand, wordAt } from './operand.ts';
import { X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { emulateUd } from './raise.ts';
import { regHi, regLo, regRmw, regWrite, writeRegisterOperand } from './registers.ts';

/** Does nothing: NOP, PREFETCH, CLFLUSH, INVD. */
export function emNop(_ctxt: EmulateCtxt): number {
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_mov */
export function emMov(ctxt: EmulateCtxt): number {
  ctxt.dst.setValue(ctxt.src);
  return X86EMUL_CONTINUE;
}

export function emLea(ctxt: EmulateCtxt): number {
  ctxt.dst.set(ctxt.src.eaLo, ctxt.src.eaHi);
  return X86EMUL_CONTINUE;
}

/** The register is written at once, memory as if locked. @kvm emulate.c em_xchg */
export function emXchg(ctxt: EmulateCtxt): number {
  const { dst, src } = ctxt;
  src.set(dst.i32[0]!, dst.i32[1]!);
  writeRegisterOperand(ctxt, src);
  dst.set(src.orig32[0]!, src.orig32[1]!);
  ctxt.lockPrefix = 1;
  return X86EMUL_CONTINUE;
}

/** 0x90 to 0x97: NOP when the register is rAX. */
export function emXchgAcc(ctxt: EmulateCtxt): number {
  if (ctxt.dst.reg !== 8 * RAX) return emXchg(ctxt);
  ctxt.dst.type = OP_NONE;
  return X86EMUL_CONTINUE;
}

/** Puts a value of `bytes` sign-extended to 64 bits into `op`. */
function setSigned(op: Operand, value: number, bytes: number): void {
  const lo = bytes === 1 ? (value << 24) >> 24 : bytes === 2 ? (value << 16) >> 16 : value;
  op.set(lo, lo >> 31);
}

/** CBW, CWDE, CDQE. */
export function emCbw(ctxt: EmulateCtxt): number {
  setSigned(ctxt.dst, ctxt.dst.i32[0]!, ctxt.opBytes >> 1);
  return X86EMUL_CONTINUE;
}

export function emMovsx(ctxt: EmulateCtxt): number {
  ctxt.dst.bytes = ctxt.opBytes;
  setSigned(ctxt.dst, ctxt.src.i32[0]!, ctxt.src.bytes);
  return X86EMUL_CONTINUE;
}

export function emMovzx(ctxt: EmulateCtxt): number {
  ctxt.dst.bytes = ctxt.opBytes;
  ctxt.dst.set(ctxt.src.i32[0]! & (ctxt.src.bytes === 1 ? 0xff : 0xffff), 0);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_movsxd */
export function emMovsxd(ctxt: EmulateCtxt): number {
  setSigned(ctxt.dst, ctxt.src.i32[0]!, 4);
  return X86EMUL_CONTINUE;
}

/** A 32-bit CMOV writes (and so clears the upper half) even when the condition is false. */
export function emCmov(ctxt: EmulateCtxt): number {
  if (testCc(ctxt.b, ctxt.eflags)) ctxt.dst.set(ctxt.src.i32[0]!, ctxt.src.i32[1]!);
  else if (ctxt.opBytes !== 4) ctxt.dst.type = OP_NONE;
  return X86EMUL_CONTINUE;
}

export function emSetcc(ctxt: EmulateCtxt): number {
  ctxt.dst.set(testCc(ctxt.b, ctxt.eflags) ? 1 : 0, 0);
  return X86EMUL_CONTINUE;
}

function swab32(x: number): number {
  return (x >>> 24) | ((x >>> 8) & 0xff00) | ((x << 8) & 0xff_0000) | (x << 24);
}

/** A 16-bit BSWAP reverses 32 bits and then keeps the low ones. @kvm emulate.c em_bswap */
export function emBswap(ctxt: EmulateCtxt): number {
  const { dst } = ctxt;
  const lo = dst.i32[0]!;
  const hi = dst.i32[1]!;
  if (ctxt.opBytes === 8) dst.set(swab32(hi), swab32(lo));
  else dst.set(swab32(lo), hi);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_movbe */
export function emMovbe(ctxt: EmulateCtxt): number {
  const { dst, src } = ctxt;
  if (!ctxt.ops.guestHasMovbe(ctxt)) return emulateUd(ctxt);
  const lo = src.i32[0]!;
  if (ctxt.opBytes === 8) dst.set(swab32(src.i32[1]!), swab32(lo));
  else if (ctxt.opBytes === 4) dst.set(swab32(lo), 0);
  else dst.set((dst.i32[0]! & ~0xffff) | (swab32(lo) >>> 16), dst.i32[1]!);
  return X86EMUL_CONTINUE;
}

/** LES, LDS, LSS, LFS, LGS. @kvm emulate.c em_lseg */
export function emLseg(ctxt: EmulateCtxt): number {
  const { src } = ctxt;
  const rc = loadSegmentDescriptor(ctxt, wordAt(src, ctxt.opBytes), ctxt.src2.i32[0]!);
  if (rc !== X86EMUL_CONTINUE) return rc;
  ctxt.dst.set(src.i32[0]!, src.i32[1]!);
  return X86EMUL_CONTINUE;
}

/** CMPXCHG8B; CMPXCHG16B is not emulated. @kvm emulate.c em_cmpxchg8b */
export function emCmpxchg8b(ctxt: EmulateCtxt): number {
  const { dst } = ctxt;
  if (dst.bytes === 16) return X86EMUL_UNHANDLEABLE;
  const oldLo = dst.orig32[0]!;
  const oldHi = dst.orig32[1]!;
  if (oldLo !== regLo(ctxt, RAX) || oldHi !== regLo(ctxt, RDX)) {
    regWrite(ctxt, RAX, oldLo, 0);
    regWrite(ctxt, RDX, oldHi, 0);
    ctxt.eflags &= ~RFLAGS_ZF;
  } else {
    dst.set(regLo(ctxt, RBX), regLo(ctxt, RCX));
    ctxt.eflags |= RFLAGS_ZF;
  }
  return X86EMUL_CONTINUE;
}

/** CF, PF, AF, ZF and SF. */
const SAHF_FLAGS = 0xd5;

/** @kvm emulate.c em_sahf */
export function emSahf(ctxt: EmulateCtxt): number {
  regRmw(ctxt, RAX);
  ctxt.eflags = (ctxt.eflags & ~0xff) | ((regLo(ctxt, RAX) >> 8) & SAHF_FLAGS) | RFLAGS_FIXED;
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_lahf */
export function emLahf(ctxt: EmulateCtxt): number {
  regRmw(ctxt, RAX);
  regWrite(ctxt, RAX, (regLo(ctxt, RAX) & ~0xff00) | ((ctxt.eflags & 0xff) << 8), regHi(ctxt, RAX));
  return X86EMUL_CONTINUE;
}

export function emCmc(ctxt: EmulateCtxt): number {
  ctxt.eflags ^= RFLAGS_CF;
  return X86EMUL_CONTINUE;
}

export function emClc(ctxt: EmulateCtxt): number {
  ctxt.eflags &= ~RFLAGS_CF;
  return X86EMUL_CONTINUE;
}

export function emStc(ctxt: EmulateCtxt): number {
  ctxt.eflags |= RFLAGS_CF;
  return X86EMUL_CONTINUE;
}

export function emCld(ctxt: EmulateCtxt): number {
  ctxt.eflags &= ~RFLAGS_DF;
  return X86EMUL_CONTINUE;
}

export function emStd(ctxt: EmulateCtxt): number {
  ctxt.eflags |= RFLAGS_DF;
  return X86EMUL_CONTINUE;
}
