/**
 * What the tables say of an opcode (@kvm emulate.c struct opcode): three operand kinds, flags, who executes it. A row is written as the
 * manual writes it: `op('Eb,Gb', emAdd, LOCK)`.
 */
import type { Handler } from './ctxt.ts';

// Flags.
/** Operands are bytes. */
export const BYTE_OP = 1 << 0;
/** A register source holds a bit offset, which moves a memory destination. */
export const BIT_OP = 1 << 1;
/** The memory operand is an address in the instruction. */
export const MEM_ABS = 1 << 2;
/** A string instruction: REP repeats it. */
export const STRING = 1 << 3;
/** Uses the stack: 64-bit operands in 64-bit mode. */
export const STACK = 1 << 4;
/** Operands are XMM, or MMX, registers. */
export const SSE = 1 << 5;
export const MMX = 1 << 6;
/** Has a ModRM byte. */
export const MODRM = 1 << 7;
/** The destination is only written. */
export const MOV = 1 << 8;
/** #UD outside protected mode. */
export const PROT = 1 << 9;
/** Emulated also when it was met as a #UD. */
export const EMULATE_ON_UD = 1 << 10;
/** The source is an address only. */
export const NO_ACCESS = 1 << 11;
/** Operands are 64 bits in 64-bit mode, else 32. */
export const OP_3264 = 1 << 12;
/** The encoding is reserved: #UD. */
export const UNDEFINED = 1 << 13;
/** May carry LOCK. */
export const LOCK = 1 << 14;
/** #GP unless CPL is 0. */
export const PRIV = 1 << 15;
/** #UD in 64-bit mode. */
export const NO_64 = 1 << 16;
/** The kind of instruction that guests edit page tables with. */
export const PAGE_TABLE = 1 << 17;
/** KVM does not emulate it. */
export const NOT_IMPL = 1 << 18;
/** The destination is not written back. */
export const NO_WRITE = 1 << 19;
/** The source is written back as well. */
export const SRC_WRITE = 1 << 20;
/** ModRM.mod is ignored: always a register. */
export const NO_MOD = 1 << 21;
/** A nested hypervisor can intercept it. */
export const INTERCEPT = 1 << 22;
/** Has permission checks of its own. */
export const CHECK_PERM = 1 << 23;
/** 64-bit operands in 64-bit mode, whatever the prefixes. */
export const NEAR_BRANCH = 1 << 24;
/** 16-bit operands become 32-bit ones. */
export const NO_16 = 1 << 25;
/** rSP in the address counts as already popped. */
export const INC_SP = 1 << 26;
/** Two memory operands. */
export const TWO_MEM_OP = 1 << 27;
export const IS_BRANCH = 1 << 28;
/** Vector operands need no alignment. */
export const UNALIGNED = 1 << 29;
/** Operands of any size need 16-byte alignment and no more. */
export const ALIGNED16 = 1 << 30;

// Operand kinds.
export const OPERAND_NONE = 0;
/** The instruction finds its operands itself. */
export const OPERAND_IMPLICIT = 1;
export const OPERAND_REG = 2;
export const OPERAND_MEM = 3;
export const OPERAND_ACC = 4;
export const OPERAND_DI = 5;
/** Memory of 8 bytes, or 16 with REX.W. */
export const OPERAND_MEM64 = 6;
export const OPERAND_IMM_U_BYTE = 7;
export const OPERAND_DX = 8;
export const OPERAND_CL = 9;
/** Sign-extended. */
export const OPERAND_IMM_BYTE = 10;
export const OPERAND_ONE = 11;
/** At most 4 bytes, sign-extended. */
export const OPERAND_IMM = 12;
export const OPERAND_MEM16 = 13;
export const OPERAND_MEM32 = 14;
export const OPERAND_SI = 16;
export const OPERAND_IMM_F_ADDR = 17;
export const OPERAND_MEM_F_ADDR = 18;
export const OPERAND_IMM_U16 = 19;
/** ES, CS, SS, DS, FS, GS: OPERAND_SREG + number. */
export const OPERAND_SREG = 20;
export const OPERAND_MEM8 = 26;
/** Up to 8 bytes. */
export const OPERAND_IMM64 = 27;
export const OPERAND_XLAT = 28;
/** Low half of a double-width accumulator: AX for bytes, else rAX. */
export const OPERAND_ACC_LO = 29;
/** High half: nothing for bytes, else rDX. */
export const OPERAND_ACC_HI = 30;

// How an opcode splits into more of them.
export const SPLIT_NONE = 0;
/** ModRM.reg. */
export const SPLIT_REG = 1;
/** ModRM.reg, then 8 more for mod 3. */
export const SPLIT_REG_MOD = 2;
/** None, 66, F2, F3. */
export const SPLIT_PREFIX = 3;
/** ModRM.rm. */
export const SPLIT_RM = 4;
/** Coprocessor: 8 by ModRM.reg, then 64 by ModRM for mod 3. */
export const SPLIT_ESCAPE = 5;
/** Memory, register. */
export const SPLIT_MOD = 6;
/** Not 64-bit mode, 64-bit mode. */
export const SPLIT_MODE = 7;

