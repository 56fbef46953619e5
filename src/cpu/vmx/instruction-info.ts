/**
 * VM-exit instruction information, and the displacement that goes into the exit qualification beside it: what an instruction's memory
 * operand and registers are, for software that emulates it (@sdm 28.2.1, tables 28-8 to 28-15).
 *
 *  31..28  27   26..23  22    21..18  17..15  14..11  10   9..7      6..3   2  1..0
 *  reg 2   nobase base  noindex index segment         reg? addr size reg 1     scale
 */
import { numberOf } from '../../arch/halves.ts';
import * as R from '../../arch/vmx-exit-reasons.ts';
import {
  BASE_RIP,
  RECORD_BASE,
  RECORD_DISP,
  RECORD_INDEX,
  RECORD_SCALE,
  REGISTER_NONE,
  recordAddressSize,
  recordIsMemory,
  recordOperandSize,
  recordReg,
  recordRm,
  recordSegment,
} from '../decode/record.ts';
import type { Core } from '../system/core.ts';
import { W_RIP } from '../system/words.ts';

/** Exits of instructions with a memory operand whose displacement is their qualification. */
const WITH_OPERAND: ReadonlySet<number> = new Set([
  R.EXIT_REASON_VMCLEAR,
  R.EXIT_REASON_VMPTRLD,
  R.EXIT_REASON_VMPTRST,
  R.EXIT_REASON_VMREAD,
  R.EXIT_REASON_VMWRITE,
  R.EXIT_REASON_VMON,
  R.EXIT_REASON_INVEPT,
  R.EXIT_REASON_INVVPID,
  R.EXIT_REASON_INVPCID,
  R.EXIT_REASON_GDTR_IDTR,
  R.EXIT_REASON_LDTR_TR,
]);
const WITH_REG2: ReadonlySet<number> = new Set([
  R.EXIT_REASON_VMREAD,
  R.EXIT_REASON_VMWRITE,
  R.EXIT_REASON_INVEPT,
  R.EXIT_REASON_INVVPID,
  R.EXIT_REASON_INVPCID,
]);

/** Filled by `describeInstruction`. */
export interface InstructionInfo {
  info: number;
  displacementLo: number;
  displacementHi: number;
}

const described: InstructionInfo = { info: 0, displacementLo: 0, displacementHi: 0 };

/** Bits 9:7 of the address size in bytes. */
function addressSizeBits(bytes: number): number {
  return (bytes === 2 ? 0 : bytes === 4 ? 1 : 2) << 7;
}

function identity(core: Core, reason: number): number {
  // SGDT SIDT LGDT LIDT are /0 to /3, SLDT STR LLDT LTR the same of another group.
  if (reason !== R.EXIT_REASON_GDTR_IDTR && reason !== R.EXIT_REASON_LDTR_TR) return 0;
  const operand32 = recordOperandSize(core.u8, core.record) === 2 ? 0 : 1 << 11;
  return operand32 | ((recordReg(core.u8, core.record) & 3) << 28);
}

/** What is told of the running instruction, whose exit has this reason: one object, or null for exits that tell nothing. */
export function describeInstruction(core: Core, reason: number): InstructionInfo | null {
  if (!WITH_OPERAND.has(reason)) return null;
  const { i32, u8, record } = core;
  let info = identity(core, reason);
  if (WITH_REG2.has(reason)) info |= recordReg(u8, record) << 28;
  described.displacementLo = 0;
  described.displacementHi = 0;
  if (!recordIsMemory(u8, record)) {
    described.info = info | (1 << 10) | (recordRm(u8, record) << 3);
    return described;
  }
  const base = u8[record + RECORD_BASE]!;
  const index = u8[record + RECORD_INDEX]!;
  info |= addressSizeBits(recordAddressSize(u8, record)) | (recordSegment(u8, record) << 15);
  info |= index === REGISTER_NONE ? 1 << 22 : u8[record + RECORD_SCALE]! | ((index >> 3) << 18);
  let lo = i32[(record + RECORD_DISP) >> 2]!;
  let hi = i32[((record + RECORD_DISP) >> 2) + 1]!;
  if (base === BASE_RIP) {
    const low = numberOf(lo, 0) + numberOf(i32[W_RIP]!, 0);
    hi = (hi + i32[W_RIP + 1]! + (low > 0xffffffff ? 1 : 0)) | 0;
    lo = low | 0;
  }
  info |= base === BASE_RIP || base === REGISTER_NONE ? 1 << 27 : (base >> 3) << 23;
  described.info = info;
  described.displacementLo = lo;
  described.displacementHi = hi;
  return described;
}

/** The information of INS and OUTS: address size and segment. */
export function describeStringIo(core: Core): number {
  const { u8, record } = core;
  return addressSizeBits(recordAddressSize(u8, record)) | (recordSegment(u8, record) << 15);
}
