/** What generated code leaves to TypeScript of floating point and text: one function, an operation and an argument. */
import { FPU_REGS, STATUS_OK } from '../state.ts';
import { aes } from './aes.ts';
import { ASSIST_IMAGE, FpuMemory } from './fpu-memory.ts';
import { SseUnit } from './sse-unit.ts';
import { compareText } from './text-compare.ts';
import { X87Unit } from './x87-unit.ts';

/** x87 instructions with the operand in ASSIST_A; the argument is their escape byte and ModRM. */
export const ASSIST_X87_OPERAND = 1;
export const ASSIST_X87_STORE = 2;
export const ASSIST_X87_COMMIT = 3;
export const ASSIST_X87_REGISTERS = 4;
/** The argument is the register, and 8 when the condition holds. */
export const ASSIST_X87_MOVE = 5;
/** Fills ASSIST_IMAGE; the argument is the size of its words: 2 or 4. FNSTENV, FNSAVE and their loads take it from there. */
export const ASSIST_X87_STORE_IMAGE = 6;
/** The argument has 0x100 when registers follow (FRSTOR). */
export const ASSIST_X87_LOAD_IMAGE = 7;
export const ASSIST_X87_INIT = 8;
/** MMX instructions see the registers by number: the top becomes 0. */
export const ASSIST_MMX = 9;
/** What follows FNSTENV: all exceptions are masked. */
export const ASSIST_X87_MASK = 12;
/** PCMPxSTRx: the argument is the immediate, the lengths are in ASSIST_RESULT. */
export const ASSIST_TEXT = 10;
/** AES and PCLMULQDQ: the argument is the operation (aes.ts), and the immediate in bits 15:8. */
export const ASSIST_AES = 11;
/** The flags of both halves of an instruction on 256 bits, once both are computed. */
export const ASSIST_SSE_FLAGS = 13;
/** From here on: SSE operations, `shaped`. */
export const ASSIST_SSE = 0x100;
/** Added to an SSE operation: half of an instruction, whose flags wait in VECTOR_FLAGS_AT. */
export const ASSIST_PART = 0x1000;

export class Assist {
  private readonly m: FpuMemory;
  private readonly x87: X87Unit;
  private readonly sse: SseUnit;

  constructor(buffer: ArrayBufferLike) {
    this.m = new FpuMemory(buffer);
    this.x87 = new X87Unit(this.m);
    this.sse = new SseUnit(this.m);
  }

  /** Executes `operation`; a STATUS. */
  execute(operation: number, argument: number): number {
    if (operation >= ASSIST_PART) return this.sse.half(operation - ASSIST_PART - ASSIST_SSE, argument);
    if (operation >= ASSIST_SSE) return this.sse.execute(operation - ASSIST_SSE, argument);
    if (operation === ASSIST_SSE_FLAGS) return this.sse.finishHalves();
    const { m, x87 } = this;
    switch (operation) {
      case ASSIST_X87_OPERAND:
        x87.withOperand(argument);
        break;
      case ASSIST_X87_STORE:
        x87.prepareStore(argument);
        break;
      case ASSIST_X87_COMMIT:
        x87.commit();
        break;
      case ASSIST_X87_REGISTERS:
        x87.registers(argument);
        break;
      case ASSIST_X87_MOVE:
        x87.conditionalMove(argument & 7, argument >= 8);
        break;
      case ASSIST_X87_STORE_IMAGE:
        this.storeImage(argument);
        break;
      case ASSIST_X87_LOAD_IMAGE:
        this.loadImage(argument & 0xff, (argument & 0x100) !== 0);
        break;
      case ASSIST_X87_MASK:
        x87.maskAll();
        break;
      case ASSIST_X87_INIT:
        x87.initialize();
        break;
      case ASSIST_MMX:
        m.rotate((8 - m.top) & 7);
        m.top = 0;
        break;
      case ASSIST_TEXT:
        compareText(m, argument);
        break;
      case ASSIST_AES:
        aes(m, argument & 0xff, argument >> 8);
        break;
      default:
        throw new Error(`assist ${operation}`);
    }
    return STATUS_OK;
  }
  private storeImage(size: number): void {
    const { m } = this;
    // Instruction and operand pointers are not kept: they read as zero.
    m.u8.fill(0, ASSIST_IMAGE, ASSIST_IMAGE + 28);
    const upper = size === 4 ? 0xffff0000 : 0;
    this.put(size, 0, m.control | upper);
    this.put(size, 1, m.status | upper);
    this.put(size, 2, this.x87.fullTags() | upper);
    if (size === 4) this.put(size, 6, upper);
    for (let i = 0; i < 8; i++) {
      m.u8.copyWithin(ASSIST_IMAGE + 7 * size + 10 * i, FPU_REGS + 16 * i, FPU_REGS + 16 * i + 10);
    }
  }
  private loadImage(size: number, withRegisters: boolean): void {
    const { m } = this;
    const word = (n: number): number => {
      const at = ASSIST_IMAGE + n * size;
      return m.u8[at]! | (m.u8[at + 1]! << 8);
    };
    this.x87.loadEnvironment(word(0), word(1), word(2));
    if (!withRegisters) return;
    for (let i = 0; i < 8; i++) {
      const from = ASSIST_IMAGE + 7 * size + 10 * i;
      m.u8.copyWithin(FPU_REGS + 16 * i, from, from + 10);
      m.u8.fill(0, FPU_REGS + 16 * i + 10, FPU_REGS + 16 * i + 16);
    }
  }
  private put(size: number, n: number, value: number): void {
    const at = ASSIST_IMAGE + n * size;
    for (let i = 0; i < size; i++) this.m.u8[at + i] = (value >>> (i * 8)) & 0xff;
  }
}
