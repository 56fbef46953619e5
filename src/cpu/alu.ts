/**
 * The arithmetic of the instruction semantics as a calculator: the value-level emitters of src/cpu/semantics compiled into a small
 * module of its own, for a caller that keeps operands and memory itself (KVM's instruction emulator).
 */
import { RAX, RDX } from '../arch/registers.ts';
import { adc, add, and, cmp, dec, inc, neg, not, or, sbb, sub, test, xadd, xor } from './semantics/arithmetic.ts';
import { bsf, bsr, bt, btc, btr, bts } from './semantics/bits.ts';
import { CalculatorContext } from './semantics/calculator.ts';
import type { ValueEmitter } from './semantics/context.ts';
import { defineFlagFunctions, STATUS_FLAGS } from './semantics/flags.ts';
import { div, idiv, imul, imul2, mul } from './semantics/multiply.ts';
import { rcl, rcr, rol, ror, sar, shl, shld, shr, shrd } from './semantics/shifts.ts';
import { FLAGS_OP, FLAGS_SRC, GPR, STATUS_EXCEPTION, STATUS_OK } from './state.ts';
import { i32, T_I32 } from './wasm/code.ts';
import { ModuleBuilder } from './wasm/module.ts';

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

const emitters: readonly (ValueEmitter | undefined)[] = [
  add,
  or,
  adc,
  sbb,
  and,
  sub,
  xor,
  cmp,
  rol,
  ror,
  rcl,
  rcr,
  shl,
  shr,
  shl,
  sar,
  test,
  inc,
  dec,
  neg,
  not,
  shld,
  shrd,
  bt,
  bts,
  btr,
  btc,
  bsf,
  bsr,
  undefined,
  undefined,
  undefined,
  undefined,
  imul2,
  xadd,
]; // prettier-ignore
/** Those with implicit registers: their explicit operand, src, is the emitter's first. */
const implicit: readonly ValueEmitter[] = [mul, imul, div, idiv];

const sizeIndex = (size: number): number => 31 - Math.clz32(size);
const countOperand = (op: number): number =>
  op === ALU_SHLD || op === ALU_SHRD ? 2 : op >= ALU_ROL && op <= ALU_SAR ? 1 : -1;

let compiled: WebAssembly.Module | undefined;
/** One function for every operation and size, by name `op * 4 + log2(size)`; and the reader of lazy flags. */
function build(): WebAssembly.Module {
  if (compiled !== undefined) return compiled;
  const m = new ModuleBuilder();
  const flags = defineFlagFunctions(m);
  // The only exception is #DE.
  const raise = m.function([T_I32, T_I32], [T_I32], (f) => f.do(i32.const(STATUS_EXCEPTION)));
  for (let op = 0; op < ALU_COUNT; op++) {
    const emit = emitters[op] ?? implicit[op - ALU_MUL]!;
    for (const size of [1, 2, 4, 8]) {
      if (size === 1 && (op === ALU_SHLD || op === ALU_SHRD)) continue;
      const f = m.function([], [T_I32], (body) => {
        emit(new CalculatorContext(body, size, flags, raise, countOperand(op)));
        body.do(i32.const(STATUS_OK));
      });
      m.export(String(op * 4 + sizeIndex(size)), f);
    }
  }
  m.export('status', flags.status);
  compiled = new WebAssembly.Module(m.finish());
  return compiled;
}

const DST = 0;
const SRC = 2;
const SRC2 = 4;

export class Alu {
  /** dst (lo, hi) at 0 and 1, src at 2 and 3, src2 at 4 and 5. Only the low `size` bytes count; results are zero-extended. */
  readonly i32: Int32Array;
  private readonly state: Int32Array;
  private readonly functions: ((() => number) | undefined)[];
  private readonly status: () => number;

  constructor() {
    const memory = new WebAssembly.Memory({ initial: 1 });
    this.state = new Int32Array(memory.buffer);
    this.i32 = this.state.subarray(0, 6);
    const { exports } = new WebAssembly.Instance(build(), { env: { memory } });
    this.status = exports['status'] as () => number;
    this.functions = Array.from({ length: ALU_COUNT * 4 }, (_, i) => exports[String(i)] as (() => number) | undefined);
  }

  /**
   * Executes ALU_ `op` on operands of `size` bytes (1, 2, 4, 8).
   * @returns the new RFLAGS (the six status flags replaced as the instruction does, other bits of `rflags` kept), or -1 for #DE, which
   *   leaves the operands alone.
   */
  exec(op: number, size: number, rflags: number): number {
    const f = this.functions[op * 4 + sizeIndex(size)];
    if (f === undefined) throw new Error(`alu: no operation ${op} of size ${size}`);
    const s = this.state;
    s[FLAGS_OP >> 2] = 0;
    s[FLAGS_SRC >> 2] = rflags & STATUS_FLAGS;
    s[(FLAGS_SRC >> 2) + 1] = 0;
    if (op >= ALU_MUL && op <= ALU_IDIV) {
      if (this.withRegisters(f, op, size) !== STATUS_OK) return -1;
    } else {
      f();
    }
    return (rflags & ~STATUS_FLAGS) | this.status();
  }

  private move(to: number, from: number): void {
    this.state[to] = this.state[from]!;
    this.state[to + 1] = this.state[from + 1]!;
  }

  /** MUL, IMUL, DIV, IDIV: rAX and rDX stand in for dst and the upper half; AX is both for one byte. */
  private withRegisters(f: () => number, op: number, size: number): number {
    const s = this.state;
    const rax = (GPR >> 2) + RAX * 2;
    const rdx = (GPR >> 2) + RDX * 2;
    const divides = op >= ALU_DIV;
    const upper = divides ? SRC2 : SRC;
    const [dstLo, dstHi, srcLo, srcHi] = [s[DST]!, s[DST + 1]!, s[SRC]!, s[SRC + 1]!];
    this.move(rax, DST);
    this.move(rdx, SRC2);
    if (size === 1) s[rax] = (dstLo & 0xff) | ((s[SRC2]! & 0xff) << 8);
    // The emitter's operand is its first.
    this.move(DST, SRC);
    const status = f();
    this.move(SRC, DST);
    if (status !== STATUS_OK) {
      s[DST] = dstLo;
      s[DST + 1] = dstHi;
      s[SRC] = srcLo;
      s[SRC + 1] = srcHi;
      return status;
    }
    if (size === 1) {
      s[upper] = (s[rax]! >> 8) & 0xff;
      s[upper + 1] = 0;
      s[DST] = s[rax]! & 0xff;
      s[DST + 1] = 0;
      return status;
    }
    this.move(upper, rdx);
    this.move(DST, rax);
    if (size === 2) {
      for (const at of [upper, DST]) {
        s[at] = s[at]! & 0xffff;
        s[at + 1] = 0;
      }
    }
    return status;
  }
}
