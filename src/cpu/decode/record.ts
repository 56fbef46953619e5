/**
 * The predecoded record of one instruction: 80 bytes in linear memory, read by generated code and by the system port.
 *
 *   0 handler   4 next     8 taken   12 length 13 opsize 14 addrsize 15 mode
 *  16 reg 17 rm 18 base 19 index     20 scale 21 segment 22 flags 23 vvvv
 *  24 displacement (i64)             32 immediate (i64)
 *  40 immediate 2 (u32)  44 system op (u16) 46 encoding (u16)   48 instruction bytes (15)
 *  64 inner handler      68 second page         72 heat   76 compiled
 *
 * A register is held as its byte offset in the register file (number * 8; AH CH DH BH are their byte), so that generated code adds
 * nothing to reach it. "No base" and "no index" are the offset of a word that is always zero; RIP as base is the offset of RIP.
 */
import { GPR, RIP_AT, SCRATCH, ZERO_AT } from '../state.ts';

export const RECORD_SIZE = 80;

export const RECORD_HANDLER = 0; // u32, index in the handler table
export const RECORD_NEXT = 4; // u32, record of the following instruction in the same page, or 0
export const RECORD_TAKEN = 8; // u32, record of the direct branch's target in the same page, or 0
export const RECORD_LENGTH = 12; // u8, bytes
export const RECORD_OPSIZE = 13; // u8, bytes: 1, 2, 4, 8
export const RECORD_ADDRSIZE = 14; // u8, bytes: 2, 4, 8
export const RECORD_MODE = 15; // u8, as CODE_MODE_AT when it was decoded
export const RECORD_REG = 16; // u8, ModRM.reg (also control, debug and segment register numbers, times 8)
export const RECORD_RM = 17; // u8, ModRM.rm or the register in the opcode, when it names a register
export const RECORD_BASE = 18; // u8
export const RECORD_INDEX = 19; // u8
export const RECORD_SCALE = 20; // u8, shift: 0 to 3
export const RECORD_SEGMENT = 21; // u8, segment of the memory operand: ES 0 CS 1 SS 2 DS 3 FS 4 GS 5
export const RECORD_FLAGS = 22; // u8, RECORD_HAS_*
export const RECORD_VVVV = 23; // u8, second source of a VEX encoding
export const RECORD_DISP = 24; // i64; counted from the instruction's first byte when the base is RIP
export const RECORD_IMM = 32; // i64, sign-extended; of a relative branch: target minus address of the instruction
export const RECORD_IMM2 = 40; // u32: selector of a far pointer, nesting level of ENTER, a fourth register (times 8)
export const RECORD_SYSTEM_OP = 44; // u16, SYS_*
export const RECORD_ENCODING = 46; // u16, row of the encoding table
export const RECORD_BYTES = 48; // 15 bytes
/** Of an instruction that ends in the next page: what executes it once that page is known to be the one that was decoded. */
export const RECORD_INNER = 64; // u32, index in the handler table
export const RECORD_SECOND = 68; // u32, host physical address of the next page
/** How many more transfers to the record until it is worth compiling; RECORD_INNER is the handler of a compiled one. */
export const RECORD_HEAT = 72; // i32
/** Index in the handler table of what was compiled from here on, or 0; it is RECORD_HANDLER, too, while it is valid. */
export const RECORD_COMPILED = 76; // u32

/** F3 prefix. */
export const RECORD_HAS_REP = 1 << 0;
/** F2 prefix. */
export const RECORD_HAS_REPNE = 1 << 1;
export const RECORD_HAS_LOCK = 1 << 2;
/** The rm operand is memory. */
export const RECORD_HAS_MEMORY = 1 << 3;
export const RECORD_HAS_REX_W = 1 << 4;
/** 66 prefix. */
export const RECORD_HAS_OPERAND_SIZE = 1 << 5;
/** An explicit segment override prefix. */
export const RECORD_HAS_SEGMENT = 1 << 6;

export const BASE_RIP = RIP_AT - GPR;
export const REGISTER_NONE = ZERO_AT - GPR;

/** Length of the instruction in bytes. */
export const recordLength = (u8: Uint8Array, record: number): number => u8[record + RECORD_LENGTH]!;
/** Operand size in bytes. */
export const recordOperandSize = (u8: Uint8Array, record: number): number => u8[record + RECORD_OPSIZE]!;
/** Address size in bytes. */
export const recordAddressSize = (u8: Uint8Array, record: number): number => u8[record + RECORD_ADDRSIZE]!;
/** ModRM.reg with its REX bit: the number of a general, control, debug or segment register. */
export const recordReg = (u8: Uint8Array, record: number): number => u8[record + RECORD_REG]! >> 3;
/** Number of the register that the rm operand (or the opcode) names; meaningless when `recordIsMemory`. */
export const recordRm = (u8: Uint8Array, record: number): number => u8[record + RECORD_RM]! >> 3;
export const recordIsMemory = (u8: Uint8Array, record: number): boolean =>
  (u8[record + RECORD_FLAGS]! & RECORD_HAS_MEMORY) !== 0;
/** Segment of the memory operand: ES 0 CS 1 SS 2 DS 3 FS 4 GS 5. */
export const recordSegment = (u8: Uint8Array, record: number): number => u8[record + RECORD_SEGMENT]!;
/** F3 or F2. */
export const recordHasRep = (u8: Uint8Array, record: number): boolean =>
  (u8[record + RECORD_FLAGS]! & (RECORD_HAS_REP | RECORD_HAS_REPNE)) !== 0;
/** Low half of the sign-extended immediate. */
export const recordImmediate = (i32: Int32Array, record: number): number => i32[(record + RECORD_IMM) >> 2]!;
/** High half of the sign-extended immediate. */
export const recordImmediateHi = (i32: Int32Array, record: number): number => i32[(record + RECORD_IMM + 4) >> 2]!;
/** Second immediate: the selector of a far pointer. */
export const recordImmediate2 = (i32: Int32Array, record: number): number => i32[(record + RECORD_IMM2) >> 2]!;

/**
 * Computes the offset of the memory operand inside its segment (`recordSegment`), truncated to the address size, into the two halves
 * at SCRATCH; answers the low half. The segment's base and checks are the caller's.
 */
export function effectiveAddress(i32: Int32Array, u8: Uint8Array, record: number): number {
  const base = (GPR + u8[record + RECORD_BASE]!) >> 2;
  const index = (GPR + u8[record + RECORD_INDEX]!) >> 2;
  const scale = u8[record + RECORD_SCALE]!;
  const disp = (record + RECORD_DISP) >> 2;
  const indexLo = i32[index]!;
  const scaledLo = indexLo << scale;
  const scaledHi = scale === 0 ? i32[index + 1]! : (i32[index + 1]! << scale) | (indexLo >>> (32 - scale));
  const low = (i32[base]! >>> 0) + (scaledLo >>> 0) + (i32[disp]! >>> 0);
  let lo = low | 0;
  let hi = (i32[base + 1]! + scaledHi + i32[disp + 1]! + Math.floor(low / 0x1_0000_0000)) | 0;
  const addressSize = u8[record + RECORD_ADDRSIZE]!;
  if (addressSize !== 8) hi = 0;
  if (addressSize === 2) lo &= 0xffff;
  i32[SCRATCH >> 2] = lo;
  i32[(SCRATCH >> 2) + 1] = hi;
  return lo;
}