export interface Opcode {
  readonly flags: number;
  readonly dst: number;
  readonly src: number;
  readonly src2: number;
  readonly split: number;
  readonly table: readonly Opcode[];
  /** Null: decodes, and fails when executed. */
  readonly execute: Handler | null;
  readonly intercept: number;
  readonly checkPerm: Handler | null;
}

/** Operand notation: kind, and the flags that it brings along. */
const notation: Record<string, readonly [kind: number, flags: number]> = {
  '': [OPERAND_NONE, 0],
  implicit: [OPERAND_IMPLICIT, 0],
  E: [OPERAND_MEM, MODRM],
  Eb: [OPERAND_MEM8, MODRM],
  Ew: [OPERAND_MEM16, MODRM],
  Ed: [OPERAND_MEM32, MODRM],
  Mq: [OPERAND_MEM64, MODRM],
  Mp: [OPERAND_MEM_F_ADDR, MODRM],
  M: [OPERAND_MEM, MODRM | NO_ACCESS],
  G: [OPERAND_REG, MODRM],
  Z: [OPERAND_REG, 0],
  O: [OPERAND_MEM, MEM_ABS],
  A: [OPERAND_ACC, 0],
  AccLo: [OPERAND_ACC_LO, 0],
  AccHi: [OPERAND_ACC_HI, 0],
  X: [OPERAND_SI, 0],
  Y: [OPERAND_DI, 0],
  DX: [OPERAND_DX, 0],
  CL: [OPERAND_CL, 0],
  '1': [OPERAND_ONE, 0],
  Ib: [OPERAND_IMM_BYTE, 0],
  Iub: [OPERAND_IMM_U_BYTE, 0],
  Iw: [OPERAND_IMM_U16, 0],
  Iz: [OPERAND_IMM, 0],
  Iv: [OPERAND_IMM64, 0],
  Ap: [OPERAND_IMM_F_ADDR, 0],
  XLAT: [OPERAND_XLAT, 0],
  ES: [OPERAND_SREG, 0],
  CS: [OPERAND_SREG + 1, 0],
  SS: [OPERAND_SREG + 2, 0],
  DS: [OPERAND_SREG + 3, 0],
  FS: [OPERAND_SREG + 4, 0],
  GS: [OPERAND_SREG + 5, 0],
};

const noTable: readonly Opcode[] = [];

/** An opcode; `operands` is `dst,src,src2`, each of `notation`, trailing ones omitted. */
export function op(operands: string, execute: Handler | null, flags = 0): Opcode {
  const kinds = [OPERAND_NONE, OPERAND_NONE, OPERAND_NONE];
  let all = flags;
  operands.split(',').forEach((token, i) => {
    const entry = notation[token];
    if (entry === undefined) throw new Error(`opcode table: no operand is written ${token}`);
    kinds[i] = entry[0];
    all |= entry[1];
  });
  const [dst, src, src2] = kinds as [number, number, number];
  return { flags: all, dst, src, src2, split: SPLIT_NONE, table: noTable, execute, intercept: 0, checkPerm: null };
}

/** `row`, which a nested hypervisor can intercept, with permission checks of its own or none. */
export function guarded(row: Opcode, intercept: number, checkPerm: Handler | null = null): Opcode {
  const flags = row.flags | INTERCEPT | (checkPerm === null ? 0 : CHECK_PERM);
  return { ...row, flags, intercept, checkPerm };
}

/** An opcode that splits into the rows of `table`, which inherit `operands` and `flags`. */
export function split(how: number, table: readonly Opcode[], operands = '', flags = 0): Opcode {
  const modrm = how === SPLIT_RM || how === SPLIT_MODE || how === SPLIT_PREFIX ? 0 : MODRM;
  return { ...op(operands, null, flags | modrm), split: how, table };
}

/** What KVM does not emulate. */
export const notImplemented: Opcode = op('', null, NOT_IMPL);

/** What the manual reserves. */
export const undefinedOpcode: Opcode = op('', null, UNDEFINED);

/** A table under construction: 256 rows, all not implemented at first. */
export class OpcodeMap {
  readonly rows: Opcode[] = new Array<Opcode>(256).fill(notImplemented);

  /** One opcode. */
  at(code: number, row: Opcode): void {
    this.rows[code] = row;
  }

  /** `row` at every opcode from `first` to `last`. */
  span(first: number, last: number, row: Opcode): void {
    this.rows.fill(row, first, last + 1);
  }

  /** The byte form at `code` and the word form right behind. */
  pair(code: number, row: Opcode): void {
    this.rows[code] = { ...row, flags: row.flags | BYTE_OP };
    this.rows[code + 1] = row;
  }
}
