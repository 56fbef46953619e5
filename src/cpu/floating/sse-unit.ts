/**
 * SSE's floating point with every rounding mode, exception and flag of MXCSR (@sdm volume 1, 11.5). Generated code calls it whenever
 * an operation could do anything but deliver a normal result; lanes are computed one by one.
 */
import { UD_VECTOR, XM_VECTOR } from '../../arch/exceptions.ts';
import { CR4_OSXMMEXCPT } from '../../arch/registers.ts';
import { CR4_AT, FAULT_HAS_ERROR, FAULT_VECTOR, STATUS_EXCEPTION, STATUS_OK, VECTOR_FLAGS_AT } from '../state.ts';
import * as A from './arithmetic.ts';
import { ASSIST_A, ASSIST_B, ASSIST_C, ASSIST_RESULT, type FpuMemory } from './fpu-memory.ts';
import {
  DOUBLE,
  FLAG_INVALID,
  FLAGS_BEFORE,
  FloatEnvironment,
  type FloatFormat,
  type FloatValue,
  finite,
  HALF,
  isNan,
  pack,
  ROUND_ZERO,
  round,
  SINGLE,
  unpack,
  zero,
} from './number.ts';

// Operations. Arithmetic ones come in four shapes: see `shaped`.
export const SSE_ADD = 0;
export const SSE_SUB = 1;
export const SSE_MUL = 2;
export const SSE_DIV = 3;
export const SSE_MIN = 4;
export const SSE_MAX = 5;
export const SSE_SQRT = 6;
export const SSE_COMPARE = 7; // the immediate is the predicate
export const SSE_ROUND = 8; // the immediate as ROUNDPS has it
export const SSE_RECIPROCAL = 9;
export const SSE_RECIPROCAL_ROOT = 10;
export const SSE_ADD_SUBTRACT = 11;
export const SSE_HORIZONTAL_ADD = 12;
export const SSE_HORIZONTAL_SUBTRACT = 13;
export const SSE_DOT = 14;
export const SSE_COMI = 15;
export const SSE_UCOMI = 16;
/** Conversions: from the shape's format, of as many lanes as the argument says (bits 2:0). */
export const SSE_TO_OTHER = 17; // single to double and back
export const SSE_TO_INT32 = 18; // argument bit 4: truncates
export const SSE_TO_INT64 = 19;
export const SSE_FROM_INT32 = 20; // into the shape's format
export const SSE_FROM_INT64 = 21;
/** FMA: A * B + C; the argument's bit 0 negates the product, bits 1 and 2 the addend of even and of odd lanes. */
export const SSE_FUSED = 22;
/** F16C: four lanes; the argument is VCVTPS2PH's immediate. */
export const SSE_FROM_HALF = 23;
export const SSE_TO_HALF = 24;

/** Operation `op` on doubles or singles, on all lanes or the lowest one. */
export const shaped = (op: number, bytes: 4 | 8, scalar: boolean): number =>
  op * 4 + (scalar ? 2 : 0) + (bytes === 8 ? 1 : 0);

const COMPARISON_FLAGS = { [A.GREATER]: 0, [A.LESS]: 1, [A.EQUAL]: 0x40, [A.UNORDERED]: 0x45 } as Record<
  number,
  number
>;

/** In VECTOR_FLAGS_AT: there is something to be finished. */
const WAITING = 1 << 30;

export class SseUnit {
  private readonly m: FpuMemory;
  private readonly env = new FloatEnvironment();
  private before = 0;
  private after = 0;
  /** Flags of the steps that an instruction of several has completed. */
  private committed = 0;

  constructor(memory: FpuMemory) {
    this.m = memory;
  }

