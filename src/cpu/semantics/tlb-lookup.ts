/** Finding a linear address in the TLB, as code inside a handler. */
import {
  ACCESS_READ,
  MMU_INDEX_AT,
  TLB_BASE,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_PAGE,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
} from '../state.ts';
import { type I32, type I64, i32, i64 } from '../wasm/code.ts';
import type { FunctionBuilder, Local32, Local64 } from '../wasm/function.ts';
import { state32 } from './state-access.ts';

const low = (value: I64): I32 => i32.wrap(value);

/** Offset from TLB_BASE of the current context's entries. */
export const tlbContext = (): I32 => i32.mul(state32(MMU_INDEX_AT), i32.const(TLB_ENTRIES * TLB_ENTRY_SIZE));

/** Offset from TLB_BASE of the entry for a linear address in the current context. */
export const tlbEntry = (linear: I64, context = tlbContext()): I32 => {
  const index = i32.and(i32.shrU(low(linear), i32.const(12)), i32.const(TLB_ENTRIES - 1));
  return i32.add(i32.mul(index, i32.const(TLB_ENTRY_SIZE)), context);
};

/**
 * Looks `linear` up in the TLB: a host pointer in a new local, or what `missed` puts there. An access that crosses a page misses,
 * because its last byte is compared.
 */
export function lookUpTlb(
  f: FunctionBuilder,
  linear: Local64,
  lastByte: I64 | undefined,
  access: number,
  missed: (pointer: Local32) => void,
  context = tlbContext(),
): Local32 {
  const pageMask = i64.const(-4096);
  const entry = f.i32(tlbEntry(linear.get, context));
  const pointer = f.i32();
  const end = lastByte === undefined ? linear.get : i64.add(linear.get, lastByte);
  const tag = i64.load(entry.get, TLB_BASE + (access === ACCESS_READ ? TLB_READ_TAG : TLB_WRITE_TAG));
  f.if(
    i64.eq(i64.and(end, pageMask), tag),
    () => {
      const inPage = i32.and(low(linear.get), i32.const(0xfff));
      f.do(pointer.set(i32.or(i32.load(entry.get, TLB_BASE + TLB_PAGE), inPage)));
    },
    () => missed(pointer),
  );
  return pointer;
}
