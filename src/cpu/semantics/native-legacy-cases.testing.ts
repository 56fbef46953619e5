/**
 * Random sequences of 16-bit and 32-bit code for comparing with a host processor (native-legacy-harness.c), as
 * native-sequences.testing.ts has them for 64-bit code. 32-bit segments are flat; in 16-bit code the code segment begins at the code and
 * the others at the data, with limits of 64 KiB. (E)DI points into the data, (E)SI is small, (E)SP has a page of its own.
 */
import { CS } from '../../arch/registers.ts';
import { DECODE_OK, Decoder } from '../decode/decoder.ts';
import type { FlatMachine } from '../interpreter/flat-machine.testing.ts';
import type { Encoding } from '../isa/encoding.ts';
import { ENCODINGS } from '../isa/table.ts';
import { SEG, SEG_SIZE } from '../state.ts';
import { DATA_ADDRESS } from './native-cases.testing.ts';
import {
  counted,
  type FloatCase,
  floatState,
  IMAGE_SIZE,
  runHere,
  SSE_ROWS,
  X87_ROWS,
} from './native-float-cases.testing.ts';
import { VEX_ROWS } from './native-sequences.testing.ts';

type Next = () => number;
export type LegacyBits = 16 | 32;
const UPPER_AT = IMAGE_SIZE + 8;
const GPR_AT = 512;
const [BX, SP, BP, SI, DI] = [3, 4, 5, 6, 7];
const ESP = SP * 8;
/** Registers that sequences leave alone. */
const kept = [ESP, SI * 8, DI * 8];

/** Left out: stack, transfers and strings, which `special` gives; state images and what needs special addresses. */
const excluded =
  /^(PUSH|POP[^C]|POP$|CALL|RET|J|LOOP|ENTER|LEAVE|XLATB|PREFETCH|NOP|CMPXCHG8B|F|V|LDMXCSR|STMXCSR|EMMS|WAIT|STD)/;
const exists = (row: Encoding): boolean => !row.options.has('o64') && !row.options.has('vsib');
const isVector = (row: Encoding): boolean => row.operands.some((o) => o.file !== 'gpr');
export const LEGACY_INTEGER_ROWS = ENCODINGS.filter(
  (row) => row.meaning.kind === 'emit' && exists(row) && !isVector(row) && !excluded.test(row.mnemonic),
);
export const LEGACY_ROWS = [
  ...LEGACY_INTEGER_ROWS,
  ...LEGACY_INTEGER_ROWS,
  ...[...X87_ROWS, ...SSE_ROWS, ...VEX_ROWS].filter(exists),
];

/** Flags that are not defined after an instruction: they are defined again before anything reads them. */
const leavesUndefined =
  /^(SH|SA)[LR]D?$|^R[OC][LR]$|^I?MUL$|^I?DIV$|^BS[FR]$|^BT[SRC]?$|^[TL]ZCNT$|^(ANDN|BLS.*|BZHI|BEXTR)$|^(AND|OR|XOR|TEST)$|^[AD]A[ASMD]$/;
const DEFINE_FLAGS = [0x39, 0xd1];

const number16 = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff];
const address = (value: number, bits: LegacyBits): number[] =>
  bits === 16 ? number16(value) : [...number16(value), (DATA_ADDRESS >> 16) & 0xff, 0];

/** The state that goes with a seed. */
export function legacyState(seed: number, bits: LegacyBits): { readonly next: Next; readonly image: Uint8Array } {
  const { next, image } = floatState(seed);
  const view = new DataView(image.buffer);
  const set = (n: number, value: number): void => view.setBigUint64(GPR_AT + n * 8, BigInt(value >>> 0), true);
  for (let n = 0; n < 16; n++) set(n, n < 8 ? view.getUint32(GPR_AT + n * 8, true) : 0);
  const data = bits === 16 ? 0 : DATA_ADDRESS;
  set(SP, data + 0x1800);
  set(DI, data + 128);
  if (next() % 2 === 0) set(1, next() % 70);
  if (bits === 16 && next() % 2 === 0) set(BX, next() % 200);
  if (bits === 16 && next() % 2 === 0) set(BP, next() % 200);
  image.fill(0, UPPER_AT + 128);
  return { next, image };
}

const decoder = new Decoder();