  /** One exact lane: its flags join those of the instruction. */
  private lane(compute: () => FloatValue): FloatValue {
    const { env } = this;
    env.flags = 0;
    const value = compute();
    this.note();
    return value;
  }
  private note(): void {
    const { env } = this;
    this.before |= env.flags & FLAGS_BEFORE;
    if ((env.unmasked & FLAGS_BEFORE) === 0) this.after |= env.flags & ~FLAGS_BEFORE;
    env.flags = 0;
  }
  private read(format: FloatFormat, at: number, lane: number): FloatValue {
    const bits = format === SINGLE ? BigInt(this.m.i32[(at >> 2) + lane]! >>> 0) : this.m.u64[(at >> 3) + lane]!;
    const v = unpack(format, bits);
    return this.env.denormalsAreZero && v.kind === 'denormal' ? zero(v.sign) : v;
  }
  private write(format: FloatFormat, lane: number, v: FloatValue): void {
    this.writeBits(format, lane, pack(format, v));
  }
  private writeBits(format: FloatFormat, lane: number, bits: bigint): void {
    if (format === SINGLE) this.m.i32[(ASSIST_RESULT >> 2) + lane] = Number(BigInt.asIntN(32, bits));
    else this.m.u64[(ASSIST_RESULT >> 3) + lane] = bits;
  }

  /** Executes `code` (see `shaped`) with `argument`; a STATUS, the result in ASSIST_RESULT. */
  execute(code: number, argument: number): number {
    this.start(code, argument);
    return this.finish();
  }
  /** The same for half of an instruction: its flags wait for the other half's. */
  half(code: number, argument: number): number {
    this.start(code, argument);
    this.m.i32[VECTOR_FLAGS_AT >> 2]! |= WAITING | this.committed | (this.before << 8) | (this.after << 16);
    return STATUS_OK;
  }
  finishHalves(): number {
    const waiting = this.m.i32[VECTOR_FLAGS_AT >> 2]!;
    this.committed = waiting & 0x3f;
    this.before = (waiting >> 8) & 0x3f;
    this.after = (waiting >> 16) & 0x3f;
    this.env.masks = (this.m.mxcsr >> 7) & 0x3f;
    return this.finish();
  }
  private start(code: number, argument: number): void {
    const { m, env } = this;
    const { mxcsr } = m;
    env.masks = (mxcsr >> 7) & 0x3f;
    env.rounding = (mxcsr >> 13) & 3;
    env.flushToZero = (mxcsr & 0x8000) !== 0;
    env.denormalsAreZero = (mxcsr & 0x40) !== 0;
    this.before = this.after = this.committed = 0;
    const format = (code & 1) !== 0 ? DOUBLE : SINGLE;
    const lanes = (code & 2) !== 0 ? 1 : format === SINGLE ? 4 : 2;
    this.compute(code >> 2, format, lanes, argument);
  }
  private finish(): number {
    const { m, env } = this;
    const stops = this.before & ~env.masks;
    const flags = this.committed | this.before | (stops !== 0 ? 0 : this.after);
    m.mxcsr |= flags;
    if ((flags & ~env.masks) === 0) return STATUS_OK;
    m.i32[FAULT_VECTOR >> 2] = (m.i32[CR4_AT >> 2]! & CR4_OSXMMEXCPT) !== 0 ? XM_VECTOR : UD_VECTOR;
    m.i32[FAULT_HAS_ERROR >> 2] = 0;
    return STATUS_EXCEPTION;
  }

