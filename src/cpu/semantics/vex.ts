/**
 * VEX encodings of SSE instructions. There is no second description of them: the SSE emitter runs once for each 128 bits, in a context
 * that gives it a lane of the registers and a place in VECTOR_STAGE as destination. The register is written when nothing can fault.
 */
import { NM_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import { CR0_PE, CR0_TS, CR4_OSXSAVE, RFLAGS_VM } from '../../arch/registers.ts';
import { ASSIST_PART, ASSIST_SSE, ASSIST_SSE_FLAGS } from '../floating/assist.ts';
import { ACCESS_READ, CR0_AT, CR4_AT, RFLAGS_AT, VECTOR_FLAGS_AT, VECTOR_STAGE, XCR0_AT, XMM } from '../state.ts';
import { type I32, type I64, i32, i64, v128 } from '../wasm/code.ts';
import type { Local32, Local64 } from '../wasm/function.ts';
import { MachineContext, type MachineEmitter } from './machine-context.ts';
import { setState32, state32 } from './state-access.ts';

const ZERO = i32.const(0);
/** SSE and AVX state of XCR0. */
const AVX_STATE = 6;

/** #UD outside protected mode: VEX prefixes are LES and LDS there. */
export function requireVex(c: MachineContext): void {
  if (c.flat) return;
  const real = i32.eqz(i32.and(state32(CR0_AT), i32.const(CR0_PE)));
  c.f.if(i32.or(real, i32.and(state32(RFLAGS_AT), i32.const(RFLAGS_VM))), () => c.fault(UD_VECTOR));
}
/** #UD unless the operating system has enabled AVX state, then #NM by CR0.TS. */
export function requireAvx(c: MachineContext): void {
  const { f } = c;
  requireVex(c);
  const switched = i32.eqz(i32.and(state32(CR4_AT), i32.const(CR4_OSXSAVE)));
  const disabled = i32.ne(i32.and(state32(XCR0_AT), i32.const(AVX_STATE)), i32.const(AVX_STATE));
  f.if(i32.or(switched, disabled), () => c.fault(UD_VECTOR));
  f.if(i32.and(state32(CR0_AT), i32.const(CR0_TS)), () => c.fault(NM_VECTOR));
}
/** A VEX instruction on general registers. */
export const vexInteger =
  (emit: MachineEmitter): MachineEmitter =>
  (c) => {
    requireVex(c);
    emit(c);
  };

/** How an SSE instruction becomes a VEX one. */
export interface VexForm {
  /** The VEX encoding's operands that the emitter knows as 0, 1, 2. */
  readonly operands: readonly number[];
  /** The operand that ModRM.rm names, unless it is the emitter's second. */
  readonly source?: number;
  /** The operand whose value the destination has at first. */
  readonly first?: number;
  /** Operand 0 is a vector register, all of which is written. `left`: the result stays in VECTOR_STAGE. */
  readonly stages: boolean;
  readonly left?: boolean;
  /** 256 bits. */
  readonly wide?: boolean;
  /** Bytes of the ModRM.rm operand, and how far apart its lanes are, when it is memory of a 256-bit instruction. */
  readonly memory?: number;
  readonly stride?: number;
  /** Each lane's result is 8 bytes of the destination. */
  readonly narrows?: boolean;
  /** How far the immediate is shifted for the upper lane. */
  readonly immediateShift?: number;
  /** Bits of a mask that the upper lane's result is above the lower one's. */
  readonly maskBits?: number;
}

/** Operand `index`'s place in YMM is the lane's; everything else is the whole instruction's. */
class LaneContext extends MachineContext {
  override readonly isVex = true;
  readonly flat: boolean;
  readonly record: I32;
  private readonly inner: MachineContext;
  private readonly form: VexForm;
  private readonly lane: number;
  /** Address of the ModRM.rm operand of a 256-bit instruction. */
  private readonly source: Local32 | undefined;
  mask: I64 | undefined;
  flagWord: I32 | undefined;

  constructor(inner: MachineContext, form: VexForm, lane: number, source: Local32 | undefined) {
    super(inner.f, inner.size, inner.flags, inner.raise);
    this.inner = inner;
    this.flat = inner.flat;
    this.record = inner.record;
    this.form = form;
    this.lane = lane;
    this.source = source;
  }
  private outer(index: number): number {
    return this.form.operands[index]!;
  }
  vector(index: number): I32 {
    const { form, lane, source } = this;
    if (index === 0 && form.stages) return i32.const(VECTOR_STAGE + 16 * lane);
    if (source !== undefined && this.outer(index) === sourceOf(form)) {
      return i32.add(source.get, i32.const(lane * (form.stride ?? 16)));
    }
    const at = this.inner.vector(this.outer(index));
    return lane === 0 ? at : i32.add(at, i32.const(16 * lane));
  }
  vectorBytes(): number {
    return 16;
  }
  isMemory(index: number): boolean {
    if (index === 0 && this.form.stages) return false;
    if (this.source !== undefined && this.outer(index) === sourceOf(this.form)) return false;
    return this.inner.isMemory(this.outer(index));
  }
  sizeOf(index: number): number {
    return this.inner.sizeOf(this.outer(index));
  }
  override constant(index: number): number | undefined {
    return this.inner.constant(this.outer(index));
  }
  read(index: number): Local64 {
    return this.inner.read(this.outer(index));
  }
  readUnsigned(index: number): Local64 {
    return this.inner.readUnsigned(this.outer(index));
  }
  update(index: number): Local64 {
    return this.inner.update(this.outer(index));
  }
  write(index: number, value: I64): void {
    if (this.form.wide === true) this.mask = value;
    else this.inner.write(this.outer(index), value);
  }
  override setStatus(word: I32): void {
    if (this.form.wide === true) this.flagWord = this.f.i32(word).get;
    else this.inner.setStatus(word);
  }
  assist(operation: number, argument: I32): void {
    const part = this.form.wide === true && operation >= ASSIST_SSE ? ASSIST_PART : 0;
    this.inner.assist(operation + part, argument);
  }
  immediate(): I64 {
    const whole = this.inner.immediate();
    const shift = this.form.immediateShift ?? 0;
    return this.lane === 0 || shift === 0 ? whole : i64.shrU(whole, i64.const(shift));
  }
  /** VEX does not ask for it; moves that do are not made of this context. */
  requireAligned(): void {}

  // What is the whole instruction's.

  override gpr(number: number, size: number): I64 {
    return this.inner.gpr(number, size);
  }
  override gprSigned(number: number, size: number): I64 {
    return this.inner.gprSigned(number, size);
  }
  override setGpr(number: number, size: number, value: I64): void {
    this.inner.setGpr(number, size, value);
  }
  override fault(vector: number, errorCode?: number): void {
    this.inner.fault(vector, errorCode);
  }
  override status(): I32 {
    return this.inner.status();
  }
  override carry(): I32 {
    return this.inner.carry();
  }
  override condition(cc: number): I32 {
    return this.inner.condition(cc);
  }
  offset(): I64 {
    return this.inner.offset();
  }
  pointer(size: number, access: number, delta?: I64): Local32 {
    return this.inner.pointer(size, access, delta);
  }
  finish(): void {
    this.inner.finish();
  }
  immediate2(): I32 {
    return this.inner.immediate2();
  }
  scale(): I64 {
    return this.inner.scale();
  }
  rip(): I64 {
    return this.inner.rip();
  }
  nextRip(): I64 {
    return this.inner.nextRip();
  }
  addressMask(): I64 {
    return this.inner.addressMask();
  }
  jumpRelative(): void {
    this.inner.jumpRelative();
  }
  jump(target: I64): void {
    this.inner.jump(target);
  }
  relativeTarget(): I64 {
    return this.inner.relativeTarget();
  }
  sp(): I64 {
    return this.inner.sp();
  }
  setSp(value: I64): void {
    this.inner.setSp(value);
  }
  stackWrite(sp: I64, value: I64, size: number): void {
    this.inner.stackWrite(sp, value, size);
  }
  stackRead(sp: I64, size: number): Local64 {
    return this.inner.stackRead(sp, size);
  }
}

/** The operand that ModRM.rm names. */
const sourceOf = (form: VexForm): number | undefined => form.source ?? form.operands[1];

/** Copies VECTOR_STAGE to vector register operand `index`; of `bytes` 16, the upper half is cleared. */
export function writeStage(c: MachineContext, index: number, bytes: number): void {
  const upper = bytes === 32 ? v128.load(ZERO, VECTOR_STAGE + 16) : v128.zero();
  c.do(v128.store(c.vector(index), 0, v128.load(ZERO, VECTOR_STAGE)), v128.store(c.vector(index), 16, upper));
}
/** Clears the upper half of vector register operand `index`. */
export const clearUpper = (c: MachineContext, index: number): void =>
  c.do(v128.store(c.vector(index), 16, v128.zero()));

/** `emit`, which is an SSE instruction, as `form` says. */
export const vex =
  (emit: MachineEmitter, form: VexForm): MachineEmitter =>
  (c) => {
    const { f } = c;
    const wide = form.wide === true;
    requireAvx(c);
    const from = sourceOf(form);
    let source: Local32 | undefined;
    if (wide && from !== undefined && from !== 0) {
      source = c.isMemory(from) ? c.pointer(form.memory ?? 32, ACCESS_READ) : f.i32(c.vector(from));
      c.do(setState32(VECTOR_FLAGS_AT, ZERO));
    }
    const lanes = (wide ? [0, 1] : [0]).map((n) => {
      if (form.first !== undefined) {
        c.do(v128.store(ZERO, VECTOR_STAGE + 16 * n, v128.load(c.vector(form.first), 16 * n)));
      }
      const lane = new LaneContext(c, form, n, source);
      emit(lane);
      if (lane.mask !== undefined) lane.mask = f.i64(lane.mask).get;
      return lane;
    });
    if (source !== undefined) f.if(state32(VECTOR_FLAGS_AT), () => c.assist(ASSIST_SSE_FLAGS, ZERO));
    const [low, high] = lanes;
    if (low!.mask !== undefined) {
      c.write(0, i64.or(low!.mask, i64.shl(high!.mask!, i64.const(form.maskBits!))));
    } else if (low!.flagWord !== undefined) {
      c.setStatus(i32.and(low!.flagWord, high!.flagWord!));
    } else if (form.stages) {
      if (wide && form.narrows === true) {
        c.do(v128.store64(ZERO, VECTOR_STAGE + 8, v128.load64Zero(ZERO, VECTOR_STAGE + 16)));
      }
      if (form.left !== true) writeStage(c, 0, wide && form.narrows !== true ? 32 : 16);
    }
  };

/** The same for the string comparisons, which answer in all of YMM0. */
export const vexIntoFirst =
  (emit: MachineEmitter): MachineEmitter =>
  (c) => {
    vex(emit, { operands: [0, 1], stages: false })(c);
    c.do(v128.store(ZERO, XMM + 16, v128.zero()));
  };
