/**
 * Random sequences over the whole unprivileged instruction set for comparing with a host processor: integer instructions with stack,
 * branches and strings, and VEX encodings. The state follows from a seed, as in native-float-cases.testing.ts; RDI points into the data,
 * RSI is small, RSP has a page of its own, and YMM12 to YMM15 hold small numbers for gathers.
 */
import { Decoder } from '../decode/decoder.ts';
import type { Encoding } from '../isa/encoding.ts';
import { ENCODINGS } from '../isa/table.ts';
import { COMPARABLE, DATA_ADDRESS, encode } from './native-cases.testing.ts';
import { type FloatCase, floatState, IMAGE_SIZE, SSE_ROWS, X87_ROWS } from './native-float-cases.testing.ts';

type Next = () => number;
const STACK = DATA_ADDRESS + 0x1800;
const UPPER_AT = IMAGE_SIZE + 8;
const isVector = (row: Encoding): boolean => row.operands.some((o) => o.file !== 'gpr');

/** Left out: what is compared by other means (see native-float-cases.testing.ts). */
const excluded = /^V?(RCP|RSQRT|DPP|MASKMOVDQU)/;
export const VEX_ROWS = ENCODINGS.filter(
  (row) => row.map >= 4 && (isVector(row) || /^VZERO|MXCSR/.test(row.mnemonic)) && !excluded.test(row.mnemonic),
);
export const INTEGER_ROWS = COMPARABLE.filter((row) => !isVector(row) && !/^F|^V/.test(row.mnemonic));
export const ALL_ROWS = [...INTEGER_ROWS, ...INTEGER_ROWS, ...X87_ROWS, ...SSE_ROWS, ...VEX_ROWS];

/** Flags that are not defined after an instruction: they are defined again before anything reads them. */
const leavesUndefined =
  /^(SH|SA)[LR]D?$|^R[OC][LR]$|^I?MUL$|^I?DIV$|^BS[FR]$|^BT[SRC]?$|^[TL]ZCNT$|^(ANDN|BLS.*|BZHI|BEXTR)$|^(AND|OR|XOR|TEST)$/;
/** Registers that sequences leave alone: RSP, RSI and RDI. */
const kept = [4 * 8, 6 * 8, 7 * 8];

/** The state that goes with a seed. */
export function sequenceState(seed: number): { readonly next: Next; readonly image: Uint8Array } {
  const { next, image } = floatState(seed);
  const view = new DataView(image.buffer);
  view.setBigUint64(512 + 4 * 8, BigInt(STACK), true);
  if (next() % 2 === 0) view.setBigUint64(512 + 8, BigInt(next() % 70), true);
  for (let n = 12; n < 16; n++) {
    for (const at of [160 + n * 16, UPPER_AT + n * 16]) {
      for (let i = 0; i < 16; i += 4) {
        const wide = n >= 14 && i % 8 === 4;
        // Now and then an index that leaves the data: the page behind it is not there.
        const value = wide ? 0 : (next() % 60) + (next() % 40 === 0 ? 0x2000 : 0);
        view.setUint32(at + i, value, true);
      }
    }
  }
  return { next, image };
}

const decoder = new Decoder();
/** Whether an instruction writes a register that is kept: a general one, or an index of gathers. */
function spoils(row: Encoding, bytes: readonly number[]): boolean {
  decoder.decode(Uint8Array.from(bytes), 0, bytes.length, 2);
  const register = (n: number): number => {
    const place = row.operands[n]?.place;
    return place === 'reg' ? decoder.reg : place === 'vvvv' ? decoder.vvvv : place === 'rm' ? decoder.rm : -1;
  };
  const first = row.operands[0];
  if (first === undefined) return false;
  // XCHG, XADD, MULX write their second operand, too, CMPXCHG only RAX.
  const both = /^(XCHG|XADD|MULX)$/.test(row.mnemonic);
  const written = both ? [register(0), register(1)] : [register(0)];
  const memory = (decoder.flags & 8) !== 0;
  return written.some((r, n) => {
    const operand = row.operands[n]!;
    if (memory && operand.place === 'rm') return false;
    if (operand.file === 'xmm') return r >= 12 * 8;
    // A legacy byte register of RSP is AH's neighbour.
    return operand.file === 'gpr' && kept.includes(r & ~7);
  });
}

