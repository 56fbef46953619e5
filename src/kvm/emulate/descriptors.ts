/** Segment and system descriptors: finding them in their table, checking them, loading them. @kvm emulate.c __load_segment_descriptor */
import { GP_VECTOR, NP_VECTOR, SS_VECTOR, TS_VECTOR } from '../../arch/exceptions.ts';
import { CS, EFER_LMA, GS, LDTR, SS, TR } from '../../arch/registers.ts';
import { type EmulateCtxt, emptySegment, X86EMUL_MODE_PROT64, X86EMUL_MODE_REAL, X86EMUL_MODE_VM86 } from './ctxt.ts';
import { linearReadSystem, linearWriteSystem } from './memory.ts';
import { type DescriptorTable, type SegmentDesc, X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { emulateException, emulateGp } from './raise.ts';
import { addHi } from './registers.ts';
import { isCanonical, readEfer, X86EMUL_F_DT_LOAD } from './segmentation.ts';

/** What makes a segment be loaded. */
export const X86_TRANSFER_NONE = 0;
export const X86_TRANSFER_CALL_JMP = 1;
export const X86_TRANSFER_RET = 2;
export const X86_TRANSFER_TASK_SWITCH = 3;

/** A descriptor as memory holds it (8 bytes, and the upper half of a long-mode system base), with its linear address. */
export class RawDescriptor {
  readonly bytes = new Uint8Array(8);
  readonly i32 = new Int32Array(this.bytes.buffer);
  addressLo = 0;
  addressHi = 0;
}

const raw = new RawDescriptor();
const oldBytes = new Uint8Array(8);
const ldt: DescriptorTable = { limit: 0, baseLo: 0, baseHi: 0 };

/** Unpacks a descriptor; the base is the 32 bits that it holds itself. @sdm 3.4.5 */
export function unpackDescriptor(bytes: Uint8Array, seg: SegmentDesc): void {
  const access = bytes[5]!;
  const flags = bytes[6]!;
  seg.baseLo = bytes[2]! | (bytes[3]! << 8) | (bytes[4]! << 16) | (bytes[7]! << 24);
  seg.baseHi = 0;
  seg.type = access & 15;
  seg.s = (access >> 4) & 1;
  seg.dpl = (access >> 5) & 3;
  seg.p = access >> 7;
  seg.avl = (flags >> 4) & 1;
  seg.l = (flags >> 5) & 1;
  seg.db = (flags >> 6) & 1;
  seg.g = flags >> 7;
  const limit = bytes[0]! | (bytes[1]! << 8) | ((flags & 15) << 16);
  seg.limit = seg.g !== 0 ? ((limit << 12) | 0xfff) >>> 0 : limit;
}

function clearSegment(seg: SegmentDesc): void {
  seg.selector = seg.baseLo = seg.baseHi = seg.limit = seg.type = seg.s = 0;
  seg.dpl = seg.p = seg.avl = seg.l = seg.db = seg.g = 0;
}

/** @kvm emulate.c get_descriptor_table_ptr */
function descriptorTable(ctxt: EmulateCtxt, selector: number): DescriptorTable {
  if ((selector & 4) === 0) return ctxt.ops.getGdt(ctxt);
  const seg = ctxt.seg;
  const usable = ctxt.ops.getSegment(ctxt, LDTR, seg);
  ldt.limit = usable ? seg.limit & 0xffff : 0;
  ldt.baseLo = usable ? seg.baseLo : 0;
  ldt.baseHi = usable ? seg.baseHi : 0;
  return ldt;
}

/** Linear address of a selector's descriptor; #GP(selector) when it lies beyond the table. @kvm emulate.c get_descriptor_ptr */
function descriptorAddress(ctxt: EmulateCtxt, selector: number, desc: RawDescriptor): number {
  const table = descriptorTable(ctxt, selector);
  const offset = selector & 0xfff8;
  if (table.limit < offset + 7) return emulateGp(ctxt, selector & 0xfffc);
  desc.addressHi = addHi(table.baseLo, table.baseHi, offset, 0);
  desc.addressLo = (table.baseLo + offset) | 0;
  if (desc.addressHi !== 0 && (readEfer(ctxt) & EFER_LMA) === 0) desc.addressHi = 0;
  return X86EMUL_CONTINUE;
}

/** Reads the 8 bytes of a selector's descriptor. @kvm emulate.c read_segment_descriptor */
export function readSegmentDescriptor(ctxt: EmulateCtxt, selector: number, desc: RawDescriptor): number {
  const rc = descriptorAddress(ctxt, selector, desc);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return linearReadSystem(ctxt, desc.addressLo, desc.addressHi, desc.bytes, 8);
}

/** Writes the 8 bytes back. @kvm emulate.c write_segment_descriptor */
export function writeSegmentDescriptor(ctxt: EmulateCtxt, selector: number, desc: RawDescriptor): number {
  const rc = descriptorAddress(ctxt, selector, desc);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return linearWriteSystem(ctxt, desc.addressLo, desc.addressHi, desc.bytes, 8);
}

/** Reads the gate of interrupt `index`. @kvm emulate.c read_interrupt_descriptor */
export function readInterruptDescriptor(ctxt: EmulateCtxt, index: number, bytes: Uint8Array): number {
  const table = ctxt.ops.getIdt(ctxt);
  if (table.limit < index * 8 + 7) return emulateGp(ctxt, (index << 3) | 2);
  const hi = addHi(table.baseLo, table.baseHi, index * 8, 0);
  return linearReadSystem(ctxt, (table.baseLo + index * 8) | 0, hi, bytes, 8);
}

const DENY_GP = 0;
const ALLOW = 1;
const DENY_UNHANDLEABLE = 2;

/** Type and privilege rules of a code segment as the target of `transfer`. */
function checkCodeSegment(ctxt: EmulateCtxt, seg: SegmentDesc, rpl: number, cpl: number, transfer: number): number {
  if (transfer === X86_TRANSFER_NONE || (seg.type & 8) === 0) return DENY_GP;
  if (transfer === X86_TRANSFER_RET) {
    if (rpl < cpl) return DENY_GP;
    if (rpl > cpl) return DENY_UNHANDLEABLE; // a return to an outer level also loads SS:rSP
  }
  const conforming = (seg.type & 4) !== 0;
  if (transfer === X86_TRANSFER_CALL_JMP) {
    if (conforming ? seg.dpl > cpl : rpl > cpl || seg.dpl !== cpl) return DENY_GP;
  } else if (conforming ? seg.dpl > rpl : seg.dpl !== rpl) {
    return DENY_GP;
  }
  if (seg.db !== 0 && seg.l !== 0 && (readEfer(ctxt) & EFER_LMA) !== 0) return DENY_GP;
  return ALLOW;
}

/** True when a descriptor's type and privilege let segment register `sreg`, other than CS, hold it. */
function fitsSegment(seg: SegmentDesc, sreg: number, rpl: number, cpl: number): boolean {
  switch (sreg) {
    case SS:
      return rpl === cpl && (seg.type & 0xa) === 2 && seg.dpl === cpl;
    case TR:
      return seg.s === 0 && (seg.type === 1 || seg.type === 9);
    case LDTR:
      return seg.s === 0 && seg.type === 2;
    default:
      if ((seg.type & 0xa) === 8) return false;
      return (seg.type & 0xc) === 0xc || (rpl <= seg.dpl && cpl <= seg.dpl);
  }
}

/** A null selector: fine for data segments and LDTR, for SS only in 64-bit mode, never for CS and TR. */
function nullSegment(ctxt: EmulateCtxt, selector: number, sreg: number, cpl: number): boolean {
  if (sreg === CS || sreg === TR) return false;
  if (sreg !== SS) return true;
  if (ctxt.mode !== X86EMUL_MODE_PROT64 || (selector & 3) !== cpl) return false;
  // CPL lives in SS.DPL, so SS gets the shape of a flat stack segment.
  const seg = ctxt.newSeg;
  seg.type = 3;
  seg.p = seg.s = seg.db = seg.g = 1;
  seg.limit = 0xfff;
  seg.dpl = cpl;
  return true;
}

/**
 * Loads segment register `sreg` with `selector` at privilege `cpl`. X86EMUL_*; the segment stays in `ctxt.newSeg`.
 * @kvm emulate.c load_segment_descriptor
 */
export function loadSegment(ctxt: EmulateCtxt, selector: number, sreg: number, cpl: number, transfer: number): number {
  const seg = ctxt.newSeg;
  if (ctxt.mode === X86EMUL_MODE_REAL) {
    // Limit and rights stay as they are: unreal mode.
    ctxt.ops.getSegment(ctxt, sreg, seg);
    seg.baseLo = selector << 4;
    seg.baseHi = 0;
    return storeSegment(ctxt, selector, sreg);
  }
  clearSegment(seg);
  if (sreg <= GS && ctxt.mode === X86EMUL_MODE_VM86) {
    seg.baseLo = selector << 4;
    seg.limit = 0xffff;
    seg.type = 3;
    seg.p = seg.s = 1;
    seg.dpl = 3;
    return storeSegment(ctxt, selector, sreg);
  }
  if (sreg === TR && (selector & 4) !== 0) return emulateGp(ctxt, 0);
  if ((selector & ~3) === 0) {
    return nullSegment(ctxt, selector, sreg, cpl) ? storeSegment(ctxt, selector, sreg) : emulateGp(ctxt, 0);
  }
  const rc = readSegmentDescriptor(ctxt, selector, raw);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return checkAndStore(ctxt, selector, sreg, cpl, transfer);
}

/** The rules for a descriptor that was read into `raw`, then its side effects on the table. */
function checkAndStore(ctxt: EmulateCtxt, selector: number, sreg: number, cpl: number, transfer: number): number {
  const seg = ctxt.newSeg;
  unpackDescriptor(raw.bytes, seg);
  const rpl = selector & 3;
  const errorCode = selector & 0xfffc;
  const vector = transfer === X86_TRANSFER_TASK_SWITCH ? TS_VECTOR : GP_VECTOR;
  if (sreg <= GS && seg.s === 0) {
    // A call or task gate: taken by nobody here.
    if (transfer === X86_TRANSFER_CALL_JMP) return X86EMUL_UNHANDLEABLE;
    return emulateException(ctxt, vector, errorCode, true);
  }
  let loaded = selector;
  if (sreg === CS) {
    const verdict = checkCodeSegment(ctxt, seg, rpl, cpl, transfer);
    if (verdict === DENY_UNHANDLEABLE) return X86EMUL_UNHANDLEABLE;
    if (verdict === DENY_GP) return emulateException(ctxt, vector, errorCode, true);
    loaded = errorCode | cpl;
  } else if (!fitsSegment(seg, sreg, rpl, cpl)) {
    return emulateException(ctxt, vector, errorCode, true);
  }
  if (seg.p === 0) return emulateException(ctxt, sreg === SS ? SS_VECTOR : NP_VECTOR, errorCode, true);
  const rc = touchDescriptor(ctxt, loaded, sreg);
  return rc !== X86EMUL_CONTINUE ? rc : storeSegment(ctxt, loaded, sreg);
}

/** Sets the accessed bit of a segment or the busy bit of a TSS in the table, and reads the upper half of a long-mode system base. */
function touchDescriptor(ctxt: EmulateCtxt, selector: number, sreg: number): number {
  const seg = ctxt.newSeg;
  if (seg.s !== 0) {
    if ((seg.type & 1) === 0) {
      seg.type |= 1;
      raw.bytes[5] = raw.bytes[5]! | 1;
      const rc = writeSegmentDescriptor(ctxt, selector, raw);
      if (rc !== X86EMUL_CONTINUE) return rc;
    }
  } else if (ctxt.mode === X86EMUL_MODE_PROT64) {
    const hi = addHi(raw.addressLo, raw.addressHi, 8, 0);
    const rc = linearReadSystem(ctxt, (raw.addressLo + 8) | 0, hi, ctxt.bytes, 4);
    if (rc !== X86EMUL_CONTINUE) return rc;
    seg.baseHi = ctxt.bytes32[0]!;
    if (!isCanonical(ctxt, seg.baseHi, X86EMUL_F_DT_LOAD)) return emulateGp(ctxt, selector & 0xfffc);
  }
  if (sreg !== TR) return X86EMUL_CONTINUE;
  oldBytes.set(raw.bytes);
  seg.type |= 2;
  raw.bytes[5] = raw.bytes[5]! | 2;
  return ctxt.ops.cmpxchgEmulated(ctxt, raw.addressLo, raw.addressHi, oldBytes, raw.bytes, 8, ctxt.exception);
}

function storeSegment(ctxt: EmulateCtxt, selector: number, sreg: number): number {
  ctxt.newSeg.selector = selector;
  ctxt.ops.setSegment(ctxt, sreg, ctxt.newSeg);
  return X86EMUL_CONTINUE;
}

/** Loads a segment outside control transfers (MOV, POP, LSS, LLDT, LTR). @kvm emulate.c load_segment_descriptor */
export function loadSegmentDescriptor(ctxt: EmulateCtxt, selector: number, sreg: number): number {
  const cpl = ctxt.ops.cpl(ctxt);
  if (sreg === SS && selector === 3 && ctxt.mode === X86EMUL_MODE_PROT64) return emulateGp(ctxt, 0);
  return loadSegment(ctxt, selector, sreg, cpl, X86_TRANSFER_NONE);
}

const reselected = emptySegment();

/** Replaces the selector of `sreg` and nothing else. @kvm emulate.c set_segment_selector */
export function setSegmentSelector(ctxt: EmulateCtxt, selector: number, sreg: number): void {
  ctxt.ops.getSegment(ctxt, sreg, reselected);
  reselected.selector = selector;
  ctxt.ops.setSegment(ctxt, sreg, reselected);
}
