/** Instructions that push and pop. */
import {
  RAX,
  RBP,
  RDI,
  RFLAGS_AC,
  RFLAGS_AF,
  RFLAGS_CF,
  RFLAGS_DF,
  RFLAGS_ID,
  RFLAGS_IF,
  RFLAGS_IOPL,
  RFLAGS_IOPL_SHIFT,
  RFLAGS_NT,
  RFLAGS_OF,
  RFLAGS_PF,
  RFLAGS_SF,
  RFLAGS_TF,
  RFLAGS_VM,
  RFLAGS_ZF,
  RSP,
  SS,
} from '../../arch/registers.ts';
import { type EmulateCtxt, SHADOW_INT_MOV_SS, X86EMUL_MODE_REAL, X86EMUL_MODE_VM86 } from './ctxt.ts';
import { loadSegmentDescriptor } from './descriptors.ts';
import { segmentedRead, segmentedWrite } from './memory.ts';
import { OP_NONE, OP_REG, REG_RFLAGS } from './operand.ts';
import { X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { emulateGp } from './raise.ts';
import { assignMasked, assignReg, regHi, regLo, regRmw, rspIncrement, stackSize } from './registers.ts';
import { segmentSelector } from './segmentation.ts';

/** Low half of the stack address, in the width of the stack. */
function stackLo(ctxt: EmulateCtxt, size: number): number {
  const lo = regLo(ctxt, RSP);
  return size === 2 ? lo & 0xffff : lo;
}

/** Pushes `len` bytes. rSP moves even when the write faults: registers are dropped then. @kvm emulate.c emulate_push */
function emulatePush(ctxt: EmulateCtxt, buf: Uint8Array, len: number): number {
  rspIncrement(ctxt, -len);
  const size = stackSize(ctxt);
  return segmentedWrite(ctxt, SS, stackLo(ctxt, size), size === 8 ? regHi(ctxt, RSP) : 0, buf, 0, len);
}

/** Pops `len` bytes into `buf`. @kvm emulate.c emulate_pop */
function emulatePop(ctxt: EmulateCtxt, buf: Uint8Array, len: number): number {
  const size = stackSize(ctxt);
  const rc = segmentedRead(ctxt, SS, stackLo(ctxt, size), size === 8 ? regHi(ctxt, RSP) : 0, buf, 0, len);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rspIncrement(ctxt, len);
  return X86EMUL_CONTINUE;
}

/** Pops one operand-sized value into `ctxt.bytes`, zero-extended to eight bytes. */
export function popScratch(ctxt: EmulateCtxt, len: number): number {
  ctxt.bytes.fill(0);
  return emulatePop(ctxt, ctxt.bytes, len);
}

/** Pushes `src`. @kvm emulate.c em_push */
export function emPush(ctxt: EmulateCtxt): number {
  ctxt.dst.type = OP_NONE;
  return emulatePush(ctxt, ctxt.src.val, ctxt.opBytes);
}

/** @kvm emulate.c em_pop */
export function emPop(ctxt: EmulateCtxt): number {
  return emulatePop(ctxt, ctxt.dst.val, ctxt.opBytes);
}

/** The flags that POPF may change in every mode. */
const POPF_ALWAYS =
  RFLAGS_CF |
  RFLAGS_PF |
  RFLAGS_AF |
  RFLAGS_ZF |
  RFLAGS_SF |
  RFLAGS_OF |
  RFLAGS_TF |
  RFLAGS_DF |
  RFLAGS_NT |
  RFLAGS_AC |
  RFLAGS_ID;

/** @kvm emulate.c em_popf */
export function emPopf(ctxt: EmulateCtxt): number {
  const { dst } = ctxt;
  dst.type = OP_REG;
  dst.reg = REG_RFLAGS;
  dst.bytes = ctxt.opBytes;
  const iopl = (ctxt.eflags & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT;
  const cpl = ctxt.ops.cpl(ctxt);
  const rc = popScratch(ctxt, ctxt.opBytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  let changeable = POPF_ALWAYS;
  if (ctxt.mode === X86EMUL_MODE_REAL) {
    changeable |= RFLAGS_IOPL | RFLAGS_IF;
  } else if (ctxt.mode === X86EMUL_MODE_VM86) {
    if (iopl < 3) return emulateGp(ctxt, 0);
    changeable |= RFLAGS_IF;
  } else {
    if (cpl === 0) changeable |= RFLAGS_IOPL;
    if (cpl <= iopl) changeable |= RFLAGS_IF;
  }
  dst.set((ctxt.eflags & ~changeable) | (ctxt.bytes32[0]! & changeable), 0);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_pushf */
export function emPushf(ctxt: EmulateCtxt): number {
  ctxt.src.set(ctxt.eflags & ~RFLAGS_VM, 0);
  return emPush(ctxt);
}

/** ENTER with a nesting level of 0; others are not emulated. @kvm emulate.c em_enter */
export function emEnter(ctxt: EmulateCtxt): number {
  const frameSize = ctxt.src.i32[0]!;
  if ((ctxt.src2.i32[0]! & 31) !== 0) return X86EMUL_UNHANDLEABLE;
  ctxt.bytes32[0] = regLo(ctxt, RBP);
  ctxt.bytes32[1] = regHi(ctxt, RBP);
  const size = stackSize(ctxt);
  const rc = emulatePush(ctxt, ctxt.bytes, size);
  if (rc !== X86EMUL_CONTINUE) return rc;
  assignMasked(ctxt, RBP, regLo(ctxt, RSP), regHi(ctxt, RSP), size);
  rspIncrement(ctxt, -frameSize);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_leave */
export function emLeave(ctxt: EmulateCtxt): number {
  assignMasked(ctxt, RSP, regLo(ctxt, RBP), regHi(ctxt, RBP), stackSize(ctxt));
  const rc = emulatePop(ctxt, ctxt.bytes, ctxt.opBytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  // The popped bytes replace as many of rBP and leave the rest.
  assignMasked(ctxt, RBP, ctxt.bytes32[0]!, ctxt.bytes32[1]!, ctxt.opBytes);
  return X86EMUL_CONTINUE;
}

/** A 32-bit push of a selector moves rSP by four and writes two. @kvm emulate.c em_push_sreg */
export function emPushSreg(ctxt: EmulateCtxt): number {
  ctxt.src.set(segmentSelector(ctxt, ctxt.src2.i32[0]!), 0);
  if (ctxt.opBytes === 4) {
    rspIncrement(ctxt, -2);
    ctxt.opBytes = 2;
  }
  return emPush(ctxt);
}

/** @kvm emulate.c em_pop_sreg */
export function emPopSreg(ctxt: EmulateCtxt): number {
  const sreg = ctxt.src2.i32[0]!;
  const rc = popScratch(ctxt, 2);
  if (rc !== X86EMUL_CONTINUE) return rc;
  if (sreg === SS) ctxt.interruptibility = SHADOW_INT_MOV_SS;
  if (ctxt.opBytes > 2) rspIncrement(ctxt, ctxt.opBytes - 2);
  return loadSegmentDescriptor(ctxt, ctxt.bytes32[0]! & 0xffff, sreg);
}

/** @kvm emulate.c em_pusha */
export function emPusha(ctxt: EmulateCtxt): number {
  const espLo = regLo(ctxt, RSP);
  const espHi = regHi(ctxt, RSP);
  for (let nr = RAX; nr <= RDI; nr++) {
    if (nr === RSP) ctxt.src.set(espLo, espHi);
    else ctxt.src.set(regLo(ctxt, nr), regHi(ctxt, nr));
    const rc = emPush(ctxt);
    if (rc !== X86EMUL_CONTINUE) return rc;
  }
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_popa */
export function emPopa(ctxt: EmulateCtxt): number {
  for (let nr = RDI; nr >= RAX; nr--) {
    if (nr === RSP) {
      rspIncrement(ctxt, ctxt.opBytes);
      continue;
    }
    const rc = popScratch(ctxt, ctxt.opBytes);
    if (rc !== X86EMUL_CONTINUE) return rc;
    regRmw(ctxt, nr);
    assignReg(ctxt, 8 * nr, ctxt.bytes32[0]!, 0, ctxt.opBytes);
  }
  return X86EMUL_CONTINUE;
}
