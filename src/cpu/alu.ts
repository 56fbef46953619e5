/**
 * The arithmetic of the instruction semantics as a calculator: the value-level emitters of src/cpu/semantics compiled into a small
 * module of its own, for a caller that keeps operands and memory itself (KVM's instruction emulator).
 */

export const ALU_ADD = 0;
export const ALU_OR = 1;
export const ALU_ADC = 2;
export const ALU_SBB = 3;
export const ALU_AND = 4;
export const ALU_SUB = 5;
export const ALU_XOR = 6;
/** Flags of dst - src; dst stays. */
export const ALU_CMP = 7;
/** Shifts and rotates: the count is in src. */
export const ALU_ROL = 8;
export const ALU_ROR = 9;
export const ALU_RCL = 10;
export const ALU_RCR = 11;
export const ALU_SHL = 12;
export const ALU_SHR = 13;
export const ALU_SAR = 15;
/** Flags of dst & src; dst stays. */
export const ALU_TEST = 16;
export const ALU_INC = 17;
export const ALU_DEC = 18;
export const ALU_NEG = 19;
export const ALU_NOT = 20;
/** Double shifts: bits come from src, the count is the low byte of src2. */
export const ALU_SHLD = 21;
export const ALU_SHRD = 22;
/** Bit number in src, taken modulo the operand size. */
export const ALU_BT = 23;
export const ALU_BTS = 24;
export const ALU_BTR = 25;
export const ALU_BTC = 26;
/** dst <- index of a bit of src; a zero src leaves dst and sets ZF. */
export const ALU_BSF = 27;
export const ALU_BSR = 28;
/** rAX in dst, the factor in src; afterwards the low half of the product in dst, the high half in src (both truncated to size). */
export const ALU_MUL = 29;
export const ALU_IMUL = 30;
/** Low half of the dividend in dst, high half in src2, divisor in src; quotient in dst, remainder in src2. For size 1 AL and AH. */
export const ALU_DIV = 31;
export const ALU_IDIV = 32;
/** Two-operand form: dst <- dst * src truncated. */
export const ALU_IMUL2 = 33;
/** dst, src exchanged, then added: dst <- sum, src <- old dst. */
export const ALU_XADD = 34;
export const ALU_COUNT = 35;

export class Alu {
  /** dst (lo, hi) at 0 and 1, src at 2 and 3, src2 at 4 and 5. Only the low `size` bytes count; results are zero-extended. */
  readonly i32: Int32Array;

  constructor() {
    this.i32 = new Int32Array(6);
  }

  /**
   * Executes ALU_ `op` on operands of `size` bytes (1, 2, 4, 8).
   * @returns the new RFLAGS (the six status flags replaced as the instruction does, other bits of `rflags` kept), or -1 for #DE, which
   *   leaves the operands alone.
   */
  exec(op: number, size: number, rflags: number): number {
    throw new Error(`alu op ${op} size ${size} flags ${rflags}: not built`);
  }
}
