/** The MMX and SSE instructions that only move and combine bits and integers; there is no floating-point arithmetic here. */
import { MF_VECTOR, NM_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { CR0_EM, CR0_NE, CR0_TS, CR4_OSFXSR } from '../../arch/registers.ts';
import { ASSIST_MMX } from '../floating/assist.ts';
import {
  ACCESS_READ,
  ACCESS_WRITE,
  CR0_AT,
  CR4_AT,
  FPU_SW_AT,
  FPU_TAG_AT,
  QUIRK_MASKMOV_REACHES_ALL,
  QUIRKS_AT,
} from '../state.ts';
import { type I32, i32, i64, type V128, v128 } from '../wasm/code.ts';
import type { MachineContext, MachineEmitter } from './machine-context.ts';
import { setState32, state32 } from './state-access.ts';

/** MMX and x87 registers in use, abridged as FXSAVE has it: all after an MMX instruction, none after EMMS. */
const ALL_TAGS = 0xff;
const TOP_OR_PENDING = 0x3880;

/** #UD and #NM by CR0.EM, CR4.OSFXSR and CR0.TS, in that order. */
export function requireVector(c: MachineContext, bytes: number): void {
  const { f } = c;
  if (c.isVex) return;
  const emulated = i32.and(state32(CR0_AT), i32.const(CR0_EM));
  const disabled = i32.eqz(i32.and(state32(CR4_AT), i32.const(CR4_OSFXSR)));
  f.if(bytes === 8 ? emulated : i32.or(emulated, disabled), () => c.fault(UD_VECTOR));
  f.if(i32.and(state32(CR0_AT), i32.const(CR0_TS)), () => c.fault(NM_VECTOR));
  if (bytes !== 8) return;
  reachMemory(c);
  enterMmx(c);
}
/**
 * The memory source of an MMX instruction faults before the x87 state changes, and after what was pending there. A store that faults has
 * changed the top, as on processors.
 */
function reachMemory(c: MachineContext): void {
  if (c.isMemory(0) || !c.isMemory(1)) return;
  requireNothingPending(c);
  c.pointer(c.sizeOf(1), ACCESS_READ);
}
/** MMX registers are the x87 ones by number: a pending x87 exception comes first, and the top becomes 0. */
export function enterMmx(c: MachineContext): void {
  c.f.if(i32.and(state32(FPU_SW_AT), i32.const(TOP_OR_PENDING)), () => {
    requireNothingPending(c);
    c.assist(ASSIST_MMX, i32.const(0));
  });
}
/** After an MMX instruction all registers are in use. */
export function markMmx(c: MachineContext, bytes: number): void {
  if (bytes === 8) c.do(setState32(FPU_TAG_AT, i32.const(ALL_TAGS)));
}
/** #MF for an unmasked x87 exception that no instruction has reported yet. Without CR0.NE it is left to a FERR# that is not wired. */
export function requireNothingPending(c: MachineContext): void {
  const { f } = c;
  f.if(i32.and(state32(FPU_SW_AT), i32.const(0x80)), () => {
    f.if(i32.and(state32(CR0_AT), i32.const(CR0_NE)), () => c.fault(MF_VECTOR));
  });
}

export const load = (bytes: number, at: I32): V128 =>
  bytes === 16 ? v128.load(at) : bytes === 8 ? v128.load64Zero(at) : v128.load32Zero(at);

/** Address of a source operand: `bytes` of memory, or its register. */
export function source(c: MachineContext, index: number, bytes: number, aligned: boolean): I32 {
  if (!c.isMemory(index)) return c.vector(index);
  if (aligned && bytes === 16) c.requireAligned(16);
  return c.pointer(bytes, ACCESS_READ).get;
}

/** Writes a vector register; an MMX one makes the x87 registers valid and looks like a NaN to them. */
export function writeVector(c: MachineContext, index: number, value: V128): void {
  if (c.vectorBytes(index) === 16) {
    c.do(v128.store(c.vector(index), 0, value));
    return;
  }
  c.do(v128.store64(c.vector(index), 0, value), i32.store16(c.vector(index), 8, i32.const(0xffff)));
  c.do(setState32(FPU_TAG_AT, i32.const(ALL_TAGS)));
}

/** dst <- op(dst, src). */
export const binary =
  (op: (dst: V128, src: V128) => V128): MachineEmitter =>
  (c) => {
    const bytes = c.vectorBytes(0);
    requireVector(c, bytes);
    const src = source(c, 1, bytes, true);
    writeVector(c, 0, op(load(bytes, c.vector(0)), load(bytes, src)));
  };
export const simd = (opcode: number): MachineEmitter => binary(v128.binary(opcode));

export const pand = simd(78);
/** The first operand is the one inverted. */
export const pandn = binary((d, s) => v128.binary(79)(s, d));
export const por = simd(80);
export const pxor = simd(81);
export const pcmpeq = [simd(35), simd(45), simd(55)] as const;
export const pcmpgt = [simd(39), simd(49), simd(59)] as const;
export const padd = [simd(110), simd(142), simd(174), simd(206)] as const;
export const psub = [simd(113), simd(145), simd(177), simd(209)] as const;
export const paddSigned = [simd(111), simd(143)] as const;
export const paddUnsigned = [simd(112), simd(144)] as const;
export const psubSigned = [simd(114), simd(146)] as const;
export const psubUnsigned = [simd(115), simd(147)] as const;
export const pminub = simd(119);
export const pmaxub = simd(121);
export const pminsw = simd(150);
export const pmaxsw = simd(152);
export const pavg = [simd(123), simd(155)] as const;
export const pmullw = simd(149);
export const pmaddwd = simd(186);
/** i64x2.extmul_low_i32x4_u over the even lanes. */
export const pmuludq = binary((d, s) => {
  const even = (x: V128): V128 => v128.shuffle(x, x, [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
  return v128.binary(222)(even(d), even(s));
});
/** Upper halves of the 16-bit products, through the 32-bit ones. */
const multiplyHigh = (low: number, high: number): MachineEmitter =>
  binary((d, s) =>
    v128.shuffle(
      v128.binary(low)(d, s),
      v128.binary(high)(d, s),
      [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31],
    ),
  );
export const pmulhw = multiplyHigh(188, 189);
export const pmulhuw = multiplyHigh(190, 191);

/** The lanes of PUNPCK: `size` bytes from each operand in turn, from the low or the high half of `width` bytes. */
function interleave(size: number, width: number, high: boolean): number[] {
  const lanes: number[] = [];
  for (let at = high ? width / 2 : 0; lanes.length < width; at += size) {
    for (const from of [0, 16]) for (let i = 0; i < size; i++) lanes.push(from + at + i);
  }
  while (lanes.length < 16) lanes.push(0);
  return lanes;
}
/** PUNPCKLxx reads only the low half of a memory source in MMX; the whole of it in SSE. */
const unpack =
  (size: number, high: boolean): MachineEmitter =>
  (c) => {
    const bytes = c.vectorBytes(0);
    requireVector(c, bytes);
    const src = source(c, 1, bytes === 8 && !high ? 4 : bytes, true);
    const value = bytes === 8 && !high ? v128.load32Zero(src) : load(bytes, src);
    writeVector(c, 0, v128.shuffle(load(bytes, c.vector(0)), value, interleave(size, bytes, high)));
  };
export const punpckl = [unpack(1, false), unpack(2, false), unpack(4, false), unpack(8, false)] as const;
export const punpckh = [unpack(1, true), unpack(2, true), unpack(4, true), unpack(8, true)] as const;

/** PACKxx: for MMX both operands are first brought together in one vector. */
const pack =
  (opcode: number): MachineEmitter =>
  (c) => {
    const join = (d: V128, s: V128): V128 =>
      c.vectorBytes(0) === 16
        ? v128.binary(opcode)(d, s)
        : v128.binary(opcode)(
            v128.shuffle(d, s, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]),
            v128.zero(),
          );
    binary(join)(c);
  };
export const packsswb = pack(101);
export const packuswb = pack(102);
export const packssdw = pack(133);

/** Shifts by a count in the low 64 bits of the source, or in the immediate; a count beyond the lane clears it, or fills it with sign. */
const shiftLanes =
  (opcode: number, lane: number, arithmetic: boolean, immediate: boolean): MachineEmitter =>
  (c) => {
    const { f } = c;
    const bytes = c.vectorBytes(0);
    requireVector(c, bytes);
    const count = f.i64(immediate ? i64.and(c.immediate(), i64.const(0xff)) : i64.load(source(c, 1, bytes, true)));
    const shifted = (by: I32): V128 => v128.shift(opcode)(load(bytes, c.vector(0)), by);
    f.if(
      i64.ltU(count.get, i64.const(lane)),
      () => writeVector(c, 0, shifted(i32.wrap(count.get))),
      () => writeVector(c, 0, arithmetic ? shifted(i32.const(lane - 1)) : v128.zero()),
    );
  };
/** By lane of 16, 32, 64 bits. */
export const psll = (immediate: boolean) => [
  shiftLanes(139, 16, false, immediate),
  shiftLanes(171, 32, false, immediate),
  shiftLanes(203, 64, false, immediate),
]; // prettier-ignore
export const psrl = (immediate: boolean) => [
  shiftLanes(141, 16, false, immediate),
  shiftLanes(173, 32, false, immediate),
  shiftLanes(205, 64, false, immediate),
]; // prettier-ignore
export const psra = (immediate: boolean) => [
  shiftLanes(140, 16, true, immediate),
  shiftLanes(172, 32, true, immediate),
];

/** PSLLDQ and PSRLDQ: the whole register by bytes, as one 128-bit number. */
const shiftBytes =
  (left: boolean): MachineEmitter =>
  (c) => {
    const { f } = c;
    requireVector(c, 16);
    const bits = f.i64(i64.mul(i64.and(c.immediate(), i64.const(0xff)), i64.const(8)));
    const at = c.vector(0);
    const low = f.i64(i64.load(at));
    const high = f.i64(i64.load(at, 8));
    const [far, near] = left ? [high, low] : [low, high];
    const by = left ? i64.shl : i64.shrU;
    const back = left ? i64.shrU : i64.shl;
    f.if(i64.gtU(bits.get, i64.const(127)), () => f.do(low.set(i64.const(0)), high.set(i64.const(0))));
    f.if(i64.gtU(bits.get, i64.const(63)), () => {
      f.do(far.set(by(near.get, bits.get)), near.set(i64.const(0)));
      f.do(bits.set(i64.const(0)));
    });
    f.if(i64.ne(bits.get, i64.const(0)), () => {
      f.do(far.set(i64.or(by(far.get, bits.get), back(near.get, i64.sub(i64.const(64), bits.get)))));
      f.do(near.set(by(near.get, bits.get)));
    });
    c.do(i64.store(at, 0, low.get), i64.store(at, 8, high.get));
  };
export const pslldq = shiftBytes(true);
export const psrldq = shiftBytes(false);

/**
 * Shuffles by an immediate of four two-bit selectors: lane `i` of `out` bytes comes from lane `selector` of the source, at `base`;
 * `second` says which result lanes (SHUFPS) are taken from the second operand.
 */
const shuffle =
  (lane: 2 | 4, first: number, keep: 'none' | 'low' | 'high', two: boolean): MachineEmitter =>
  (c) => {
    const { f } = c;
    const bytes = c.vectorBytes(0);
    requireVector(c, bytes);
    const src = f.i32(source(c, 1, bytes, true));
    const select = f.i32(i32.wrap(c.immediate()));
    const loadLane = lane === 4 ? i64.load32U : i64.load16U;
    const lanes = Array.from({ length: 4 }, (_, i) => {
      const number = i32.and(i32.shrU(select.get, i32.const(i * 2)), i32.const(3));
      const from = two && i < 2 ? c.vector(0) : src.get;
      return f.i64(loadLane(i32.add(from, i32.mul(number, i32.const(lane))), first));
    });
    const other = keep === 'none' ? undefined : f.i64(i64.load(src.get, keep === 'low' ? 0 : 8));
    const to = c.vector(0);
    const storeLane = lane === 4 ? i64.store32 : i64.store16;
    lanes.forEach((value, i) => {
      c.do(storeLane(to, first + i * lane, value.get));
    });
    if (other !== undefined) c.do(i64.store(to, keep === 'low' ? 0 : 8, other.get));
    if (bytes === 8) c.do(setState32(FPU_TAG_AT, i32.const(ALL_TAGS)), i32.store16(to, 8, i32.const(0xffff)));
  };
export const pshufd = shuffle(4, 0, 'none', false);
export const pshuflw = shuffle(2, 0, 'high', false);
export const pshufhw = shuffle(2, 8, 'low', false);
export const pshufw = shuffle(2, 0, 'none', false);
export const shufps = shuffle(4, 0, 'none', true);
/** SHUFPD: two one-bit selectors. */
export const shufpd: MachineEmitter = (c) => {
  const { f } = c;
  requireVector(c, 16);
  const src = source(c, 1, 16, true);
  const selector = (bit: number): I32 => i32.and(i32.shrU(i32.wrap(c.immediate()), i32.const(bit)), i32.const(1));
  const low = f.i64(i64.load(i32.add(c.vector(0), i32.shl(selector(0), i32.const(3)))));
  const high = f.i64(i64.load(i32.add(src, i32.shl(selector(1), i32.const(3)))));
  c.do(i64.store(c.vector(0), 0, low.get), i64.store(c.vector(0), 8, high.get));
};

export const pmovmskb: MachineEmitter = (c) => {
  const bytes = c.vectorBytes(1);
  requireVector(c, bytes);
  c.write(0, i64.extendU(v128.byteMask(load(bytes, c.vector(1)))));
  markMmx(c, bytes);
};
/** MOVMSKPS and MOVMSKPD: the sign bits of lanes of `lane` bytes. */
export const movmsk =
  (lane: 4 | 8): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const signs = Array.from({ length: 16 / lane }, (_, i) => {
      const top = i32.shrU(i32.load8U(c.vector(1), i * lane + lane - 1), i32.const(7));
      return i32.shl(top, i32.const(i));
    });
    c.write(0, i64.extendU(signs.reduce((a, b) => i32.or(a, b))));
  };
export const psadbw: MachineEmitter = (c) => {
  const { f } = c;
  const bytes = c.vectorBytes(0);
  requireVector(c, bytes);
  const src = source(c, 1, bytes, true);
  const sums = Array.from({ length: bytes / 8 }, (_, half) => {
    const terms = Array.from({ length: 8 }, (_x, i) => {
      const a = i32.load8U(c.vector(0), half * 8 + i);
      const b = i32.load8U(src, half * 8 + i);
      return i32.select(i32.gtU(a, b), i32.sub(a, b), i32.sub(b, a));
    });
    return f.i64(i64.extendU(terms.reduce((a, b) => i32.add(a, b))));
  });
  sums.forEach((sum, half) => {
    c.do(i64.store(c.vector(0), half * 8, sum.get));
  });
  if (bytes === 8) writeVector(c, 0, v128.load64Zero(c.vector(0)));
};
export const pinsrw: MachineEmitter = (c) => {
  const bytes = c.vectorBytes(0);
  requireVector(c, bytes);
  const value = c.isMemory(1) ? c.f.i64(i64.load16U(c.pointer(2, ACCESS_READ).get)) : c.readUnsigned(1);
  const lane = i32.and(i32.wrap(c.immediate()), i32.const(bytes / 2 - 1));
  c.do(i64.store16(i32.add(c.vector(0), i32.shl(lane, i32.const(1))), 0, value.get));
  if (bytes === 8) writeVector(c, 0, v128.load64Zero(c.vector(0)));
};
export const pextrw: MachineEmitter = (c) => {
  const bytes = c.vectorBytes(1);
  requireVector(c, bytes);
  const lane = i32.and(i32.wrap(c.immediate()), i32.const(bytes / 2 - 1));
  c.write(0, i64.load16U(i32.add(c.vector(1), i32.shl(lane, i32.const(1)))));
  markMmx(c, bytes);
};

// Moves.

/** Whole registers; `aligned` refuses memory that is not. */
export const moveVector =
  (aligned: boolean): MachineEmitter =>
  (c) => {
    const bytes = c.vectorBytes(c.isMemory(0) ? 1 : 0);
    requireVector(c, bytes);
    if (c.isMemory(0)) {
      if (aligned && bytes === 16) c.requireAligned(16, ACCESS_WRITE);
      const to = c.pointer(bytes, ACCESS_WRITE);
      const value = load(bytes, c.vector(1));
      c.do(bytes === 16 ? v128.store(to.get, 0, value) : v128.store64(to.get, 0, value));
      c.finish();
      markMmx(c, bytes);
    } else {
      writeVector(c, 0, load(bytes, source(c, 1, bytes, aligned)));
    }
  };

/** MOVSS, MOVSD: a load clears the rest of the register, a move between registers keeps it. */
export const moveScalar =
  (bytes: 4 | 8): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    const loadPart = bytes === 4 ? i64.load32U : i64.load;
    const storePart = bytes === 4 ? i64.store32 : i64.store;
    if (c.isMemory(0)) {
      c.do(storePart(c.pointer(bytes, ACCESS_WRITE).get, 0, loadPart(c.vector(1))));
      c.finish();
    } else if (c.isMemory(1)) {
      writeVector(c, 0, load(bytes, c.pointer(bytes, ACCESS_READ).get));
    } else {
      c.do(storePart(c.vector(0), 0, loadPart(c.vector(1))));
    }
  };