  private compute(op: number, format: FloatFormat, lanes: number, argument: number): void {
    const { env, m } = this;
    const pairs = (each: (a: FloatValue, b: FloatValue, n: number) => FloatValue): void => {
      for (let n = 0; n < lanes; n++) {
        const a = this.read(format, ASSIST_A, n);
        const b = this.read(format, ASSIST_B, n);
        this.write(
          format,
          n,
          this.lane(() => each(a, b, n)),
        );
      }
    };
    switch (op) {
      case SSE_ADD:
        pairs((a, b) => A.add(env, format, a, b));
        return;
      case SSE_SUB:
        pairs((a, b) => A.subtract(env, format, a, b));
        return;
      case SSE_MUL:
        pairs((a, b) => A.multiply(env, format, a, b));
        return;
      case SSE_DIV:
        pairs((a, b) => A.divide(env, format, a, b));
        return;
      case SSE_SQRT:
        pairs((_a, b) => A.sqrt(env, format, b));
        return;
      case SSE_MIN:
      case SSE_MAX:
        pairs((a, b) => {
          if (isNan(a) || isNan(b)) {
            env.raise(FLAG_INVALID);
            return b;
          }
          A.noteDenormal(env, a, b);
          return A.order(a, b) === (op === SSE_MIN ? A.LESS : A.GREATER) ? a : b;
        });
        return;
      case SSE_ADD_SUBTRACT:
        pairs((a, b, n) => (n % 2 === 0 ? A.subtract : A.add)(env, format, a, b));
        return;
      case SSE_ROUND:
        pairs((_a, b) =>
          A.roundToIntegral(env, b, (argument & 4) !== 0 ? env.rounding : argument & 3, (argument & 8) !== 0),
        );
        return;
      case SSE_COMPARE:
        for (let n = 0; n < lanes; n++) {
          const holds = this.holds(argument & 31, this.read(format, ASSIST_A, n), this.read(format, ASSIST_B, n));
          this.writeBits(format, n, holds ? (1n << 64n) - 1n : 0n);
        }
        return;
      case SSE_RECIPROCAL:
      case SSE_RECIPROCAL_ROOT:
        this.approximate(op === SSE_RECIPROCAL_ROOT, lanes);
        return;
      case SSE_HORIZONTAL_ADD:
      case SSE_HORIZONTAL_SUBTRACT:
        for (let n = 0; n < lanes; n++) {
          const from = n < lanes / 2 ? ASSIST_A : ASSIST_B;
          const at = (n % (lanes / 2)) * 2;
          const [a, b] = [this.read(format, from, at), this.read(format, from, at + 1)];
          const combine = op === SSE_HORIZONTAL_ADD ? A.add : A.subtract;
          this.write(
            format,
            n,
            this.lane(() => combine(env, format, a, b)),
          );
        }
        return;
      case SSE_FUSED:
        pairs((a, b, n) => {
          const c = this.read(format, ASSIST_C, n);
          const negated = { product: (argument & 1) !== 0, addend: (argument & (n % 2 === 0 ? 2 : 4)) !== 0 };
          return A.fuse(env, format, a, b, c, negated);
        });
        return;
      case SSE_FROM_HALF:
      case SSE_TO_HALF:
        this.half16(op === SSE_TO_HALF, argument);
        return;
      case SSE_DOT:
        this.dot(format, lanes, argument);
        return;
      case SSE_COMI:
      case SSE_UCOMI: {
        const order = A.compare(env, this.read(format, ASSIST_A, 0), this.read(format, ASSIST_B, 0), op === SSE_COMI);
        this.note();
        m.i32[ASSIST_RESULT >> 2] = COMPARISON_FLAGS[order]!;
        return;
      }
      default:
        this.convert(op, format, argument);
    }
  }

  /**
   * CMPPS's predicates: EQ LT LE UNORD and their negations; with bit 3 unordered counts the other way (EQ_UQ, NGE, NGT, FALSE, ...);
   * with bit 4 the other kind of NaN signals.
   */
  private holds(predicate: number, a: FloatValue, b: FloatValue): boolean {
    const kind = predicate & 3;
    const signals = (kind === 1 || kind === 2) !== predicate >= 16;
    const order = A.compare(this.env, a, b, signals);
    this.note();
    const negated = (predicate & 4) !== 0;
    if (order === A.UNORDERED && predicate & 8) return kind === 3 ? negated : !negated;
    if ((predicate & 8) === 0) {
      const plain =
        kind === 0
          ? order === A.EQUAL
          : kind === 1
            ? order === A.LESS
            : kind === 2
              ? order === A.LESS || order === A.EQUAL
              : order === A.UNORDERED;
      return plain !== negated;
    }
    // EQ_UQ NGE NGT FALSE, NEQ_OQ GE GT TRUE.
    const plain =
      kind === 0 ? order === A.EQUAL : kind === 3 ? false : order === A.LESS || (kind === 2 && order === A.EQUAL);
    return plain !== negated;
  }

  /** RCPPS and RSQRTPS: processors answer with 12 bits or so; here the nearest single does. No flags. */
  private approximate(root: boolean, lanes: number): void {
    for (let n = 0; n < lanes; n++) {
      const bits = BigInt(this.m.i32[(ASSIST_B >> 2) + n]! >>> 0);
      const raw = unpack(SINGLE, bits);
      const v = raw.kind === 'denormal' ? zero(raw.sign) : raw;
      const env = new FloatEnvironment();
      env.flushToZero = true;
      const one = finite(0, 1n, 0);
      // sqrt rounded to double first: the error stays far below that of the instruction.
      this.write(SINGLE, n, A.divide(env, SINGLE, one, root ? A.sqrt(env, DOUBLE, v) : v));
    }
  }

