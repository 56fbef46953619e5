/** One operand of the instruction at hand: where it lives and what value it holds (@kvm kvm_emulate.h struct operand). */

/** Where an operand lives. */
export const OP_REG = 0;
export const OP_MEM = 1;
export const OP_MEM_STR = 2;
export const OP_IMM = 3;
export const OP_XMM = 4;
export const OP_MM = 5;
export const OP_NONE = 6;

/** `reg` of an operand that is RFLAGS rather than a general register (POPF). */
export const REG_RFLAGS = -1;

export class Operand {
  type = OP_NONE;
  /** Size in bytes. */
  bytes = 0;
  /** Elements, for string instructions. */
  count = 0;
  /** The value, low byte first; as halves in `i32`. */
  readonly val = new Uint8Array(16);
  readonly i32 = new Int32Array(this.val.buffer);
  /** The value before the instruction changed it, for the compare of a locked write; as halves in `orig32`. */
  readonly orig = new Uint8Array(16);
  readonly orig32 = new Int32Array(this.orig.buffer);
  /** OP_REG: byte offset in the register file (8 * number, plus 1 for AH..BH). OP_XMM and OP_MM: register number. */
  reg = 0;
  /** OP_MEM, OP_MEM_STR: segment register and effective address in halves. */
  seg = 0;
  eaLo = 0;
  eaHi = 0;
  /** OP_MEM_STR: where the `count * bytes` bytes to store are. */
  data: Uint8Array = this.val;
  dataOff = 0;

  set(lo: number, hi: number): void {
    this.i32[0] = lo;
    this.i32[1] = hi;
  }

  /** Remembers the present value as the original one. */
  keepOriginal(): void {
    this.orig32[0] = this.i32[0]!;
    this.orig32[1] = this.i32[1]!;
  }

  /** Takes over all 16 bytes of the value of `from`. */
  setValue(from: Operand): void {
    for (let i = 0; i < 4; i++) this.i32[i] = from.i32[i]!;
  }

  /** Makes this operand equal to `from`. */
  copyFrom(from: Operand): void {
    this.type = from.type;
    this.bytes = from.bytes;
    this.count = from.count;
    this.setValue(from);
    for (let i = 0; i < 4; i++) this.orig32[i] = from.orig32[i]!;
    this.reg = from.reg;
    this.seg = from.seg;
    this.eaLo = from.eaLo;
    this.eaHi = from.eaHi;
  }
}

/** The 16-bit word of an operand's value at byte `off`. */
export function wordAt(op: Operand, off: number): number {
  return op.val[off]! | (op.val[off + 1]! << 8);
}
