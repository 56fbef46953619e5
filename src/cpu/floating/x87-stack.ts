/** The x87 register stack, its exceptions, and the shapes that instructions have (@sdm volume 1, 8). */
import { FPU_REGS } from '../state.ts';
import * as A from './arithmetic.ts';
import { ASSIST_RESULT, type FpuMemory } from './fpu-memory.ts';
import {
  type EXTENDED,
  EXTENDED_BY_CONTROL,
  FLAG_INEXACT,
  FLAG_INVALID,
  FLAGS_BEFORE,
  FloatEnvironment,
  type FloatValue,
  INDEFINITE,
  packExtended,
  unpackExtended,
} from './number.ts';

export const C0 = 0x100;
export const C1 = 0x200;
export const C2 = 0x400;
export const C3 = 0x4000;
export const CONDITIONS = C0 | C1 | C2 | C3;
const STACK_FAULT = 0x40;
const SUMMARY = 0x8080;

type Binary = (env: FloatEnvironment, format: typeof EXTENDED, a: FloatValue, b: FloatValue) => FloatValue;

/** CF, PF and ZF of FCOMI by the order of the operands. */
const FLAGS_OF_ORDER = { [A.GREATER]: 0, [A.LESS]: 1, [A.EQUAL]: 0x40, [A.UNORDERED]: 0x45 } as Record<number, number>;
const CODES_OF_ORDER = { [A.GREATER]: 0, [A.LESS]: C0, [A.EQUAL]: C3, [A.UNORDERED]: C0 | C2 | C3 } as Record<
  number,
  number
>;

export class X87Stack {
  protected readonly m: FpuMemory;
  protected readonly env = new FloatEnvironment();

  constructor(memory: FpuMemory) {
    this.m = memory;
    this.env.x87 = true;
  }

  // The stack.

  protected bit(i: number): number {
    return 1 << ((this.m.top + i) & 7);
  }
  protected isEmpty(i: number): boolean {
    return (this.m.tags & this.bit(i)) === 0;
  }
  protected st(i: number): FloatValue {
    const at = FPU_REGS + i * 16;
    return unpackExtended(this.m.u64[at >> 3]!, this.m.i32[(at + 8) >> 2]! & 0xffff);
  }
  protected put(i: number, v: FloatValue): void {
    const { significand, signExponent } = packExtended(v);
    this.putBits(i, significand, signExponent);
  }
  protected putBits(i: number, significand: bigint, signExponent: number): void {
    const at = FPU_REGS + i * 16;
    this.m.u64[at >> 3] = significand;
    this.m.u64[(at >> 3) + 1] = BigInt(signExponent);
    this.m.tags |= this.bit(i);
  }
  protected pop(): void {
    this.m.tags &= ~this.bit(0);
    this.m.rotate(1);
    this.m.top = this.m.top + 1;
  }
  protected pushBits(significand: bigint, signExponent: number): void {
    this.m.rotate(7);
    this.m.top = this.m.top - 1;
    this.putBits(0, significand, signExponent);
  }
  protected push(v: FloatValue): void {
    const { significand, signExponent } = packExtended(v);
    this.pushBits(significand, signExponent);
  }

  // Exceptions.

  protected begin(): void {
    const { env, m } = this;
    env.masks = m.control & 0x3f;
    env.rounding = (m.control >> 10) & 3;
    env.flags = 0;
    env.roundedUp = false;
    m.status &= ~C1;
  }
  protected get format(): typeof EXTENDED {
    return EXTENDED_BY_CONTROL[(this.m.control >> 8) & 3]!;
  }
  /** Adds the exceptions met to the status word. False when one of `unmasked` kinds keeps the result from being stored. */
  protected settle(preventing: number): boolean {
    const { env, m } = this;
    const before = env.flags & FLAGS_BEFORE & ~env.masks;
    // What is computed after an unmasked exception is not there to be flagged.
    const flags = before !== 0 ? env.flags & FLAGS_BEFORE : env.flags;
    m.status |= flags | (env.roundedUp && (flags & FLAG_INEXACT) !== 0 ? C1 : 0);
    this.summarize();
    return (flags & ~env.masks & preventing) === 0;
  }
  /** ES and B: an exception is flagged and not masked. */
  protected summarize(): void {
    const { m } = this;
    const pending = (m.status & ~m.control & 0x3f) !== 0;
    m.status = pending ? m.status | SUMMARY : m.status & ~SUMMARY;
  }
  /** A stack fault; C1 tells overflow from underflow. True when it is masked. */
  protected stackFault(overflow: boolean): boolean {
    this.m.status &= ~C1;
    this.m.status |= FLAG_INVALID | STACK_FAULT | (overflow ? C1 : 0);
    this.summarize();
    return (this.m.control & FLAG_INVALID) !== 0;
  }

