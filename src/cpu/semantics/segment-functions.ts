/** The shared functions from an operand's registers to a linear address: address size, segment base, limit and rights. */
import { GP_VECTOR, SS_VECTOR } from '../../arch/exceptions.ts';
import { CR0_PE, FS, RFLAGS_VM, SS } from '../../arch/registers.ts';
import { VMCB_ATTR_DB, VMCB_ATTR_P } from '../../arch/vmcb.ts';
import { RECORD_ADDRSIZE } from '../decode/record.ts';
import { CR0_AT, RFLAGS_AT, SEG, SEG_ATTR, SEG_BASE, SEG_LIMIT, SEG_SIZE, SEGMENTS_UNCHECKED_AT } from '../state.ts';
import { type I32, type I64, i32, i64, T_I32, T_I64 } from '../wasm/code.ts';
import { call, type FunctionRef, type GlobalRef, setGlobal } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { isLongMode, rawOffset, state32 } from './state-access.ts';

const ZERO = i32.const(0);
/** A field of segment register `segment`. */
export const segmentField = (segment: I32, field: number): I32 =>
  i32.load(i32.mul(segment, i32.const(SEG_SIZE)), SEG + field);
const segmentBase = (segment: I32): I64 => i64.load(i32.mul(segment, i32.const(SEG_SIZE)), SEG + SEG_BASE);

export interface SegmentFunctions {
  /** (record) -> offset of the memory operand, truncated to the address size */
  readonly offset: FunctionRef;
  /** (record) -> mask of the address size */
  readonly addressMask: FunctionRef;
  /** (offset, size, access, segment) -> linear address, with `fault` */
  readonly segmented: FunctionRef;
}

/** Adds the functions. `fault` and `raise` are those of SharedFunctions. */
export function defineSegmentFunctions(
  m: ModuleBuilder,
  { fault, raise }: { readonly fault: GlobalRef; readonly raise: FunctionRef },
): SegmentFunctions {
  const addressMask = m.function([T_I32], [T_I64], (f) => {
    const size = f.i32(i32.load8U(f.param32(0).get, RECORD_ADDRSIZE));
    f.if(i32.eq(size.get, i32.const(8)), () => f.return(i64.const(-1)));
    f.do(i64.select(i32.eq(size.get, i32.const(4)), i64.const(0xffffffff), i64.const(0xffff)));
  });

  const offset = m.function([T_I32], [T_I64], (f) => {
    const record = f.param32(0);
    f.do(i64.and(rawOffset(record.get), call(addressMask, record.get)));
  });

  const segmented = m.function([T_I64, T_I32, T_I32, T_I32], [T_I64], (f) => {
    const at = f.param64(0);
    const segment = f.param32(3);
    const base = segmentBase(segment.get);
    f.do(setGlobal(fault, ZERO));
    f.if(isLongMode(), () => {
      f.if(i32.geU(segment.get, i32.const(FS)), () => f.return(i64.add(at.get, base)));
      f.return(at.get);
    });
    const attr = f.i32(segmentField(segment.get, SEG_ATTR));
    // All of 4 GiB, present, writable data: nothing to check.
    const flat = i32.and(
      i32.eq(i32.and(attr.get, i32.const(VMCB_ATTR_P | 0xe)), i32.const(VMCB_ATTR_P | 2)),
      i32.eq(segmentField(segment.get, SEG_LIMIT), i32.const(-1)),
    );
    const unchecked = i32.or(flat, state32(SEGMENTS_UNCHECKED_AT));
    f.if(unchecked, () => f.return(i64.and(i64.add(at.get, base), i64.const(0xffffffff))));
    const bad = f.i32(i32.eqz(i32.and(attr.get, i32.const(VMCB_ATTR_P))));
    const has = (bits: number): I32 => i32.and(attr.get, i32.const(bits));
    const isProtected = i32.and(
      i32.and(state32(CR0_AT), i32.const(CR0_PE)),
      i32.eqz(i32.and(state32(RFLAGS_AT), i32.const(RFLAGS_VM))),
    );
    f.if(isProtected, () => {
      f.if(
        f.param32(2).get,
        () => f.do(bad.set(i32.or(bad.get, i32.ne(has(0xa), i32.const(2))))),
        () => f.do(bad.set(i32.or(bad.get, i32.eq(has(0xa), i32.const(8))))),
      );
    });
    const limit = f.i64(i64.extendU(segmentField(segment.get, SEG_LIMIT)));
    const last = f.i64(i64.add(at.get, i64.extendU(i32.sub(f.param32(1).get, i32.const(1)))));
    f.if(
      i32.eq(has(0xc), i32.const(4)),
      () => {
        const top = i64.select(has(VMCB_ATTR_DB), i64.const(0xffffffff), i64.const(0xffff));
        f.do(bad.set(i32.or(bad.get, i32.or(i64.leU(at.get, limit.get), i64.gtU(last.get, top)))));
      },
      () => {
        const outside = i32.and(i64.gtU(last.get, limit.get), i64.ne(limit.get, i64.const(0xffffffff)));
        f.do(bad.set(i32.or(bad.get, outside)));
      },
    );
    f.if(bad.get, () => {
      const vector = i32.select(i32.eq(segment.get, i32.const(SS)), i32.const(SS_VECTOR), i32.const(GP_VECTOR));
      f.do(setGlobal(fault, call(raise, vector, ZERO)));
    });
    f.do(i64.and(i64.add(at.get, base), i64.const(0xffffffff)));
  });

  return { offset, addressMask, segmented };
}
