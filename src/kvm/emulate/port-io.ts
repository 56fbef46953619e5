/** IN, OUT, INS, OUTS and who may use them. */
import { RCX, RDI, RFLAGS_DF, RFLAGS_IF, RFLAGS_IOPL, RFLAGS_IOPL_SHIFT, TR } from '../../arch/registers.ts';
import { type EmulateCtxt, SHADOW_INT_STI, X86EMUL_MODE_REAL, X86EMUL_MODE_VM86 } from './ctxt.ts';
import { STRING } from './opcode.ts';
import { OP_MEM_STR, OP_NONE, type Operand } from './operand.ts';
import { X86EMUL_CONTINUE, X86EMUL_IO_NEEDED, X86Exception } from './ops.ts';
import { emulateGp } from './raise.ts';
import { addHi, addressLo, regLo } from './registers.ts';

const PAGE = 4096;
const ignoredFault = new X86Exception();

/** Reads a port, ahead of need when REP repeats the read. False when userspace must provide the data. @kvm emulate.c pio_in_emulated */
function pioInEmulated(ctxt: EmulateCtxt, size: number, port: number, dst: Operand): boolean {
  const cache = ctxt.ioRead;
  const backwards = (ctxt.eflags & RFLAGS_DF) !== 0;
  if (cache.pos === cache.end) {
    const count = ctxt.repPrefix !== 0 ? addressLo(ctxt.adBytes, regLo(ctxt, RCX)) >>> 0 : 1;
    const offset = regLo(ctxt, RDI) & (PAGE - 1);
    const inPage = backwards ? offset : PAGE - offset;
    const ahead = Math.max(1, Math.min(inPage, Math.floor(cache.data.length / size), count));
    cache.pos = 0;
    cache.end = 0;
    if (ctxt.ops.pioInEmulated(ctxt, size, port, cache.data, 0, ahead) === 0) return false;
    cache.end = ahead * size;
  }
  if (ctxt.repPrefix !== 0 && (ctxt.d & STRING) !== 0 && !backwards) {
    dst.data = cache.data;
    dst.dataOff = cache.pos;
    dst.type = OP_MEM_STR;
    dst.count = Math.floor((cache.end - cache.pos) / size);
    cache.pos = cache.end;
  } else {
    for (let i = 0; i < size; i++) dst.val[i] = cache.data[cache.pos + i]!;
    cache.pos += size;
  }
  return true;
}

/** @kvm emulate.c em_in */
export function emIn(ctxt: EmulateCtxt): number {
  const port = ctxt.src.i32[0]! & 0xffff;
  return pioInEmulated(ctxt, ctxt.dst.bytes, port, ctxt.dst) ? X86EMUL_CONTINUE : X86EMUL_IO_NEEDED;
}

/** @kvm emulate.c em_out */
export function emOut(ctxt: EmulateCtxt): number {
  const { src, dst } = ctxt;
  ctxt.ops.pioOutEmulated(ctxt, src.bytes, dst.i32[0]! & 0xffff, src.val, 0, 1);
  dst.type = OP_NONE;
  return X86EMUL_CONTINUE;
}

/** True when IOPL does not allow I/O and interrupt-flag instructions. @kvm emulate.c emulator_bad_iopl */
function badIopl(ctxt: EmulateCtxt): boolean {
  if (ctxt.mode === X86EMUL_MODE_REAL) return false;
  if (ctxt.mode === X86EMUL_MODE_VM86) return true;
  return ctxt.ops.cpl(ctxt) > (ctxt.eflags & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT;
}

/** Reads two bytes of the TSS at `offset`; -1 when they cannot be read. */
function readTssWord(ctxt: EmulateCtxt, baseLo: number, baseHi: number, offset: number): number {
  const lo = (baseLo + offset) | 0;
  const hi = addHi(baseLo, baseHi, offset, 0);
  const rc = ctxt.ops.readStd(ctxt, lo, hi, ctxt.bytes, 0, 2, ignoredFault, true);
  return rc === X86EMUL_CONTINUE ? ctxt.bytes32[0]! & 0xffff : -1;
}

/** The I/O permission bitmap of the TSS. @kvm emulate.c emulator_io_port_access_allowed */
function ioPortAccessAllowed(ctxt: EmulateCtxt, port: number, len: number): boolean {
  const tr = ctxt.seg;
  ctxt.ops.getSegment(ctxt, TR, tr);
  if (tr.p === 0 || tr.limit < 103) return false;
  const { baseLo, baseHi, limit } = tr;
  const bitmap = readTssWord(ctxt, baseLo, baseHi, 102);
  if (bitmap < 0) return false;
  const at = bitmap + (port >> 3);
  if (at > limit) return false;
  const bits = readTssWord(ctxt, baseLo, baseHi, at);
  return bits >= 0 && ((bits >> (port & 7)) & ((1 << len) - 1)) === 0;
}

/** @kvm emulate.c emulator_io_permitted */
function ioPermitted(ctxt: EmulateCtxt, port: number, len: number): boolean {
  if (ctxt.permOk) return true;
  if (badIopl(ctxt) && !ioPortAccessAllowed(ctxt, port, len)) return false;
  ctxt.permOk = true;
  return true;
}

/** @kvm emulate.c check_perm_in */
export function checkPermIn(ctxt: EmulateCtxt): number {
  const { src, dst } = ctxt;
  dst.bytes = Math.min(dst.bytes, 4);
  return ioPermitted(ctxt, src.i32[0]! & 0xffff, dst.bytes) ? X86EMUL_CONTINUE : emulateGp(ctxt, 0);
}

/** @kvm emulate.c check_perm_out */
export function checkPermOut(ctxt: EmulateCtxt): number {
  const { src, dst } = ctxt;
  src.bytes = Math.min(src.bytes, 4);
  return ioPermitted(ctxt, dst.i32[0]! & 0xffff, src.bytes) ? X86EMUL_CONTINUE : emulateGp(ctxt, 0);
}

/** @kvm emulate.c em_cli */
export function emCli(ctxt: EmulateCtxt): number {
  if (badIopl(ctxt)) return emulateGp(ctxt, 0);
  ctxt.eflags &= ~RFLAGS_IF;
  return X86EMUL_CONTINUE;
}

/** @kvm emulate.c em_sti */
export function emSti(ctxt: EmulateCtxt): number {
  if (badIopl(ctxt)) return emulateGp(ctxt, 0);
  ctxt.interruptibility = SHADOW_INT_STI;
  ctxt.eflags |= RFLAGS_IF;
  return X86EMUL_CONTINUE;
}