/** ModRM with all that follows, of a memory operand. */
function memoryOperand(reg: number, next: Next, wide: boolean): number[] {
  const disp = (next() % 6) * 16;
  const r = reg << 3;
  if (wide) {
    return next() % 2 === 0 ? [0x40 | r | 7, disp] : [0x44 | r, ((next() % 4) << 6) | (SI << 3) | DI, disp];
  }
  switch (next() % 8) {
    case 0:
      return [0x06 | r, ...number16(disp + 64)];
    case 1:
      return [0x44 | r, disp];
    case 2:
      return [0x80 | r | 5, ...number16(disp)];
    case 3:
      return [0x40 | r | (next() % 4), disp];
    case 4:
      return [0x46 | r, disp];
    default:
      return [0x45 | r, disp];
  }
}

/** A random encoding of `row`; empty when the dice gave nothing usable. */
function encode(row: Encoding, next: Next, bits: LegacyBits): number[] {
  const bytes: number[] = [];
  const absolute = row.operands.some((o) => o.text[0] === 'O');
  let wide = bits === 32;
  if (row.map >= 4) {
    const pp = ['NP', '66', 'F3', 'F2'].indexOf(row.prefix);
    const vvvv = row.operands.some((o) => o.place === 'vvvv') ? 8 | (next() & 7) : 15;
    const w = row.w >= 0 ? row.w : next() & 1;
    const l = row.l >= 0 ? row.l : next() & 1;
    if (row.map === 5 && w === 0 && next() % 2 === 0) bytes.push(0xc5, 0x80 | (vvvv << 3) | (l << 2) | pp);
    else bytes.push(0xc4, 0xe0 | (row.map - 4), (w << 7) | (vvvv << 3) | (l << 2) | pp);
  } else {
    if (next() % 20 === 0) bytes.push([0x26, 0x36, 0x3e, bits === 32 ? 0x2e : 0x3e][next() % 4]!);
    if (row.size === 0 && next() % 3 === 0 && ['', 'F3', 'F2'].includes(row.prefix)) bytes.push(0x66);
    if (bits === 16 && row.hasModrm && next() % 5 === 0) {
      bytes.push(0x67);
      wide = true;
    }
    bytes.push(...{ '': [], NP: [], NR: [], '66': [0x66], F3: [0xf3], F2: [0xf2] }[row.prefix]);
    if (row.map > 0) bytes.push(0x0f);
    if (row.map > 1) bytes.push(row.map === 2 ? 0x38 : 0x3a);
  }
  bytes.push(row.opcode + (row.span === 8 ? next() & 7 : 0));
  if (row.hasModrm) {
    const memory = row.form === 'memory' || (row.form === 'any' && next() % 3 === 0);
    const bitString = row.options.has('bits') && memory;
    const reg = row.digit >= 0 ? row.digit : bitString ? SI : next() & 7;
    if (row.literal >= 0) bytes.push(row.literal);
    else if (memory) bytes.push(...memoryOperand(reg, next, wide));
    else bytes.push(0xc0 | (reg << 3) | (next() & 7));
  } else if (absolute) bytes.push(...address((next() % 16) * 16, bits));
  for (let i = 0; i < 8; i++) bytes.push(next() & 0xff);
  const mode = bits === 32 ? 1 : 0;
  if (decoder.decode(Uint8Array.from(bytes), 0, bytes.length, mode) !== DECODE_OK || decoder.row !== row) return [];
  const memory = (decoder.flags & 8) !== 0;
  if (row.options.has('bits') && memory && decoder.reg !== SI * 8) return [];
  const general = row.operands.some((o) => o.file === 'gpr' && o.place !== 'imm' && o.form !== 'memory');
  if (general && (decoder.reg === ESP || (!memory && decoder.rm === ESP) || decoder.vvvv === ESP)) return [];
  return spoils(row) ? [] : bytes.slice(0, decoder.length);
}

/** Whether the instruction just decoded writes a register that is kept. */
function spoils(row: Encoding): boolean {
  const memory = (decoder.flags & 8) !== 0;
  const both = /^(XCHG|XADD|MULX)$/.test(row.mnemonic);
  return row.operands.slice(0, both ? 2 : 1).some((operand) => {
    if (operand.file !== 'gpr' || (memory && operand.place === 'rm')) return false;
    const place = { reg: decoder.reg, vvvv: decoder.vvvv, rm: decoder.rm }[operand.place as 'reg' | 'vvvv' | 'rm'];
    return place !== undefined && kept.includes(place & ~7);
  });
}

interface Piece {
  readonly code: number[];
  readonly count: number;
  readonly name: string;
}

