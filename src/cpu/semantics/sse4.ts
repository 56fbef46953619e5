/** SSE3, SSSE3, SSE4.1 and SSE4.2 but for floating point; AES and PCLMULQDQ through an assist. */
import { RAX, RCX, RDX, RFLAGS_CF, RFLAGS_ZF } from '../../arch/registers.ts';
import { ASSIST_AES, ASSIST_TEXT } from '../floating/assist.ts';
import { ASSIST_A, ASSIST_B, ASSIST_RESULT } from '../floating/fpu-memory.ts';
import { TEXT_EXPLICIT } from '../floating/text-compare.ts';
import { ACCESS_READ, ASSIST, XMM } from '../state.ts';
import { type I32, type I64, i32, i64, type V128, v128 } from '../wasm/code.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { setState64, state32 } from './state-access.ts';
import { binary, load, requireVector, simd, source, writeVector } from './vector.ts';

const ZERO = i32.const(0);
const op2 = v128.binary;
const splat = (byte: number): V128 => v128.const(new Array<number>(16).fill(byte));
const imm = (c: MachineContext): I32 => i32.wrap(c.immediate());
/** Byte numbers of `lane` bytes each, from lanes `lanes`. */
const lanesOf = (lane: number, lanes: readonly number[]): number[] =>
  lanes.flatMap((n) => Array.from({ length: lane }, (_, i) => n * lane + i));

// SSE3 moves.

/** MOVSLDUP and MOVSHDUP. */
const duplicate =
  (lanes: readonly number[]): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = c.f.i32(source(c, 1, 16, true));
    writeVector(c, 0, v128.shuffle(v128.load(src.get), v128.load(src.get), lanesOf(4, lanes)));
  };
export const movsldup = duplicate([0, 0, 2, 2]);
export const movshdup = duplicate([1, 1, 3, 3]);
export const movddup: MachineEmitter = (c) => {
  requireVector(c, 16);
  const value = c.f.i64(i64.load(source(c, 1, 8, false)));
  c.do(i64.store(c.vector(0), 0, value.get), i64.store(c.vector(0), 8, value.get));
};

// SSSE3, on MMX and XMM registers.

/** A selector whose top bit is set gives zero. */
export const pshufb: MachineEmitter = (c) => {
  const keep = splat(c.vectorBytes(0) === 8 ? 0x87 : 0x8f);
  binary((d, s) => op2(14)(d, op2(78)(s, keep)))(c);
};
/** Pairs of neighbours: even lanes and odd lanes of both operands, combined. */
const horizontal =
  (lane: 2 | 4, opcode: number): MachineEmitter =>
  (c) => {
    const bytes = c.vectorBytes(0);
    const count = bytes / lane;
    const from = (n: number): number => (n < count / 2 ? 2 * n : 2 * (n - count / 2) + 16 / lane);
    const even = Array.from({ length: 16 / lane }, (_, n) => from(n % count));
    const lanes = (odd: number): number[] =>
      lanesOf(
        lane,
        even.map((n) => n + odd),
      );
    binary((d, s) => op2(opcode)(v128.shuffle(d, s, lanes(0)), v128.shuffle(d, s, lanes(1))))(c);
  };
export const phaddw = horizontal(2, 142);
export const phaddd = horizontal(4, 174);
export const phaddsw = horizontal(2, 143);
export const phsubw = horizontal(2, 145);
export const phsubd = horizontal(4, 177);
export const phsubsw = horizontal(2, 146);
/** Unsigned bytes of the first times signed bytes of the second, added in pairs and saturated. */
export const pmaddubsw = binary((d, s) => {
  const half = (unsigned: number, signed: number): V128 => op2(186)(v128.unary(unsigned)(d), v128.unary(signed)(s));
  return op2(133)(half(137, 135), half(138, 136));
});
/** Like WebAssembly's q15mulr, which saturates the one product that wraps here. */
export const pmulhrsw = binary((d, s) => {
  const lowest = v128.const(Array.from({ length: 16 }, (_, i) => (i & 1) * 0x80));
  const both = op2(78)(op2(45)(d, lowest), op2(45)(s, lowest));
  return op2(81)(op2(130)(d, s), both);
});
/** By lane of 1, 2, 4 bytes: the sign of the second operand is given to the first. */
const sign = (shift: number, bits: number, subtract: number, equal: number): MachineEmitter =>
  binary((d, s) => {
    const negative = v128.shift(shift)(s, i32.const(bits - 1));
    const signed = op2(subtract)(op2(81)(d, negative), negative);
    return op2(79)(signed, op2(equal)(s, v128.zero()));
  });
