/** Instruction bytes: fetched in pieces as large as page, segment and the 15-byte limit allow. @kvm emulate.c __do_insn_fetch_bytes */
import { CS } from '../../arch/registers.ts';
import { type EmulateCtxt, MAX_INSN_BYTES } from './ctxt.ts';
import { X86EMUL_CONTINUE } from './ops.ts';
import { emulateGp } from './raise.ts';
import { addHi } from './registers.ts';
import { linearize, X86EMUL_F_FETCH } from './segmentation.ts';

const PAGE = 4096;

/** Fetches on from `fetch.end`; at least `need` bytes or a fault. */
export function fetchInsnBytes(ctxt: EmulateCtxt, need: number): number {
  const cache = ctxt.fetch;
  const have = cache.end;
  // Size 0: the limit is compared below, with what is really needed.
  const hi = addHi(ctxt.eipLo, ctxt.eipHi, have, 0);
  let rc = linearize(ctxt, CS, (ctxt.eipLo + have) | 0, hi, 0, X86EMUL_F_FETCH);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const inPage = PAGE - (ctxt.linearLo & (PAGE - 1));
  const size = Math.min(MAX_INSN_BYTES - have, ctxt.maxSize, inPage);
  if (size < need) return emulateGp(ctxt, 0);
  rc = ctxt.ops.fetch(ctxt, ctxt.linearLo, ctxt.linearHi, cache.data, have, size, ctxt.exception);
  if (rc === X86EMUL_CONTINUE) cache.end += size;
  return rc;
}

/** Makes `size` bytes at `fetch.ptr` present. @kvm emulate.c do_insn_fetch_bytes */
function ensure(ctxt: EmulateCtxt, size: number): number {
  const present = ctxt.fetch.end - ctxt.fetch.ptr;
  return present < size ? fetchInsnBytes(ctxt, size - present) : X86EMUL_CONTINUE;
}

function advance(ctxt: EmulateCtxt, size: number): void {
  ctxt.nextEipHi = addHi(ctxt.nextEipLo, ctxt.nextEipHi, size, 0);
  ctxt.nextEipLo = (ctxt.nextEipLo + size) | 0;
  ctxt.fetch.ptr += size;
}

/** The next `size` bytes (1, 2, 4, 8), sign-extended, into `ctxt.immLo/immHi`. @kvm emulate.c insn_fetch */
export function insnFetch(ctxt: EmulateCtxt, size: number): number {
  const rc = ensure(ctxt, size);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const { data, ptr } = ctxt.fetch;
  if (size === 1) ctxt.immLo = (data[ptr]! << 24) >> 24;
  else if (size === 2) ctxt.immLo = ((data[ptr]! | (data[ptr + 1]! << 8)) << 16) >> 16;
  else ctxt.immLo = int32At(data, ptr);
  ctxt.immHi = size === 8 ? int32At(data, ptr + 4) : ctxt.immLo >> 31;
  advance(ctxt, size);
  return X86EMUL_CONTINUE;
}

function int32At(data: Uint8Array, at: number): number {
  return data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);
}

/** The next `size` bytes, as they are, to the start of `to`. @kvm emulate.c insn_fetch_arr */
export function insnFetchBytes(ctxt: EmulateCtxt, to: Uint8Array, size: number): number {
  const rc = ensure(ctxt, size);
  if (rc !== X86EMUL_CONTINUE) return rc;
  for (let i = 0; i < size; i++) to[i] = ctxt.fetch.data[ctxt.fetch.ptr + i]!;
  advance(ctxt, size);
  return X86EMUL_CONTINUE;
}