/** Pieces that no row gives by itself: stack, branches, strings. */
function special(next: Next, bits: LegacyBits): Piece {
  const low = (): number => [0, 1, 2, 3, 5][next() % 5]!;
  const size = next() % 3 === 0 ? [0x66] : [];
  const bytes = (bits === 16) === (size.length === 0) ? 2 : 4;
  const add = (): number[] => [0x83, 0xc0 | low(), next() & 0x7f];
  switch (next() % 9) {
    case 0:
      return { code: [...size, 0x50 + low(), ...size, 0x58 + low()], count: 2, name: 'PUSH POP' };
    case 1: {
      const value = Array.from({ length: bytes }, () => next() & 0xff);
      const push = next() % 2 === 0 ? [0x68, ...value] : [0x6a, next() & 0xff];
      return { code: [...size, ...push, ...size, 0x58 + low()], count: 2, name: 'PUSHI POP' };
    }
    case 2: {
      // call +2; jmp +1; ret
      const call = bits === 16 ? [0xe8, 2, 0] : [0xe8, 2, 0, 0, 0];
      return { code: [...call, 0xeb, 1, 0xc3], count: 3, name: 'CALL RET JMP' };
    }
    case 3:
      return { code: [0x70 | (next() & 15), 3, ...add()], count: 2, name: 'Jcc ADD' };
    case 4:
      return {
        code: [0xc8, (next() & 15) * 8, 0, next() % (bits === 16 ? 3 : 2), 0xc9],
        count: 2,
        name: 'ENTER LEAVE',
      };
    case 5:
      return { code: [...size, 0x60, ...size, 0x61], count: 2, name: 'PUSHA POPA' };
    case 6: {
      const prefix = next() % 3 === 0 ? [0x67] : [];
      return { code: [...prefix, 0xe0 | (next() & 3), 3, ...add()], count: 2, name: 'LOOP ADD' };
    }
    case 7:
      return { code: [0xbb, ...address(0x40, bits), 0xd7], count: 2, name: 'XLAT' };
    default: {
      const opcode = [0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf][next() % 10]!;
      const prefix = [[], [0xf3], [0xf2]][next() % 3]!;
      const direction = next() % 2 === 0 ? 0xfc : 0xfd;
      // and (e)cx, 7; (r)si and (r)di into the data, and back where they were
      const code = [
        ...[0x83, 0xe1, 7, direction],
        ...[0xbe, ...address(0xc0, bits)],
        ...[...size, ...prefix, opcode],
        ...[0xfc, 0xbf, ...address(0x80, bits), 0xbe, ...(bits === 16 ? [next() & 7, 0] : [next() & 7, 0, 0, 0])],
        ...DEFINE_FLAGS,
      ];
      return { code, count: 16, name: 'string' };
    }
  }
}

/** A case of one to `most` instructions of `rows`, with stack, branches and strings among them. */
export function legacyCase(seed: number, rows: readonly Encoding[], most: number, bits: LegacyBits): FloatCase {
  const { next, image } = legacyState(seed, bits);
  const bytes: number[] = [];
  const names: string[] = [];
  const count = 1 + (next() % most);
  for (let n = 0; n < count; n++) {
    if (most > 1 && next() % 6 === 0) {
      const piece = special(next, bits);
      if (bytes.length + piece.code.length > 230) break;
      bytes.push(...piece.code);
      for (let i = 0; i < piece.count; i++) names.push(piece.name);
      continue;
    }
    const row = rows[next() % rows.length]!;
    const one = encode(row, next, bits);
    if (one.length === 0) {
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

const NOTHING = new Uint8Array(0x2000);

/** Executes a case on a machine in the mode of `bits`, its code at linear address `at`. */
export function runLegacy(machine: FlatMachine, one: FloatCase, at: number, bits: LegacyBits): Uint8Array {
  machine.load(DATA_ADDRESS, NOTHING);
  if (bits === 32) return runHere(machine, one, at);
  const { i32 } = machine.memory;
  for (let segment = 0; segment < 4; segment++) {
    i32[(SEG + segment * SEG_SIZE) >> 2] = segment === CS ? at : DATA_ADDRESS;
  }
  return runHere(machine, one, at, at);
}

/** What counts in an answer: as for 64-bit code, of the eight registers that there are. */
export function legacyCounted(answer: Uint8Array): Uint8Array {
  const bytes = counted(answer);
  for (let n = 0; n < 8; n++) bytes.fill(0, GPR_AT + n * 8 + 4, GPR_AT + n * 8 + 8);
  bytes.fill(0, GPR_AT + 64, GPR_AT + 128);
  bytes.fill(0, 160 + 128, 160 + 256);
  bytes.fill(0, UPPER_AT + 128, UPPER_AT + 256);
  return bytes;
}
