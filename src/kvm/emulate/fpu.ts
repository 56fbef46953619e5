/** The x87 instructions KVM emulates, and FXSAVE/FXRSTOR. */
import { MF_VECTOR } from '../../arch/exceptions.ts';
import { CR0_EM, CR0_TS, CR4_OSFXSR } from '../../arch/registers.ts';
import { type EmulateCtxt, X86EMUL_MODE_PROT64 } from './ctxt.ts';
import { segmentedReadStd, segmentedWriteStd } from './memory.ts';
import { X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { emulateException, emulateGp, emulateNm, emulateUd } from './raise.ts';
import { readCr } from './segmentation.ts';

/** An FXSAVE image: the part before the XMM registers, and all of it up to XMM15. */
const XMM_SPACE = 160;
const FXSTATE_BYTES = 512;
const MXCSR = 24;

const image = new Uint8Array(FXSTATE_BYTES);
const fixup = new Uint8Array(FXSTATE_BYTES);

/** True when the x87 is off limits: #NM. */
function fpuUnavailable(ctxt: EmulateCtxt): boolean {
  return (readCr(ctxt, 0) & (CR0_TS | CR0_EM)) !== 0;
}

/**
 * The initial state goes in through the FXSAVE image: FCW 0x37f, everything else of the x87 cleared, all registers empty.
 * @kvm emulate.c em_fninit
 */
export function emFninit(ctxt: EmulateCtxt): number {
  if (fpuUnavailable(ctxt)) return emulateNm(ctxt);
  const rc = ctxt.ops.fxsave(ctxt, image, FXSTATE_BYTES);
  if (rc !== X86EMUL_CONTINUE) return rc;
  image.fill(0, 0, MXCSR);
  image[0] = 0x7f;
  image[1] = 0x03;
  return ctxt.ops.fxrstor(ctxt, image);
}

/** @kvm emulate.c em_fnstcw */
export function emFnstcw(ctxt: EmulateCtxt): number {
  if (fpuUnavailable(ctxt)) return emulateNm(ctxt);
  ctxt.dst.set(ctxt.ops.fpuControlWord(ctxt) & 0xffff, 0);
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_fnstsw */
export function emFnstsw(ctxt: EmulateCtxt): number {
  if (fpuUnavailable(ctxt)) return emulateNm(ctxt);
  ctxt.dst.set(ctxt.ops.fpuStatusWord(ctxt) & 0xffff, 0);
  return X86EMUL_CONTINUE;
}

/** #MF when an unmasked x87 exception is pending, before an MMX instruction. @kvm emulate.c flush_pending_x87_faults */
export function flushPendingX87Faults(ctxt: EmulateCtxt): number {
  const exceptionSummary = 0x80;
  if ((ctxt.ops.fpuStatusWord(ctxt) & exceptionSummary) === 0) return X86EMUL_CONTINUE;
  return emulateException(ctxt, MF_VECTOR, 0, false);
}

/** 64-bit forms are not emulated. @kvm emulate.c check_fxsr */
function checkFxsr(ctxt: EmulateCtxt): number {
  if (!ctxt.ops.guestHasFxsr(ctxt)) return emulateUd(ctxt);
  if (fpuUnavailable(ctxt)) return emulateNm(ctxt);
  return ctxt.mode >= X86EMUL_MODE_PROT64 ? X86EMUL_UNHANDLEABLE : X86EMUL_CONTINUE;
}

/** Bytes transferred: XMM0 to XMM7 only with CR4.OSFXSR. @kvm emulate.c fxstate_size */
function fxstateSize(ctxt: EmulateCtxt): number {
  return (readCr(ctxt, 4) & CR4_OSFXSR) !== 0 ? XMM_SPACE + 8 * 16 : XMM_SPACE;
}

/** @kvm emulate.c em_fxsave */
export function emFxsave(ctxt: EmulateCtxt): number {
  const { seg, eaLo, eaHi } = ctxt.memop;
  let rc = checkFxsr(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rc = ctxt.ops.fxsave(ctxt, image, FXSTATE_BYTES);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return segmentedWriteStd(ctxt, seg, eaLo, eaHi, image, fxstateSize(ctxt));
}

/** Registers that the image does not cover keep their values. @kvm emulate.c em_fxrstor */
export function emFxrstor(ctxt: EmulateCtxt): number {
  const { seg, eaLo, eaHi } = ctxt.memop;
  let rc = checkFxsr(ctxt);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const size = fxstateSize(ctxt);
  rc = segmentedReadStd(ctxt, seg, eaLo, eaHi, image, size);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rc = ctxt.ops.fxsave(ctxt, fixup, FXSTATE_BYTES);
  if (rc !== X86EMUL_CONTINUE) return rc;
  image.set(fixup.subarray(size), size);
  if ((image[MXCSR + 2]! | image[MXCSR + 3]!) !== 0) return emulateGp(ctxt, 0);
  return ctxt.ops.fxrstor(ctxt, image);
}
