/** The floating-point state in the processor's memory, and the words through which generated code and the assists pass values. */
import { ASSIST, FPU_CW_AT, FPU_REGS, FPU_SW_AT, FPU_TAG_AT, MXCSR_AT } from '../state.ts';

/** First operand or destination, second operand, result: 16 bytes each. */
export const ASSIST_A = ASSIST;
export const ASSIST_B = ASSIST + 0x10;
export const ASSIST_RESULT = ASSIST + 0x20;
/** Whether there is a result to be stored: u32. */
export const ASSIST_STORES = ASSIST + 0x3c;
/** Third operand: 16 bytes. */
export const ASSIST_C = ASSIST + 0x40;
/** An FNSAVE image, up to 108 bytes. */
export const ASSIST_IMAGE = ASSIST + 0x80;

/** Views of the processor's memory. */
export class FpuMemory {
  readonly i32: Int32Array;
  readonly u8: Uint8Array;
  readonly u64: BigUint64Array;

  constructor(buffer: ArrayBufferLike) {
    this.i32 = new Int32Array(buffer);
    this.u8 = new Uint8Array(buffer);
    this.u64 = new BigUint64Array(buffer);
  }
  get control(): number {
    return this.i32[FPU_CW_AT >> 2]!;
  }
  set control(value: number) {
    this.i32[FPU_CW_AT >> 2] = value;
  }
  get status(): number {
    return this.i32[FPU_SW_AT >> 2]!;
  }
  set status(value: number) {
    this.i32[FPU_SW_AT >> 2] = value;
  }
  /** One bit for each register in use, by its number independent of the top. */
  get tags(): number {
    return this.i32[FPU_TAG_AT >> 2]!;
  }
  set tags(value: number) {
    this.i32[FPU_TAG_AT >> 2] = value;
  }
  get mxcsr(): number {
    return this.i32[MXCSR_AT >> 2]!;
  }
  set mxcsr(value: number) {
    this.i32[MXCSR_AT >> 2] = value;
  }
  get top(): number {
    return (this.status >> 11) & 7;
  }
  set top(value: number) {
    this.status = (this.status & ~0x3800) | ((value & 7) << 11);
  }
  /** Moves the registers so that the one now called ST(`by`) is ST(0): FPU_REGS is in order from ST(0). */
  rotate(by: number): void {
    const bytes = this.u8.slice(FPU_REGS, FPU_REGS + 128);
    for (let i = 0; i < 8; i++)
      this.u8.set(bytes.subarray(((i + by) & 7) * 16, ((i + by) & 7) * 16 + 16), FPU_REGS + i * 16);
  }
}