  /** DPPS, DPPD: products of the lanes chosen by bits 7:4, added in pairs, to the lanes chosen by bits 3:0. */
  private dot(format: FloatFormat, lanes: number, mask: number): void {
    const { env } = this;
    // An intermediate result may be a denormal operand of the next step; DAZ does not reach it.
    const again = (v: FloatValue): FloatValue => (env.denormalsAreZero ? v : unpack(format, pack(format, v)));
    const products = Array.from({ length: lanes }, (_, n) => {
      if (((mask >> (4 + n)) & 1) === 0) return zero(0);
      const [a, b] = [this.read(format, ASSIST_A, n), this.read(format, ASSIST_B, n)];
      return again(this.lane(() => A.multiply(env, format, a, b)));
    });
    const plus = (a: FloatValue, b: FloatValue): FloatValue => again(this.lane(() => A.add(env, format, a, b)));
    // An unmasked exception of one step is reported before the next is begun.
    const stopped = (): boolean => {
      if (((this.before | this.after) & ~env.masks) !== 0) return true;
      this.committed |= this.before | this.after;
      this.before = this.after = 0;
      return false;
    };
    if (stopped()) return;
    let total = plus(products[0]!, products[1]!);
    if (lanes === 4) {
      const high = plus(products[2]!, products[3]!);
      if (stopped()) return;
      total = plus(total, high);
    }
    for (let n = 0; n < lanes; n++) this.write(format, n, ((mask >> n) & 1) !== 0 ? total : zero(0));
  }

  /** VCVTPH2PS and VCVTPS2PH: halves may be denormal without notice, and are never flushed. */
  private half16(narrows: boolean, argument: number): void {
    const { env, m } = this;
    const { rounding } = env;
    env.flushToZero = false;
    if (narrows && (argument & 4) === 0) env.rounding = argument & 3;
    const words = new Uint16Array(m.u8.buffer);
    const values = Array.from({ length: 4 }, (_, n) => {
      const from = narrows ? this.read(SINGLE, ASSIST_B, n) : unpack(HALF, BigInt(words[(ASSIST_B >> 1) + n]!));
      const known: FloatValue = !narrows && from.kind === 'denormal' ? { ...from, kind: 'normal' } : from;
      return this.lane(() => A.convert(env, narrows ? HALF : SINGLE, known));
    });
    m.u64[(ASSIST_RESULT >> 3) + 1] = 0n;
    values.forEach((value, n) => {
      if (narrows) words[(ASSIST_RESULT >> 1) + n] = Number(pack(HALF, value));
      else this.write(SINGLE, n, value);
    });
    env.rounding = rounding;
  }

  private convert(op: number, format: FloatFormat, argument: number): void {
    const { env, m } = this;
    const lanes = argument & 7;
    const results: (() => void)[] = [];
    for (let n = 0; n < lanes; n++) {
      if (op === SSE_TO_OTHER) {
        const other = format === SINGLE ? DOUBLE : SINGLE;
        const value = this.lane(() => A.convert(env, other, this.read(format, ASSIST_B, n)));
        results.push(() => this.write(other, n, value));
      } else if (op === SSE_TO_INT32 || op === SSE_TO_INT64) {
        const bits = op === SSE_TO_INT32 ? 32 : 64;
        const rounding = (argument & 16) !== 0 ? ROUND_ZERO : env.rounding;
        const value = A.toInteger(env, this.read(format, ASSIST_B, n), bits, rounding);
        this.note();
        results.push(() => this.writeBits(bits === 32 ? SINGLE : DOUBLE, n, BigInt.asUintN(64, value)));
      } else {
        const bits =
          op === SSE_FROM_INT32 ? BigInt(m.i32[(ASSIST_B >> 2) + n]!) : BigInt.asIntN(64, m.u64[(ASSIST_B >> 3) + n]!);
        const sign = bits < 0n ? 1 : 0;
        const value = this.lane(() => round(env, format, sign, sign === 1 ? -bits : bits, 0));
        results.push(() => this.write(format, n, value.kind === 'zero' ? zero(0) : value));
      }
    }
    m.u64[ASSIST_RESULT >> 3] = 0n;
    m.u64[(ASSIST_RESULT >> 3) + 1] = 0n;
    for (const store of results) store();
  }
}
