/** Control transfers: jumps, calls and returns near and far, loops, real-mode interrupts. */
import {
  CS,
  RCX,
  RFLAGS_AC,
  RFLAGS_AF,
  RFLAGS_CF,
  RFLAGS_DF,
  RFLAGS_FIXED,
  RFLAGS_ID,
  RFLAGS_IF,
  RFLAGS_IOPL,
  RFLAGS_NT,
  RFLAGS_OF,
  RFLAGS_PF,
  RFLAGS_RF,
  RFLAGS_SF,
  RFLAGS_TF,
  RFLAGS_VIF,
  RFLAGS_VIP,
  RFLAGS_VM,
  RFLAGS_ZF,
} from '../../arch/registers.ts';
import { testCc } from './conditions.ts';
import { type EmulateCtxt, X86EMUL_MODE_REAL } from './ctxt.ts';
import { loadSegment, loadSegmentDescriptor, X86_TRANSFER_CALL_JMP, X86_TRANSFER_RET } from './descriptors.ts';
import { linearReadSystem } from './memory.ts';
import { OP_NONE, wordAt } from './operand.ts';
import { X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { emulateGp } from './raise.ts';
import { addHi, registerAddressIncrement, registerAddressIsZero, rspIncrement } from './registers.ts';
import { assignEip, assignEipFar, jmpRel, segmentSelector } from './segmentation.ts';
import { emPush, popScratch } from './stack.ts';

/** JMP rel. */
export function emJmp(ctxt: EmulateCtxt): number {
  const rc = jmpRel(ctxt, ctxt.src.i32[0]!);
  ctxt.dst.type = OP_NONE;
  return rc;
}

export function emJcc(ctxt: EmulateCtxt): number {
  return testCc(ctxt.b, ctxt.eflags) ? jmpRel(ctxt, ctxt.src.i32[0]!) : X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_jmp_abs */
export function emJmpAbs(ctxt: EmulateCtxt): number {
  return assignEip(ctxt, ctxt.src.i32[0]!, ctxt.src.i32[1]!);
}

/** LOOPNE, LOOPE, LOOP. @kvm emulate.c em_loop */
export function emLoop(ctxt: EmulateCtxt): number {
  registerAddressIncrement(ctxt, RCX, -1);
  if (registerAddressIsZero(ctxt, RCX)) return X86EMUL_CONTINUE;
  // 0xe0 and 0xe1 become condition codes 5 (NE) and 4 (E).
  if (ctxt.b !== 0xe2 && !testCc(ctxt.b ^ 5, ctxt.eflags)) return X86EMUL_CONTINUE;
  return jmpRel(ctxt, ctxt.src.i32[0]!);
}

/** @kvm emulate.c em_jcxz */
export function emJcxz(ctxt: EmulateCtxt): number {
  return registerAddressIsZero(ctxt, RCX) ? jmpRel(ctxt, ctxt.src.i32[0]!) : X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_call */
export function emCall(ctxt: EmulateCtxt): number {
  const rel = ctxt.src.i32[0]!;
  ctxt.src.set(ctxt.nextEipLo, ctxt.nextEipHi);
  const rc = jmpRel(ctxt, rel);
  return rc !== X86EMUL_CONTINUE ? rc : emPush(ctxt);
}

/** @kvm emulate.c em_call_near_abs */
export function emCallNearAbs(ctxt: EmulateCtxt): number {
  const oldLo = ctxt.nextEipLo;
  const oldHi = ctxt.nextEipHi;
  const rc = assignEip(ctxt, ctxt.src.i32[0]!, ctxt.src.i32[1]!);
  if (rc !== X86EMUL_CONTINUE) return rc;
  ctxt.src.set(oldLo, oldHi);
  return emPush(ctxt);
}

/** @kvm emulate.c em_ret */
export function emRet(ctxt: EmulateCtxt): number {
  const rc = popScratch(ctxt, ctxt.opBytes);
  return rc !== X86EMUL_CONTINUE ? rc : assignEip(ctxt, ctxt.bytes32[0]!, ctxt.bytes32[1]!);
}

/** @kvm emulate.c em_ret_near_imm */
export function emRetNearImm(ctxt: EmulateCtxt): number {
  const rc = emRet(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rspIncrement(ctxt, ctxt.src.i32[0]!);
  return X86EMUL_CONTINUE;
}

/** Far jump to the pointer in `src`; a failure after CS is loaded cannot be undone. @kvm emulate.c em_jmp_far */
export function emJmpFar(ctxt: EmulateCtxt): number {
  const { src } = ctxt;
  const cpl = ctxt.ops.cpl(ctxt);
  const rc = loadSegment(ctxt, wordAt(src, ctxt.opBytes), CS, cpl, X86_TRANSFER_CALL_JMP);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return assignEipFar(ctxt, src.i32[0]!, src.i32[1]!) !== X86EMUL_CONTINUE ? X86EMUL_UNHANDLEABLE : X86EMUL_CONTINUE;
}

/** Far call: a failure after CS is loaded puts the old CS back. @kvm emulate.c em_call_far */
export function emCallFar(ctxt: EmulateCtxt): number {
  const { src, oldSeg } = ctxt;
  const cpl = ctxt.ops.cpl(ctxt);
  const oldMode = ctxt.mode;
  const eipLo = ctxt.nextEipLo;
  const eipHi = ctxt.nextEipHi;
  ctxt.ops.getSegment(ctxt, CS, oldSeg);
  oldSeg.baseHi = 0;
  let rc = loadSegment(ctxt, wordAt(src, ctxt.opBytes), CS, cpl, X86_TRANSFER_CALL_JMP);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rc = assignEipFar(ctxt, src.i32[0]!, src.i32[1]!);
  if (rc === X86EMUL_CONTINUE) {
    src.set(oldSeg.selector, 0);
    rc = emPush(ctxt);
  }
  if (rc === X86EMUL_CONTINUE) {
    src.set(eipLo, eipHi);
    rc = emPush(ctxt);
  }
  if (rc !== X86EMUL_CONTINUE) {
    ctxt.ops.setSegment(ctxt, CS, oldSeg);
    ctxt.mode = oldMode;
  }
  return rc;
}

/** Far return to the same privilege level. @kvm emulate.c em_ret_far */
export function emRetFar(ctxt: EmulateCtxt): number {
  const cpl = ctxt.ops.cpl(ctxt);
  let rc = popScratch(ctxt, ctxt.opBytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const eipLo = ctxt.bytes32[0]!;
  const eipHi = ctxt.bytes32[1]!;
  rc = popScratch(ctxt, ctxt.opBytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rc = loadSegment(ctxt, ctxt.bytes32[0]! & 0xffff, CS, cpl, X86_TRANSFER_RET);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return assignEipFar(ctxt, eipLo, eipHi) !== X86EMUL_CONTINUE ? X86EMUL_UNHANDLEABLE : X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_ret_far_imm */
export function emRetFarImm(ctxt: EmulateCtxt): number {
  const rc = emRetFar(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rspIncrement(ctxt, ctxt.src.i32[0]!);
  return X86EMUL_CONTINUE;
}

/** Delivers an interrupt through the real-mode vector table. @kvm emulate.c __emulate_int_real */
export function deliverIntReal(ctxt: EmulateCtxt, irq: number): number {
  ctxt.src.set(ctxt.eflags, 0);
  let rc = emPush(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;
  ctxt.eflags &= ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC);
  ctxt.src.set(segmentSelector(ctxt, CS), 0);
  rc = emPush(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;
  ctxt.src.set(ctxt.nextEipLo, ctxt.nextEipHi);
  rc = emPush(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;

  const idt = ctxt.ops.getIdt(ctxt);
  const { baseLo, baseHi } = idt;
  // INT's vector is a sign-extended byte here: 0x80 and above reach below the table.
  const at = irq << 2;
  rc = linearReadSystem(ctxt, (baseLo + at + 2) | 0, addHi(baseLo, baseHi, at + 2, at >> 31), ctxt.bytes, 2);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const cs = ctxt.bytes32[0]! & 0xffff;
  rc = linearReadSystem(ctxt, (baseLo + at) | 0, addHi(baseLo, baseHi, at, at >> 31), ctxt.bytes, 2);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const eip = ctxt.bytes32[0]! & 0xffff;
  rc = loadSegmentDescriptor(ctxt, cs, CS);
  if (rc !== X86EMUL_CONTINUE) return rc;
  ctxt.nextEipLo = eip;
  ctxt.nextEipHi = 0;
  return X86EMUL_CONTINUE;
}

/** Software interrupts; only real mode is emulated. @kvm emulate.c emulate_int */
function emulateInt(ctxt: EmulateCtxt, irq: number): number {
  return ctxt.mode === X86EMUL_MODE_REAL ? deliverIntReal(ctxt, irq) : X86EMUL_UNHANDLEABLE;
}

export function emInt3(ctxt: EmulateCtxt): number {
  return emulateInt(ctxt, 3);
}

export function emInt(ctxt: EmulateCtxt): number {
  return emulateInt(ctxt, ctxt.src.i32[0]!);
}

export function emInto(ctxt: EmulateCtxt): number {
  return (ctxt.eflags & RFLAGS_OF) !== 0 ? emulateInt(ctxt, 4) : X86EMUL_CONTINUE;
}

const IRET_FLAGS =
  RFLAGS_CF |
  RFLAGS_PF |
  RFLAGS_AF |
  RFLAGS_ZF |
  RFLAGS_SF |
  RFLAGS_TF |
  RFLAGS_IF |
  RFLAGS_DF |
  RFLAGS_OF |
  RFLAGS_IOPL |
  RFLAGS_NT |
  RFLAGS_RF |
  RFLAGS_AC |
  RFLAGS_ID |
  RFLAGS_FIXED;
const IRET_KEPT = RFLAGS_VM | RFLAGS_VIF | RFLAGS_VIP;
const RFLAGS_RESERVED_ZEROS = 0xffc0_802a | 0;

/** IRET in real mode; protected mode is not emulated. @kvm emulate.c emulate_iret_real */
export function emIret(ctxt: EmulateCtxt): number {
  if (ctxt.mode !== X86EMUL_MODE_REAL) return X86EMUL_UNHANDLEABLE;
  let rc = popScratch(ctxt, ctxt.opBytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const eip = ctxt.bytes32[0]!;
  if ((eip & ~0xffff) !== 0) return emulateGp(ctxt, 0);
  rc = popScratch(ctxt, ctxt.opBytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const cs = ctxt.bytes32[0]! & 0xffff;
  rc = popScratch(ctxt, ctxt.opBytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const flags = ctxt.bytes32[0]!;
  rc = loadSegmentDescriptor(ctxt, cs, CS);
  if (rc !== X86EMUL_CONTINUE) return rc;
  ctxt.nextEipLo = eip;
  ctxt.nextEipHi = 0;
  if (ctxt.opBytes === 4) ctxt.eflags = (flags & IRET_FLAGS) | (ctxt.eflags & IRET_KEPT);
  else ctxt.eflags = (ctxt.eflags & ~0xffff) | flags;
  ctxt.eflags = (ctxt.eflags & ~RFLAGS_RESERVED_ZEROS) | RFLAGS_FIXED;
  ctxt.ops.setNmiMask(ctxt, false);
  return X86EMUL_CONTINUE;
}