export const psign = [sign(108, 8, 113, 35), sign(140, 16, 145, 45), sign(172, 32, 177, 55)] as const;
const unaryVector = (opcode: number): MachineEmitter => binary((_d, s) => v128.unary(opcode)(s));
export const pabs = [unaryVector(96), unaryVector(128), unaryVector(160)] as const;
/** Both operands one after the other, the second below, moved right by bytes. */
export const palignr: MachineEmitter = (c) => {
  const { f } = c;
  const bytes = c.vectorBytes(0);
  requireVector(c, bytes);
  const src = source(c, 1, bytes, true);
  c.do(v128.store(ZERO, ASSIST, load(bytes, src)), v128.store(ZERO, ASSIST + bytes, load(bytes, c.vector(0))));
  c.do(v128.store(ZERO, ASSIST + 2 * bytes, v128.zero()));
  const at = f.i32(imm(c));
  f.if(i32.gtU(at.get, i32.const(2 * bytes)), () => f.do(at.set(i32.const(2 * bytes))));
  writeVector(c, 0, load(bytes, i32.add(at.get, i32.const(ASSIST))));
};

// SSE4.1.

/** PBLENDVB, BLENDVPS, BLENDVPD: lanes of the second operand where XMM0's lane, or VEX's fourth operand's, has its top bit set. */
const blendVariable =
  (shift: number, bits: number): MachineEmitter =>
  (c) => {
    const mask = c.isVex ? c.vector(2) : i32.const(XMM);
    binary((d, s) => v128.select(s, d, v128.shift(shift)(v128.load(mask), i32.const(bits - 1))))(c);
  };
export const pblendvb = blendVariable(108, 8);
export const blendvps = blendVariable(172, 32);
export const blendvpd = blendVariable(204, 64);
/** BLENDPS, BLENDPD, PBLENDW: lanes of the second operand by the immediate's bits. */
const blend =
  (lane: 2 | 4 | 8): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = c.f.i32(source(c, 1, 16, true));
    const loadLane = lane === 2 ? i64.load16U : lane === 4 ? i64.load32U : i64.load;
    const storeLane = lane === 2 ? i64.store16 : lane === 4 ? i64.store32 : i64.store;
    for (let n = 0; n < 16 / lane; n++) {
      const chosen = i32.and(imm(c), i32.const(1 << n));
      const value = i64.select(chosen, loadLane(src.get, n * lane), loadLane(c.vector(0), n * lane));
      c.do(storeLane(c.vector(0), n * lane, value));
    }
  };
export const blendps = blend(4);
export const blendpd = blend(8);
export const pblendw = blend(2);
/** ZF: no common bits among those of `mask`; CF: nothing of the second operand outside the first. */
const testBits =
  (mask: (words: I64) => I64): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = c.f.i32(source(c, 1, 16, true));
    const both = (combine: (d: I64, s: I64) => I64): I32 => {
      const word = (n: number): I64 => combine(i64.load(c.vector(0), n), i64.load(src.get, n));
      return i64.eqz(mask(i64.or(word(0), word(8))));
    };
    const zf = i32.select(both(i64.and), i32.const(RFLAGS_ZF), ZERO);
    const cf = i32.select(
      both((d, s) => i64.and(s, i64.not(d))),
      i32.const(RFLAGS_CF),
      ZERO,
    );
    c.setStatus(i32.or(zf, cf));
  };