/** MOVLPS, MOVHPS and their register forms: 8 bytes at `to` of the first operand <- 8 bytes at `from` of the second. */
export const moveHalf =
  (to: 0 | 8, from: 0 | 8): MachineEmitter =>
  (c) => {
    requireVector(c, 16);
    if (c.isMemory(0)) {
      c.do(i64.store(c.pointer(8, ACCESS_WRITE).get, 0, i64.load(c.vector(1), from)));
      c.finish();
      return;
    }
    const value = c.isMemory(1) ? i64.load(c.pointer(8, ACCESS_READ).get) : i64.load(c.vector(1), from);
    c.do(i64.store(c.vector(0), to, value));
  };

/** MOVD, MOVQ from a general register or memory of the operand size. */
export const moveFromGeneral: MachineEmitter = (c) => {
  requireVector(c, c.vectorBytes(0));
  const value = c.readUnsigned(1);
  const at = c.vector(0);
  c.do(i64.store(at, 0, value.get));
  if (c.vectorBytes(0) === 16) c.do(i64.store(at, 8, i64.const(0)));
  else writeVector(c, 0, v128.load64Zero(at));
};
/** MOVD, MOVQ to a general register or memory. */
export const moveToGeneral: MachineEmitter = (c) => {
  requireVector(c, c.vectorBytes(1));
  c.write(0, i64.load(c.vector(1)));
  markMmx(c, c.vectorBytes(1));
};
/** MOVQ between XMM registers, or of 8 bytes of memory: the upper half is cleared. */
export const moveQuad: MachineEmitter = (c) => {
  requireVector(c, 16);
  if (c.isMemory(0)) {
    c.do(i64.store(c.pointer(8, ACCESS_WRITE).get, 0, i64.load(c.vector(1))));
    c.finish();
  } else {
    writeVector(c, 0, v128.load64Zero(source(c, 1, 8, false)));
  }
};
/** MOVQ2DQ and MOVDQ2Q. */
export const moveAcross: MachineEmitter = (c) => {
  requireVector(c, 16);
  enterMmx(c);
  writeVector(c, 0, v128.load64Zero(c.vector(1)));
  c.do(setState32(FPU_TAG_AT, i32.const(ALL_TAGS)));
};
/**
 * MASKMOVQ, MASKMOVDQU: bytes of the first operand whose mask byte has its top bit set go to memory at DS:rDI. All of them are reached
 * for writing before the first is written; with an empty mask memory is not touched.
 */
export const maskMove: MachineEmitter = (c) => {
  const bytes = c.vectorBytes(0);
  requireVector(c, bytes);
  const { f } = c;
  const n = f.i64();
  const index = i32.wrap(n.get);
  const selected = i32.geU(i32.load8U(i32.add(c.vector(1), index)), i32.const(0x80));
  const forSelected = (store: boolean): void => {
    f.do(n.set(i64.const(0)));
    f.loop((again) => {
      f.if(selected, () => {
        const to = c.pointer(1, ACCESS_WRITE, n.get);
        if (store) f.do(i32.store8(to.get, 0, i32.load8U(i32.add(c.vector(0), index))));
      });
      f.brIf(again, i64.ltU(n.tee(i64.add(n.get, i64.const(1))), i64.const(bytes)));
    });
  };
  f.if(i32.and(state32(QUIRKS_AT), i32.const(QUIRK_MASKMOV_REACHES_ALL)), () => {
    c.pointer(1, ACCESS_WRITE, i64.const(0));
    c.pointer(1, ACCESS_WRITE, i64.const(bytes - 1));
  });
  forSelected(false);
  forSelected(true);
};
