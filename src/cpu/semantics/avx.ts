/** What AVX and AVX2 add to SSE: moves of 256 bits, broadcasts, permutations, shifts by lane. Lane-wise ones are written for 128 bits; see vex.ts. */
import { ACCESS_READ, ACCESS_WRITE, VECTOR_STAGE, XMM, XMM_SIZE } from '../state.ts';
import { type I32, type I64, i32, i64, v128 } from '../wasm/code.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { isLongMode } from './state-access.ts';
import { clearUpper, requireAvx, writeStage } from './vex.ts';

const ZERO = i32.const(0);
const imm = (c: MachineContext): I32 => i32.wrap(c.immediate());
const loadSized = (bytes: number, at: I32, offset = 0): I64 =>
  ({ 1: i64.load8U, 2: i64.load16U, 4: i64.load32U, 8: i64.load })[bytes]!(at, offset);
/** Address of the ModRM.rm operand, of `bytes` in memory. */
function operandAddress(c: MachineContext, index: number, bytes: number): I32 {
  return c.isMemory(index) ? c.pointer(bytes, ACCESS_READ).get : c.f.i32(c.vector(index)).get;
}

// Moves.

/** Whole registers; `aligned` refuses memory that is not. */
export const vmove =
  (aligned: boolean): MachineEmitter =>
  (c) => {
    requireAvx(c);
    const bytes = c.vectorBytes(c.isMemory(0) ? 1 : 0);
    if (c.isMemory(0)) {
      if (aligned) c.requireAligned(bytes, ACCESS_WRITE);
      const to = c.pointer(bytes, ACCESS_WRITE);
      for (let at = 0; at < bytes; at += 16) c.do(v128.store(to.get, at, v128.load(c.vector(1), at)));
      c.finish();
      return;
    }
    if (aligned && c.isMemory(1)) c.requireAligned(bytes);
    const from = c.isMemory(1) ? c.pointer(bytes, ACCESS_READ).get : c.vector(1);
    for (let at = 0; at < bytes; at += 16) c.do(v128.store(c.vector(0), at, v128.load(from, at)));
    if (bytes === 16) clearUpper(c, 0);
  };

/** VZEROUPPER, and VZEROALL when `all`. Outside 64-bit mode the upper eight registers stay. */
export const vzero =
  (all: boolean): MachineEmitter =>
  (c) => {
    requireAvx(c);
    const clear = (from: number): void => {
      for (let n = from; n < from + 8; n++) {
        if (all) c.do(v128.store(ZERO, XMM + n * XMM_SIZE, v128.zero()));
        c.do(v128.store(ZERO, XMM + n * XMM_SIZE + 16, v128.zero()));
      }
    };
    clear(0);
    if (c.flat) clear(8);
    else c.f.if(isLongMode(), () => clear(8));
  };

/** VBROADCASTxx and VPBROADCASTx: `bytes` (1, 2, 4, 8 or 16) all over the destination. */
export const broadcast =
  (bytes: 1 | 2 | 4 | 8 | 16): MachineEmitter =>
  (c) => {
    requireAvx(c);
    const width = c.vectorBytes(0);
    const from = operandAddress(c, 1, bytes);
    const narrow = bytes === 8 || bytes === 16 ? undefined : i32.wrap(loadSized(bytes, from));
    const value = bytes === 16 ? v128.load(from) : v128.splat(bytes, narrow === undefined ? i64.load(from) : narrow);
    c.do(v128.store(ZERO, VECTOR_STAGE, value));
    c.do(v128.store(c.vector(0), 0, v128.load(ZERO, VECTOR_STAGE)));
    if (width === 32) c.do(v128.store(c.vector(0), 16, v128.load(ZERO, VECTOR_STAGE)));
    else clearUpper(c, 0);
  };