export const ptest = testBits((words) => words);
const TOP_OF_EACH = i64.or(i64.shl(i64.const(1), i64.const(63)), i64.const(0x80000000));
/** VTESTPS and VTESTPD: signs only. */
export const testps = testBits((words) => i64.and(words, TOP_OF_EACH));
export const testpd = testBits((words) => i64.shrU(words, i64.const(63)));
/** PMOVSX and PMOVZX: `bytes` of the source, widened by one or more steps. */
const widen =
  (bytes: 2 | 4 | 8, steps: readonly number[]): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = source(c, 1, bytes, false);
    const low = bytes === 8 ? v128.load64Zero(src) : bytes === 4 ? v128.load32Zero(src) : undefined;
    if (low === undefined) {
      c.do(setState64(ASSIST_A, i64.load16U(src)));
      writeVector(
        c,
        0,
        steps.reduce((v, step) => v128.unary(step)(v), v128.load64Zero(ZERO, ASSIST_A)),
      );
    } else {
      writeVector(
        c,
        0,
        steps.reduce((v, step) => v128.unary(step)(v), low),
      );
    }
  };
/** BW BD BQ WD WQ DQ, signed and unsigned. */
export const pmovsx = [
  widen(8, [135]),
  widen(4, [135, 167]),
  widen(2, [135, 167, 199]),
  widen(8, [167]),
  widen(4, [167, 199]),
  widen(8, [199]),
] as const;
export const pmovzx = [
  widen(8, [137]),
  widen(4, [137, 169]),
  widen(2, [137, 169, 201]),
  widen(8, [169]),
  widen(4, [169, 201]),
  widen(8, [201]),
] as const;
/** Even lanes, signed. */
export const pmuldq = binary((d, s) => {
  const even = (x: V128): V128 => v128.shuffle(x, x, lanesOf(4, [0, 2, 0, 2]));
  return op2(220)(even(d), even(s));
});
export const pmulld = simd(181);
export const pcmpeqq = simd(214);
export const pcmpgtq = simd(217);
export const packusdw = simd(134);
export const pminsb = simd(118);
export const pmaxsb = simd(120);
export const pminuw = simd(151);
export const pmaxuw = simd(153);
export const pminsd = simd(182);
export const pminud = simd(183);
export const pmaxsd = simd(184);
export const pmaxud = simd(185);
/** The least of eight unsigned words, and where it is. */
export const phminposuw: MachineEmitter = (c) => {
  const { f } = c;
  requireVector(c, 16);
  const src = f.i32(source(c, 1, 16, true));
  // The index below the value: the first of equal ones is the least.
  const least = f.i32(i32.shl(i32.load16U(src.get), i32.const(3)));
  for (let n = 1; n < 8; n++) {
    const next = f.i32(i32.or(i32.shl(i32.load16U(src.get, n * 2), i32.const(3)), i32.const(n)));
    f.if(i32.ltU(next.get, least.get), () => f.do(least.set(next.get)));
  }
  const index = i32.shl(i32.and(least.get, i32.const(7)), i32.const(16));
  c.do(i64.store(c.vector(0), 0, i64.extendU(i32.or(i32.shrU(least.get, i32.const(3)), index))));
  c.do(i64.store(c.vector(0), 8, i64.const(0)));
};
/** Sums of absolute differences of four bytes of the second operand with each of eight places in the first. */
export const mpsadbw: MachineEmitter = (c) => {
  const { f } = c;
  requireVector(c, 16);
  const src = f.i32(source(c, 1, 16, true));
  const block = f.i32(i32.add(src.get, i32.shl(i32.and(imm(c), i32.const(3)), i32.const(2))));
  const window = f.i32(i32.add(c.vector(0), i32.and(imm(c), i32.const(4))));
  for (let n = 0; n < 8; n++) {
    const terms = [0, 1, 2, 3].map((i) => {
      const a = i32.load8U(window.get, n + i);
      const b = i32.load8U(block.get, i);
      return i32.select(i32.gtU(a, b), i32.sub(a, b), i32.sub(b, a));
    });
    c.do(
      i32.store16(
        ZERO,
        ASSIST_RESULT + n * 2,
        terms.reduce((a, b) => i32.add(a, b)),
      ),
    );
  }
  c.do(v128.store(c.vector(0), 0, v128.load(ZERO, ASSIST_RESULT)));
};

/** PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS: a lane of the second operand to a general register or memory. */
export const extract =
  (lane: 1 | 2 | 4 | 0): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const bytes = lane === 0 ? c.size : lane;
    const loadLane = { 1: i64.load8U, 2: i64.load16U, 4: i64.load32U, 8: i64.load }[bytes]!;
    const number = i32.and(imm(c), i32.const(16 / bytes - 1));
    c.write(0, loadLane(i32.add(c.vector(1), i32.mul(number, i32.const(bytes)))));
  };
/** PINSRB, PINSRD, PINSRQ: from a general register or memory. */
export const insert =
  (lane: 1 | 0): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const bytes = lane === 0 ? c.size : lane;
    const value = lane === 1 && c.isMemory(1) ? c.f.i64(i64.load8U(c.pointer(1, ACCESS_READ).get)) : c.readUnsigned(1);
    const storeLane = { 1: i64.store8, 4: i64.store32, 8: i64.store }[bytes]!;
    const number = i32.and(imm(c), i32.const(16 / bytes - 1));
    c.do(storeLane(i32.add(c.vector(0), i32.mul(number, i32.const(bytes))), 0, value.get));
  };
/** A lane of the source (the only one of memory) to the lane in bits 5:4; lanes in bits 3:0 are cleared. */
export const insertps: MachineEmitter = (c) => {
  const { f } = c;
  requireVector(c, 16);
  const from = c.isMemory(1)
    ? c.pointer(4, ACCESS_READ).get
    : i32.add(c.vector(1), i32.and(i32.shrU(imm(c), i32.const(4)), i32.const(12)));
  const value = f.i64(i64.load32U(from));
  const to = i32.and(i32.shrU(imm(c), i32.const(2)), i32.const(12));
  c.do(i64.store32(i32.add(c.vector(0), to), 0, value.get));
  for (let n = 0; n < 4; n++) {
    f.if(i32.and(imm(c), i32.const(1 << n)), () => c.do(i64.store32(c.vector(0), n * 4, i64.const(0))));
  }
};
/** MOVNTDQA: an aligned load. */
export const movntdqa: MachineEmitter = (c) => {
  requireVector(c, 16);
  writeVector(c, 0, v128.load(source(c, 1, 16, true)));
};

// SSE4.2, AES, PCLMULQDQ.

/** PCMPESTRx (`explicit` lengths in rAX and rDX) and PCMPISTRx; the answer is a mask in XMM0 or an index in ECX. Memory need not be aligned. */
export const compareStrings =
  (explicit: boolean, mask: boolean): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = source(c, 1, 16, false);
    c.do(v128.store(ZERO, ASSIST_B, v128.load(src)), v128.store(ZERO, ASSIST_A, v128.load(c.vector(0))));
    if (explicit) {
      // REX.W makes the lengths 64 bits wide.
      c.do(setState64(ASSIST_RESULT, c.gprSigned(RAX, c.size === 8 ? 8 : 4)));
      c.do(setState64(ASSIST_RESULT + 8, c.gprSigned(RDX, c.size === 8 ? 8 : 4)));
    }
    c.assist(ASSIST_TEXT, i32.or(imm(c), i32.const(explicit ? TEXT_EXPLICIT : 0)));
    if (mask) c.do(v128.store(i32.const(XMM), 0, v128.load(ZERO, ASSIST_RESULT)));
    else c.setGpr(RCX, 4, i64.extendU(state32(ASSIST_RESULT + 0x18)));
    c.setStatus(state32(ASSIST_RESULT + 0x1c));
  };
/** AESENC and kin; `operation` is one of aes.ts. */
export const aesOperation =
  (operation: number, immediate = false): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const src = source(c, 1, 16, true);
    c.do(v128.store(ZERO, ASSIST_B, v128.load(src)), v128.store(ZERO, ASSIST_A, v128.load(c.vector(0))));
    const argument = immediate ? i32.shl(imm(c), i32.const(8)) : ZERO;
    c.assist(ASSIST_AES, i32.or(argument, i32.const(operation)));
    c.do(v128.store(c.vector(0), 0, v128.load(ZERO, ASSIST_RESULT)));
  };