const DEFINE_FLAGS = [0x39, 0xd1];
/** Pieces that no row gives by itself: stack, branches, strings. Each is one entry of `names`, with its count of instructions. */
function special(next: Next): { code: number[]; count: number; name: string } {
  const low = (): number => [0, 1, 2, 3, 5][next() % 5]!;
  switch (next() % 6) {
    case 0:
      return { code: [0x50 + low(), 0x58 + low()], count: 2, name: 'PUSH POP' };
    case 1: {
      const size = next() % 2 === 0 ? [0x66] : [];
      const restore = size.length === 0 ? [0x58 + low()] : [0x66, 0x58 + low()];
      return {
        code: [...size, 0x68, ...Array.from({ length: size.length === 0 ? 4 : 2 }, () => next() & 0xff), ...restore],
        count: 2,
        name: 'PUSHI POP',
      };
    }
    case 2:
      // call +2; jmp +1; ret
      return { code: [0xe8, 2, 0, 0, 0, 0xeb, 1, 0xc3], count: 3, name: 'CALL RET JMP' };
    case 3: {
      // A branch over an instruction of four bytes.
      const skipped = [0x48, 0x83, 0xc0 | low(), next() & 0x7f];
      return { code: [0x70 | (next() & 15), 4, ...skipped], count: 2, name: 'Jcc ADD' };
    }
    case 4: {
      const enter = [0xc8, (next() & 15) * 8, 0, next() % 2];
      return { code: [...enter, 0xc9], count: 2, name: 'ENTER LEAVE' };
    }
    default: {
      const opcode = [0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf][next() % 10]!;
      const prefix = [[], [0xf3], [0xf2]][next() % 3]!;
      const size = [[], [0x66], [0x48]][next() % 3]!;
      const operation = size[0] === 0x48 ? [...prefix, 0x48, opcode] : [...size, ...prefix, opcode];
      const direction = next() % 2 === 0 ? 0xfc : 0xfd;
      // and ecx, 7; rsi and rdi into the data, and back where they were. The flags are defined: REP CMPS with a count of 0 keeps them.
      const code = [
        ...[0x83, 0xe1, 7, direction],
        ...[0xbe, 0xc0, 0, (DATA_ADDRESS >> 16) & 0xff, 0],
        ...operation,
        ...[0xfc, 0xbf, 0x80, 0, (DATA_ADDRESS >> 16) & 0xff, 0, 0xbe, next() & 7, 0, 0, 0],
        ...DEFINE_FLAGS,
      ];
      return { code, count: 16, name: 'string' };
    }
  }
}

/** A case of one to `most` instructions of `rows`; with integer rows stack, branches and strings are among them. */
export function sequenceCase(seed: number, rows: readonly Encoding[], most: number): FloatCase {
  const { next, image } = sequenceState(seed);
  const bytes: number[] = [];
  const names: string[] = [];
  const integer = rows.some((row) => row.mnemonic === 'ADD');
  const count = 1 + (next() % most);
  for (let n = 0; n < count; n++) {
    if (integer && next() % 6 === 0) {
      const piece = special(next);
      if (bytes.length + piece.code.length > 230) break;
      bytes.push(...piece.code);
      for (let i = 0; i < piece.count; i++) names.push(piece.name);
      continue;
    }
    const row = rows[next() % rows.length]!;
    const one = encode(row, next);
    if (one.length === 0 || spoils(row, one)) {
      n--;
      continue;
    }
    if (one.length + bytes.length > 230) break;
    bytes.push(...one);
    names.push(row.mnemonic);
    if (leavesUndefined.test(row.mnemonic)) {
      bytes.push(...DEFINE_FLAGS);
      names.push('CMP');
    }
  }
  return { code: Uint8Array.from(bytes), names, image };
}