/** VINSERTF128: the second source is the half that the immediate says. */
export const insertHalf: MachineEmitter = (c) => {
  requireAvx(c);
  const from = operandAddress(c, 2, 16);
  for (const at of [0, 16]) c.do(v128.store(ZERO, VECTOR_STAGE + at, v128.load(c.vector(1), at)));
  const half = i32.shl(i32.and(imm(c), i32.const(1)), i32.const(4));
  c.do(v128.store(half, VECTOR_STAGE, v128.load(from)));
  writeStage(c, 0, 32);
};
/** VEXTRACTF128. */
export const extractHalf: MachineEmitter = (c) => {
  requireAvx(c);
  const from = i32.add(c.vector(1), i32.shl(i32.and(imm(c), i32.const(1)), i32.const(4)));
  if (c.isMemory(0)) {
    c.do(v128.store(c.pointer(16, ACCESS_WRITE).get, 0, v128.load(from)));
    c.finish();
  } else {
    c.do(v128.store(c.vector(0), 0, v128.load(from)));
    clearUpper(c, 0);
  }
};
/** VPERM2F128: each half is one of the four of both sources, or zero. */
export const permuteHalves: MachineEmitter = (c) => {
  requireAvx(c);
  const second = operandAddress(c, 2, 32);
  for (const half of [0, 1]) {
    const choice = i32.shrU(imm(c), i32.const(4 * half));
    const source = i32.select(i32.and(choice, i32.const(2)), second, c.vector(1));
    const from = i32.add(source, i32.shl(i32.and(choice, i32.const(1)), i32.const(4)));
    c.do(v128.store(ZERO, VECTOR_STAGE + 16 * half, v128.load(from)));
    c.f.if(i32.and(choice, i32.const(8)), () => c.do(v128.store(ZERO, VECTOR_STAGE + 16 * half, v128.zero())));
  }
  writeStage(c, 0, 32);
};
/** VPERMQ, VPERMPD: four selectors in the immediate. */
export const permuteQuads: MachineEmitter = (c) => {
  requireAvx(c);
  const from = operandAddress(c, 1, 32);
  for (let n = 0; n < 4; n++) {
    const lane = i32.and(i32.shrU(imm(c), i32.const(2 * n)), i32.const(3));
    c.do(i64.store(ZERO, VECTOR_STAGE + 8 * n, i64.load(i32.add(from, i32.shl(lane, i32.const(3))))));
  }
  writeStage(c, 0, 32);
};
/** VPERMD, VPERMPS: the selectors are the first source. */
export const permuteDoublewords: MachineEmitter = (c) => {
  requireAvx(c);
  const from = operandAddress(c, 2, 32);
  for (let n = 0; n < 8; n++) {
    const lane = i32.and(i32.load(c.vector(1), 4 * n), i32.const(7));
    c.do(i32.store(ZERO, VECTOR_STAGE + 4 * n, i32.load(i32.add(from, i32.shl(lane, i32.const(2))))));
  }
  writeStage(c, 0, 32);
};

// Lane by lane: the destination holds the first source.

/** Address of the second operand, 16 bytes of memory. */
function second(c: MachineContext): I32 {
  return c.isMemory(1) ? c.pointer(16, ACCESS_READ).get : c.f.i32(c.vector(1)).get;
}
/** VPERMILPS and VPERMILPD with selectors in the second source. */
export const permuteInLane =
  (bytes: 4 | 8): MachineEmitter =>
  (c) => {
    const selectors = second(c);
    const lanes = Array.from({ length: 16 / bytes }, (_, n) => {
      const word = i32.load(selectors, n * bytes);
      const lane = bytes === 4 ? i32.and(word, i32.const(3)) : i32.and(i32.shrU(word, i32.const(1)), i32.const(1));
      return c.f.i64(loadSized(bytes, i32.add(c.vector(0), i32.mul(lane, i32.const(bytes)))));
    });
    const store = bytes === 4 ? i64.store32 : i64.store;
    lanes.forEach((value, n) => {
      c.do(store(c.vector(0), n * bytes, value.get));
    });
  };
/** VPERMILPD by two bits of the immediate. */
export const permuteInLaneBy: MachineEmitter = (c) => {
  const from = second(c);
  const lane = (n: number): I32 => i32.shl(i32.and(i32.shrU(imm(c), i32.const(n)), i32.const(1)), i32.const(3));
  for (const n of [0, 1]) c.do(i64.store(c.vector(0), 8 * n, i64.load(i32.add(from, lane(n)))));
};
/** VPSLLVx, VPSRLVx, VPSRAVD: each lane by its own count. */
export const shiftEach =
  (bytes: 4 | 8, kind: 'left' | 'right' | 'arithmetic'): MachineEmitter =>
  (c) => {
    const counts = second(c);
    const bits = bytes * 8;
    for (let n = 0; n < 16 / bytes; n++) {
      const count = c.f.i64(loadSized(bytes, counts, n * bytes));
      const inside = i64.ltU(count.get, i64.const(bits));
      const at = c.vector(0);
      const store = bytes === 4 ? i64.store32 : i64.store;
      if (kind === 'arithmetic') {
        const by = i64.select(inside, count.get, i64.const(bits - 1));
        c.do(store(at, n * bytes, i64.shrS(i64.load32S(at, n * bytes), by)));
      } else {
        const shifted = (kind === 'left' ? i64.shl : i64.shrU)(loadSized(bytes, at, n * bytes), count.get);
        c.do(store(at, n * bytes, i64.select(inside, shifted, i64.const(0))));
      }
    }
  };
