/** Accesses of an instruction to memory, by segment. Reads are remembered so that a restarted instruction sees the same values. */
import type { EmulateCtxt } from './ctxt.ts';
import { X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { linearize, X86EMUL_F_WRITE } from './segmentation.ts';

/** Reads through the read cache; only a miss reaches memory or a device. @kvm emulate.c read_emulated */
function readEmulated(ctxt: EmulateCtxt, buf: Uint8Array, off: number, size: number): number {
  const cache = ctxt.memRead;
  if (cache.pos >= cache.end) {
    if (cache.end + size >= cache.data.length) return X86EMUL_UNHANDLEABLE;
    const { linearLo, linearHi, exception } = ctxt;
    const rc = ctxt.ops.readEmulated(ctxt, linearLo, linearHi, cache.data, cache.end, size, exception);
    if (rc !== X86EMUL_CONTINUE) return rc;
    cache.end += size;
  }
  for (let i = 0; i < size; i++) buf[off + i] = cache.data[cache.pos + i]!;
  cache.pos += size;
  return X86EMUL_CONTINUE;
}

/** Memory or device. @kvm emulate.c segmented_read */
export function segmentedRead(
  ctxt: EmulateCtxt,
  seg: number,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  size: number,
): number {
  const rc = linearize(ctxt, seg, lo, hi, size, 0);
  return rc !== X86EMUL_CONTINUE ? rc : readEmulated(ctxt, buf, off, size);
}

/** Memory or device. @kvm emulate.c segmented_write */
export function segmentedWrite(
  ctxt: EmulateCtxt,
  seg: number,
  lo: number,
  hi: number,
  buf: Uint8Array,
  off: number,
  size: number,
): number {
  const rc = linearize(ctxt, seg, lo, hi, size, X86EMUL_F_WRITE);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return ctxt.ops.writeEmulated(ctxt, ctxt.linearLo, ctxt.linearHi, buf, off, size, ctxt.exception);
}

/** A locked write: stores `now` if memory still holds `old`. @kvm emulate.c segmented_cmpxchg */
export function segmentedCmpxchg(
  ctxt: EmulateCtxt,
  seg: number,
  lo: number,
  hi: number,
  old: Uint8Array,
  now: Uint8Array,
  size: number,
): number {
  const rc = linearize(ctxt, seg, lo, hi, size, X86EMUL_F_WRITE);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return ctxt.ops.cmpxchgEmulated(ctxt, ctxt.linearLo, ctxt.linearHi, old, now, size, ctxt.exception);
}

/** Memory only, never a device. @kvm emulate.c segmented_read_std */
export function segmentedReadStd(
  ctxt: EmulateCtxt,
  seg: number,
  lo: number,
  hi: number,
  buf: Uint8Array,
  size: number,
): number {
  const rc = linearize(ctxt, seg, lo, hi, size, 0);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return ctxt.ops.readStd(ctxt, ctxt.linearLo, ctxt.linearHi, buf, 0, size, ctxt.exception, false);
}

/** Memory only, never a device. @kvm emulate.c segmented_write_std */
export function segmentedWriteStd(
  ctxt: EmulateCtxt,
  seg: number,
  lo: number,
  hi: number,
  buf: Uint8Array,
  size: number,
): number {
  const rc = linearize(ctxt, seg, lo, hi, size, X86EMUL_F_WRITE);
  if (rc !== X86EMUL_CONTINUE) return rc;
  return ctxt.ops.writeStd(ctxt, ctxt.linearLo, ctxt.linearHi, buf, 0, size, ctxt.exception, false);
}

/** Implicit supervisor read at a linear address (descriptor tables, TSS). @kvm emulate.c linear_read_system */
export function linearReadSystem(ctxt: EmulateCtxt, lo: number, hi: number, buf: Uint8Array, size: number): number {
  return ctxt.ops.readStd(ctxt, lo, hi, buf, 0, size, ctxt.exception, true);
}

/** Implicit supervisor write at a linear address. @kvm emulate.c linear_write_system */
export function linearWriteSystem(ctxt: EmulateCtxt, lo: number, hi: number, buf: Uint8Array, size: number): number {
  return ctxt.ops.writeStd(ctxt, lo, hi, buf, 0, size, ctxt.exception, true);
}
