/** Data movement between registers and memory. */
import { BR_VECTOR } from '../../arch/exceptions.ts';
import {
  RAX,
  RBX,
  RCX,
  RDX,
  RFLAGS_AF,
  RFLAGS_CF,
  RFLAGS_DF,
  RFLAGS_OF,
  RFLAGS_PF,
  RFLAGS_SF,
  RFLAGS_ZF,
} from '../../arch/registers.ts';
import { ACCESS_READ, ACCESS_RMW, RFLAGS_AT } from '../state.ts';
import { i32, i64, loadSigned } from '../wasm/code.ts';
import type { ValueEmitter } from './context.ts';
import { FL_SUB } from './flags.ts';
import type { MachineEmitter } from './machine-context.ts';
import { setState32, state32 } from './state-access.ts';

/** MOV, and MOVSX MOVSXD with operands of different size. */
export const mov: ValueEmitter = (c) => {
  c.write(0, c.read(1).get);
};
export const movzx: ValueEmitter = (c) => {
  c.write(0, c.readUnsigned(1).get);
};
export const lea: MachineEmitter = (c) => {
  c.write(0, c.offset());
};

/** The memory operand, if any, is the first: it is written before the register. */
export const xchg: ValueEmitter = (c) => {
  const src = c.read(1);
  const dst = c.update(0);
  c.write(0, src.get);
  c.write(1, dst.get);
};

/** The destination is written back even when the comparison fails, so it always needs write permission. */
export const cmpxchg: ValueEmitter = (c) => {
  const f = c.f;
  const src = c.read(1);
  const dst = c.update(0);
  const acc = f.i64(c.gprSigned(RAX, c.size));
  const equal = f.i32(i64.eq(acc.get, dst.get));
  if (c.isMemory(0)) {
    c.write(0, i64.select(equal.get, src.get, dst.get));
    f.if(i32.eqz(equal.get), () => c.setGpr(RAX, c.size, dst.get));
  } else {
    f.if(
      equal.get,
      () => c.write(0, src.get),
      () => c.setGpr(RAX, c.size, dst.get),
    );
  }
  c.setFlags(FL_SUB, c.sized(i64.sub(acc.get, dst.get)), acc.get, dst.get);
};

/** CMPXCHG8B and CMPXCHG16B: `size` is that of a half. */
export const cmpxchgPair: MachineEmitter = (c) => {
  const f = c.f;
  const half = c.size === 8 ? 8 : 4;
  if (half === 8) c.requireAligned(16);
  const pointer = c.pointer(half * 2, ACCESS_RMW);
  const low = f.i64(loadSigned(half, pointer.get));
  const high = f.i64(loadSigned(half, pointer.get, half));
  const equal = f.i32(i32.and(i64.eq(low.get, c.gprSigned(RAX, half)), i64.eq(high.get, c.gprSigned(RDX, half))));
  const store = half === 8 ? i64.store : i64.store32;
  c.do(store(pointer.get, 0, i64.select(equal.get, c.gprSigned(RBX, half), low.get)));
  c.do(store(pointer.get, half, i64.select(equal.get, c.gprSigned(RCX, half), high.get)));
  c.finish();
  f.if(i32.eqz(equal.get), () => {
    c.setGpr(RAX, half, low.get);
    c.setGpr(RDX, half, high.get);
  });
  c.setStatus(i32.or(i32.and(c.status(), i32.const(~RFLAGS_ZF)), i32.shl(equal.get, i32.const(6))));
};

/** A conditional move reads its source, and clears the upper half of a 32-bit destination, either way. */
export const cmovcc =
  (cc: number): ValueEmitter =>
  (c) => {
    const src = c.read(1);
    const dst = c.read(0);
    const take = c.condition(cc);
    c.write(0, i64.select(take, src.get, dst.get));
  };
export const setcc =
  (cc: number): ValueEmitter =>
  (c) => {
    c.write(0, i64.extendU(c.condition(cc)));
  };

export const xlat: MachineEmitter = (c) => {
  const at = c.pointer(1, ACCESS_READ, c.gpr(RAX, 1));
  c.setGpr(RAX, 1, i64.load8U(at.get));
};

const FLAGS_IN_AH = RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF | RFLAGS_CF;
export const lahf: ValueEmitter = (c) => {
  const ah = i32.or(i32.and(c.status(), i32.const(FLAGS_IN_AH)), i32.const(2));
  c.setAh(i64.extendU(ah));
};
export const sahf: ValueEmitter = (c) => {
  const ah = i32.and(i32.wrap(c.ah()), i32.const(FLAGS_IN_AH));
  c.setStatus(i32.or(ah, i32.and(c.status(), i32.const(RFLAGS_OF))));
};
export const cld: ValueEmitter = (c) => {
  c.do(setState32(RFLAGS_AT, i32.and(state32(RFLAGS_AT), i32.const(~RFLAGS_DF))));
};
export const std: ValueEmitter = (c) => {
  c.do(setState32(RFLAGS_AT, i32.or(state32(RFLAGS_AT), i32.const(RFLAGS_DF))));
};

export const nop: ValueEmitter = () => {};

/** BOUND: the register between the two signed limits in memory, or #BR. */
export const bound: MachineEmitter = (c) => {
  const index = c.read(0);
  const limits = c.pointer(c.size * 2, ACCESS_READ);
  const below = i64.ltS(index.get, loadSigned(c.size, limits.get));
  const above = i64.gtS(index.get, loadSigned(c.size, limits.get, c.size));
  c.f.if(i32.or(below, above), () => c.fault(BR_VECTOR));
};
