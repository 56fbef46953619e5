/**
 * Cases for comparing whole instructions with a host processor: an instruction in 64-bit mode, and a state that follows from a seed.
 * The committed answers (native-vectors.json) were produced from these functions; tests feed the same states to the interpreter.
 */
import { DECODE_OK, Decoder } from '../decode/decoder.ts';
import type { Encoding } from '../isa/encoding.ts';
import { ENCODINGS } from '../isa/table.ts';

/** Where the memory operand's 256 bytes are; RDI points into their middle. */
export const DATA_ADDRESS = 0x200000;
export const DATA_SIZE = 256;

export interface NativeState {
  readonly gpr: BigUint64Array;
  /** Two words a register. */
  readonly xmm: BigUint64Array;
  readonly mmx: BigUint64Array;
  readonly data: Uint8Array;
  flags: number;
}

/** A 32-bit generator (xorshift) from a seed. */
export function generator(seed: number): () => number {
  let x = Math.imul(seed + 1, 0x9e3779b1) | 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

function word(next: () => number): bigint {
  const full = (BigInt(next()) << 32n) | BigInt(next());
  switch (next() % 6) {
    case 0:
      return BigInt(next() % 70);
    case 1:
      return BigInt.asUintN(64, -BigInt(next() % 70));
    case 2:
      return 1n << BigInt(next() % 64);
    default:
      return full;
  }
}

/** The state before the instruction. RCX, RSI and R9 are small: counts, bit numbers and indexes. */
export function stateOf(seed: number): NativeState {
  const next = generator(seed);
  for (let i = 0; i < 8; i++) next();
  const gpr = BigUint64Array.from({ length: 16 }, () => word(next));
  gpr[4] = 0n;
  gpr[1] = BigInt(next() % 70);
  gpr[6] = BigInt(next() % 8);
  gpr[9] = BigInt(next() % 8);
  gpr[7] = BigInt(DATA_ADDRESS + DATA_SIZE / 2);
  return {
    gpr,
    xmm: BigUint64Array.from({ length: 32 }, () => word(next)),
    mmx: BigUint64Array.from({ length: 8 }, () => word(next)),
    data: Uint8Array.from({ length: DATA_SIZE }, () => next() & 0xff),
    flags: (next() & 0x8d5) | 0x202,
  };
}

/** Not comparable in a user process by themselves: stack, transfers, state images, and what needs special addresses. */
const excluded =
  /^(PUSH|POP|CALL|RET|J|LOOP|ENTER|LEAVE|FX|LDMXCSR|STMXCSR|FN|FLD|FST|FI|MASKMOV|EMMS|XLATB|BOUND|WAIT|STD|PREFETCH|MOVNT|NOP|CMPXCHG8B)/;
export const isComparable = (row: Encoding): boolean =>
  row.meaning.kind === 'emit' &&
  (!excluded.test(row.mnemonic) || row.mnemonic === 'POPCNT') &&
  !row.options.has('i64') &&
  !row.operands.some((o) => o.text[0] === 'O');

const decoder = new Decoder();

/** A random encoding of `row`: operand size, REX bits, register or memory operand. Empty when the dice gave nothing usable. */
export function encode(row: Encoding, next: () => number): number[] {
  const bytes: number[] = [];
  const vex = row.map >= 4;
  let rexBits = next() % 3 === 0 ? next() & 15 : next() & 8;
  // The index of a gather is one of the four registers that hold small numbers.
  if (row.options.has('vsib')) rexBits = (rexBits & 12) | 2;
  const prefix = { '': [], NP: [], NR: [], '66': [0x66], F3: [0xf3], F2: [0xf2] }[row.prefix];
  if (vex) {
    const pp = ['NP', '66', 'F3', 'F2'].indexOf(row.prefix);
    const vvvv = row.operands.some((o) => o.place === 'vvvv') ? next() & 15 : 15;
    const w = row.w >= 0 ? row.w << 3 : rexBits & 8;
    const l = row.l >= 0 ? row.l : next() & 1;
    // The short form has neither W, X, B nor another map.
    if (row.map === 5 && (w | (rexBits & 3)) === 0 && next() % 2 === 0) {
      bytes.push(0xc5, ((~(rexBits & 4) << 5) & 0x80) | (vvvv << 3) | (l << 2) | pp);
    } else {
      bytes.push(0xc4, ((~(rexBits & 7) << 5) & 0xe0) | (row.map - 4), (w << 4) | (vvvv << 3) | (l << 2) | pp);
    }
  } else {
    if (row.size === 0 && next() % 4 === 0 && (row.prefix === '' || row.prefix === 'F3' || row.prefix === 'F2'))
      bytes.push(0x66);
    bytes.push(...prefix);
    if (rexBits !== 0) bytes.push(0x40 | rexBits);
    if (row.map > 0) bytes.push(0x0f);
    if (row.map > 1) bytes.push(row.map === 2 ? 0x38 : 0x3a);
  }
  bytes.push(row.opcode + (row.span === 8 ? next() & 7 : 0));
  if (row.hasModrm) {
    const memory = row.form === 'memory' || (row.form === 'any' && next() % 3 === 0);
    const bitString = row.options.has('bits') && memory;
    const reg = row.digit >= 0 ? row.digit : bitString ? 6 : next() & 7;
    if (row.literal >= 0) bytes.push(row.literal);
    else if (!memory) bytes.push(0xc0 | (reg << 3) | (next() & 7));
    else {
      const disp = (next() % 6) * 16;
      if (row.options.has('vsib'))
        bytes.push(0x44 | (reg << 3), ((next() % 4) << 6) | ((4 + (next() % 4)) << 3) | 7, disp);
      else if (next() % 2 === 0) bytes.push(0x40 | (reg << 3) | 7, disp);
      else bytes.push(0x44 | (reg << 3), ((next() % 4) << 6) | (6 << 3) | 7, disp);
    }
  }
  const immediate = 8;
  for (let i = 0; i < immediate; i++) bytes.push(next() & 0xff);
  if (decoder.decode(Uint8Array.from(bytes), 0, bytes.length, 2) !== DECODE_OK || decoder.row !== row) return [];
  const rsp = 4 * 8;
  // The bit number is small only in RSI.
  if (row.options.has('bits') && (decoder.flags & 8) !== 0 && decoder.reg !== 6 * 8) return [];
  const general = row.operands.some((o) => o.file === 'gpr' && o.place !== 'imm' && o.form !== 'memory');
  if (general && (decoder.reg === rsp || decoder.rm === rsp || decoder.vvvv === rsp)) return [];
  // Memory is reached through RDI, with RSI as index.
  const memory = (decoder.flags & 8) !== 0;
  if (
    memory &&
    (decoder.base !== 7 * 8 || (decoder.index !== 6 * 8 && decoder.index < 16 * 8) || decoder.addressSize !== 8)
  )
    return [];
  return bytes.slice(0, decoder.length);
}

/** All rows that can be compared. */
export const COMPARABLE: readonly Encoding[] = ENCODINGS.filter(isComparable);
