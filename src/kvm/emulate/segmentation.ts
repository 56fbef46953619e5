/** From segment and effective address to linear address: bases, limits, canonical form, alignment. @kvm emulate.c __linearize */
import { MSR_EFER } from '../../arch/msr.ts';
import { CR0_PE, CS, EFER_LMA, FS, RFLAGS_VM, SS } from '../../arch/registers.ts';
import {
  type EmulateCtxt,
  X86EMUL_MODE_PROT16,
  X86EMUL_MODE_PROT32,
  X86EMUL_MODE_PROT64,
  X86EMUL_MODE_REAL,
  X86EMUL_MODE_VM86,
} from './ctxt.ts';
import { ALIGNED16, UNALIGNED } from './opcode.ts';
import { X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { emulateGp, emulateSs } from './raise.ts';
import { addHi } from './registers.ts';

/** What an access is for. */
export const X86EMUL_F_WRITE = 1 << 0;
export const X86EMUL_F_FETCH = 1 << 1;
/** The base of a table or system segment, which is loaded and not accessed. */
export const X86EMUL_F_DT_LOAD = 1 << 6;

/** Low half of EFER. */
export function readEfer(ctxt: EmulateCtxt): number {
  ctxt.io64.fill(0);
  ctxt.ops.getMsr(ctxt, MSR_EFER);
  return ctxt.io64[0]!;
}

/** Low half of control register `cr`. */
export function readCr(ctxt: EmulateCtxt, cr: number): number {
  ctxt.ops.getCr(ctxt, cr);
  return ctxt.io64[0]!;
}

/** True when the bits above the implemented linear address are copies of its top bit. @kvm emulate.c emul_is_noncanonical_address */
export function isCanonical(ctxt: EmulateCtxt, hi: number, flags: number): boolean {
  return ctxt.ops.isCanonicalAddr(ctxt, hi, flags);
}

/** Bytes to which an access of `size` must be aligned. @kvm emulate.c insn_alignment */
function insnAlignment(ctxt: EmulateCtxt, size: number): number {
  if (size < 16 || (ctxt.d & UNALIGNED) !== 0) return 1;
  return (ctxt.d & ALIGNED16) !== 0 ? 16 : size;
}

function segmentFault(ctxt: EmulateCtxt, seg: number): number {
  return seg === SS ? emulateSs(ctxt, 0) : emulateGp(ctxt, 0);
}

/**
 * Linear address of `size` bytes at `seg`:(eaLo, eaHi) into `ctxt.linearLo/linearHi`, and the room behind it into `ctxt.maxSize`.
 * #GP or #SS when the segment forbids the access. Size 0 checks the address alone.
 * @kvm emulate.c linearize
 */
export function linearize(
  ctxt: EmulateCtxt,
  seg: number,
  eaLo: number,
  eaHi: number,
  size: number,
  flags: number,
): number {
  ctxt.maxSize = 0;
  let laLo = eaLo;
  if (ctxt.mode === X86EMUL_MODE_PROT64) {
    let laHi = eaHi;
    if (seg >= FS) {
      ctxt.ops.getCachedSegmentBase(ctxt, seg);
      const baseLo = ctxt.segBase[0]!;
      laHi = addHi(eaLo, eaHi, baseLo, ctxt.segBase[1]!);
      laLo = (eaLo + baseLo) | 0;
    }
    ctxt.linearLo = laLo;
    ctxt.linearHi = laHi;
    if (!isCanonical(ctxt, laHi, flags)) return segmentFault(ctxt, seg);
    // The room is measured to 2^va_bits, which no canonical address comes within 4 GiB of.
    ctxt.maxSize = 0xffff_ffff;
  } else {
    ctxt.ops.getCachedSegmentBase(ctxt, seg);
    laLo = (eaLo + ctxt.segBase[0]!) | 0;
    ctxt.linearLo = laLo;
    ctxt.linearHi = 0;
    const maxSize = segmentRoom(ctxt, seg, eaLo, eaHi, flags);
    if (maxSize === 0) return segmentFault(ctxt, seg);
    ctxt.maxSize = maxSize;
    if (size > maxSize) return segmentFault(ctxt, seg);
  }
  if ((laLo & (insnAlignment(ctxt, size) - 1)) !== 0) return emulateGp(ctxt, 0);
  return X86EMUL_CONTINUE;
}

/** Bytes from an effective address to the end of its segment; 0 when the segment forbids the access. */
function segmentRoom(ctxt: EmulateCtxt, seg: number, eaLo: number, eaHi: number, flags: number): number {
  const desc = ctxt.seg;
  if (!ctxt.ops.getSegment(ctxt, seg, desc)) return 0;
  const code = (desc.type & 8) !== 0;
  const bit1 = (desc.type & 2) !== 0; // writable data, readable code
  if ((flags & X86EMUL_F_WRITE) !== 0 && ((ctxt.mode !== X86EMUL_MODE_REAL && code) || !bit1)) return 0;
  if ((flags & X86EMUL_F_FETCH) === 0 && code && !bit1) return 0;
  let limit = desc.limit;
  const ea = eaLo >>> 0;
  if (!code && (desc.type & 4) !== 0) {
    if (eaHi === 0 && ea <= limit) return 0;
    limit = desc.db !== 0 ? 0xffff_ffff : 0xffff;
  }
  if (eaHi !== 0 || ea > limit) return 0;
  return limit === 0xffff_ffff ? 0xffff_ffff : limit + 1 - ea;
}

/** Sets the next instruction's address, cut to the operand size, if CS lets it be fetched. @kvm emulate.c assign_eip */
export function assignEip(ctxt: EmulateCtxt, lo: number, hi: number): number {
  const targetLo = ctxt.opBytes === 2 ? lo & 0xffff : lo;
  const targetHi = ctxt.opBytes === 8 ? hi : 0;
  const rc = linearize(ctxt, CS, targetLo, targetHi, 1, X86EMUL_F_FETCH);
  if (rc === X86EMUL_CONTINUE) {
    ctxt.nextEipLo = targetLo;
    ctxt.nextEipHi = targetHi;
  }
  return rc;
}

/** assignEip() in the mode that a newly loaded CS implies. @kvm emulate.c assign_eip_far */
export function assignEipFar(ctxt: EmulateCtxt, lo: number, hi: number): number {
  const rc = recalcAndSetMode(ctxt);
  return rc !== X86EMUL_CONTINUE ? rc : assignEip(ctxt, lo, hi);
}

/** Jumps by `rel` (int32) from the next instruction. @kvm emulate.c jmp_rel */
export function jmpRel(ctxt: EmulateCtxt, rel: number): number {
  const lo = ctxt.nextEipLo;
  return assignEip(ctxt, (lo + rel) | 0, addHi(lo, ctxt.nextEipHi, rel, rel >> 31));
}

/** Derives the mode from CR0, EFER, RFLAGS and CS again. @kvm emulate.c emulator_recalc_and_set_mode */
export function recalcAndSetMode(ctxt: EmulateCtxt): number {
  const lma = (readEfer(ctxt) & EFER_LMA) !== 0;
  const real = (readCr(ctxt, 0) & CR0_PE) === 0;
  if (real || (ctxt.eflags & RFLAGS_VM) !== 0) {
    if (lma) return X86EMUL_UNHANDLEABLE;
    ctxt.mode = real ? X86EMUL_MODE_REAL : X86EMUL_MODE_VM86;
    return X86EMUL_CONTINUE;
  }
  const cs = ctxt.seg;
  if (!ctxt.ops.getSegment(ctxt, CS, cs)) return X86EMUL_UNHANDLEABLE;
  if (lma && cs.l !== 0) ctxt.mode = X86EMUL_MODE_PROT64;
  else ctxt.mode = cs.db !== 0 ? X86EMUL_MODE_PROT32 : X86EMUL_MODE_PROT16;
  return X86EMUL_CONTINUE;
}

/** Selector of segment register `seg`. */
export function segmentSelector(ctxt: EmulateCtxt, seg: number): number {
  ctxt.ops.getSegment(ctxt, seg, ctxt.seg);
  return ctxt.seg.selector;
}