  // Shapes of instructions.

  /** Pushes what `make` answers; a full stack gets the indefinite. */
  protected load(make: () => FloatValue): void {
    this.begin();
    if (!this.isEmpty(7)) {
      if (this.stackFault(true)) this.push(INDEFINITE);
      return;
    }
    const value = make();
    // A denormal operand is loaded even when that is not masked.
    if (this.settle(FLAG_INVALID)) this.push(value);
  }
  /** ST(`to`) <- op(ST(0), operand), or with the operands exchanged; then pops. */
  protected combine(
    op: Binary,
    other: FloatValue | undefined,
    i: number,
    to: number,
    reversed: boolean,
    pops: boolean,
  ): void {
    this.begin();
    let result = INDEFINITE;
    if (this.isEmpty(0) || (other === undefined && this.isEmpty(i))) {
      if (!this.stackFault(false)) return;
    } else {
      const a = this.st(0);
      const b = other ?? this.st(i);
      result = reversed ? op(this.env, this.format, b, a) : op(this.env, this.format, a, b);
      if (!this.settle(FLAGS_BEFORE)) return;
    }
    this.put(to, result);
    if (pops) this.pop();
  }
  /** D8, DC, DE and their memory forms by ModRM.reg; `other` undefined for ST(i). */
  protected arithmetic(digit: number, other: FloatValue | undefined, i: number, to: number, pops: boolean): void {
    const op: Binary = digit === 0 ? A.add : digit === 1 ? A.multiply : digit < 6 ? A.subtract : A.divide;
    this.combine(op, other, i, to, digit === 5 || digit === 7, pops);
  }
  protected compareWith(other: FloatValue | undefined, i: number, signals: boolean, pops: number): void {
    this.begin();
    const { m } = this;
    m.status &= ~CONDITIONS;
    let order = A.UNORDERED;
    if (this.isEmpty(0) || (other === undefined && this.isEmpty(i))) {
      const masked = this.stackFault(false);
      m.status |= CODES_OF_ORDER[order]!;
      if (!masked) return;
    } else {
      order = A.compare(this.env, this.st(0), other ?? this.st(i), signals);
      const done = this.settle(FLAGS_BEFORE);
      m.status |= CODES_OF_ORDER[order]!;
      if (!done) return;
    }
    for (let n = 0; n < pops; n++) this.pop();
  }
  /** FCOMI and kin: the flags word is the result, even of an unmasked exception. C1 stays but for a stack fault. */
  protected compareFlags(i: number, signals: boolean, pops: boolean): void {
    const { m } = this;
    const c1 = m.status & C1;
    this.begin();
    let order = A.UNORDERED;
    let done: boolean;
    if (this.isEmpty(0) || this.isEmpty(i)) {
      done = this.stackFault(false);
    } else {
      order = A.compare(this.env, this.st(0), this.st(i), signals);
      done = this.settle(FLAGS_BEFORE);
      m.status |= c1;
    }
    m.i32[ASSIST_RESULT >> 2] = FLAGS_OF_ORDER[order]!;
    if (done && pops) this.pop();
  }
  /** ST(0) <- op(ST(0)). */
  protected unary(op: (v: FloatValue) => FloatValue): void {
    this.begin();
    let result = INDEFINITE;
    if (this.isEmpty(0)) {
      if (!this.stackFault(false)) return;
    } else {
      result = op(this.st(0));
      if (!this.settle(FLAGS_BEFORE)) return;
    }
    this.put(0, result);
  }

  // State images.

  /** The tag word with two bits a register, as FNSTENV stores it. */
  fullTags(): number {
    let word = 0;
    for (let i = 0; i < 8; i++) {
      const { kind } = this.st(i);
      const tag = this.isEmpty(i) ? 3 : kind === 'zero' ? 1 : kind === 'normal' ? 0 : 2;
      word |= tag << (((this.m.top + i) & 7) * 2);
    }
    return word;
  }
  loadEnvironment(control: number, status: number, fullTags: number): void {
    const { m } = this;
    const { top } = m;
    m.control = (control & 0x1f3f) | 0x40;
    m.status = status & 0xffff;
    // Registers keep their places; FPU_REGS is in order from ST(0).
    m.rotate((m.top - top) & 7);
    let tags = 0;
    for (let i = 0; i < 8; i++) if (((fullTags >> (i * 2)) & 3) !== 3) tags |= 1 << i;
    m.tags = tags;
    this.summarize();
  }
  maskAll(): void {
    this.m.control |= 0x3f;
    this.summarize();
  }
  initialize(): void {
    const { m } = this;
    m.rotate((8 - m.top) & 7);
    m.control = 0x37f;
    m.status = 0;
    m.tags = 0;
  }
}
