/** One instruction as text, from the encoding table: for reports, in the order of operands that Intel's manuals have. */
import { numberOf } from '../../arch/halves.ts';
import { FS } from '../../arch/registers.ts';
import type { OperandSpec } from '../isa/operands.ts';
import { DECODE_MORE, DECODE_OK, Decoder } from './decoder.ts';
import {
  BASE_RIP,
  RECORD_HAS_LOCK,
  RECORD_HAS_MEMORY,
  RECORD_HAS_REP,
  RECORD_HAS_REPNE,
  RECORD_HAS_SEGMENT,
  REGISTER_NONE,
} from './record.ts';

const WORD_NAMES = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'];
const LOW_BYTES = ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil'];
const HIGH_BYTES = ['ah', 'ch', 'dh', 'bh'];
const SEGMENT_NAMES = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'segment 6', 'segment 7'];
const SIZE_NAMES: Readonly<Record<number, string>> = { 1: 'byte', 2: 'word', 4: 'dword', 8: 'qword', 16: 'xmmword' };

/** A general register by its byte offset in the file. */
function gprName(offset: number, size: number): string {
  const n = offset >> 3;
  if (size === 1 && (offset & 7) !== 0) return HIGH_BYTES[n]!;
  if (n >= 8) return `r${n}${size === 8 ? '' : size === 4 ? 'd' : size === 2 ? 'w' : 'b'}`;
  if (size === 1) return LOW_BYTES[n]!;
  return `${size === 8 ? 'r' : size === 4 ? 'e' : ''}${WORD_NAMES[n]!}`;
}

/** Hexadecimal digits of the low `size` bytes of two halves. */
function hex(lo: number, hi: number, size: number): string {
  if (size < 4) return `0x${(lo & (size === 1 ? 0xff : 0xffff)).toString(16)}`;
  const low = (lo >>> 0).toString(16);
  return size === 8 && hi !== 0 ? `0x${(hi >>> 0).toString(16)}${low.padStart(8, '0')}` : `0x${low}`;
}

/** `hex` of a sum of 64 bits. */
function sum(aLo: number, aHi: number, bLo: number, bHi: number, size: number): string {
  const low = (aLo >>> 0) + (bLo >>> 0);
  return hex(low | 0, (aHi + bHi + (low >= 0x1_0000_0000 ? 1 : 0)) | 0, size);
}

export interface Disassembled {
  /** Bytes; 0 when there are not enough of them. */
  readonly length: number;
  readonly text: string;
}

/**
 * Disassembles the bytes from `start` on as code of `mode` (0, 1, 2: 16, 32, 64 bits) at address `ripHi:ripLo`. What is no instruction
 * here is called `(bad)`.
 */
export function disassemble(
  bytes: Uint8Array,
  start: number,
  mode: number,
  ripLo: number,
  ripHi: number,
): Disassembled {
  const d = new Decoder();
  const status = d.decode(bytes, start, bytes.length, mode);
  if (status === DECODE_MORE) return { length: 0, text: '(cut off)' };
  const { row } = d;
  // The table has what can be executed; this one is there to be refused.
  if (bytes[start] === 0x0f && bytes[start + 1] === 0x0b) return { length: 2, text: 'ud2' };
  if (status !== DECODE_OK || row === undefined) return { length: Math.max(1, d.length), text: '(bad)' };
  const addressSize = mode === 2 ? 8 : mode === 1 ? 4 : 2;
  const size = (o: OperandSpec): number =>
    o.size === 0 ? d.operandSize : o.size === -1 ? Math.max(4, d.operandSize) : o.size;

  const memory = (o: OperandSpec): string => {
    const named = (d.flags & RECORD_HAS_SEGMENT) !== 0 || d.segment >= FS ? `${SEGMENT_NAMES[d.segment]!}:` : '';
    const parts: string[] = [];
    if (d.base === BASE_RIP) parts.push(sum(ripLo, ripHi, d.dispLo, d.dispHi, 8));
    else {
      if (d.base !== REGISTER_NONE) parts.push(gprName(d.base, d.addressSize));
      if (d.index !== REGISTER_NONE)
        parts.push(`${gprName(d.index, d.addressSize)}${d.scale === 0 ? '' : `*${1 << d.scale}`}`);
      if (parts.length === 0) parts.push(hex(d.dispLo, d.dispHi, d.addressSize));
      else if (d.dispLo !== 0) parts.push(d.dispHi < 0 ? `-${hex(-d.dispLo, 0, 4)}` : hex(d.dispLo, 0, 4));
    }
    const kind = row.mnemonic === 'LEA' ? '' : SIZE_NAMES[size(o)];
    const text = `${named}[${parts.join('+').replace('+-', '-')}]`;
    return kind === undefined || kind === '' ? text : `${kind} ${text}`;
  };
  const register = (o: OperandSpec, offset: number): string => {
    if (o.file === 'xmm') return `xmm${offset >> 3}`;
    if (o.file === 'mmx') return `mm${(offset >> 3) & 7}`;
    if (o.text[0] === 'C') return `cr${offset >> 3}`;
    if (o.text[0] === 'D') return `dr${offset >> 3}`;
    return gprName(offset, size(o));
  };
  const operand = (o: OperandSpec): string => {
    switch (o.place) {
      case 'rm':
        return (d.flags & RECORD_HAS_MEMORY) !== 0 ? memory(o) : register(o, d.rm);
      case 'reg':
        return register(o, d.reg);
      case 'vvvv':
        return register(o, d.vvvv);
      case 'imm':
        return hex(d.immLo, d.immHi, o.immediate === 1 && size(o) > 1 && d.immHi === 0 ? 4 : size(o));
      case 'rel':
        return sum(ripLo, ripHi, d.immLo, d.immHi, addressSize);
      case 'far':
        return `${hex(d.imm2, 0, 2)}:${hex(d.immLo, 0, d.operandSize === 2 ? 2 : 4)}`;
      case 'acc':
        return gprName(0, size(o));
      case 'cl':
        return 'cl';
      case 'dx':
        return 'dx';
      case 'one':
        return '1';
      default:
        return SEGMENT_NAMES[(d.reg >> 3) & 7]!;
    }
  };
  const lock = (d.flags & RECORD_HAS_LOCK) !== 0 ? 'lock ' : '';
  const repeats = row.meaning.kind === 'string' && (d.flags & (RECORD_HAS_REP | RECORD_HAS_REPNE)) !== 0;
  const repeat = repeats ? ((d.flags & RECORD_HAS_REP) !== 0 ? 'rep ' : 'repne ') : '';
  const operands = row.operands.map(operand).join(', ');
  const text = `${lock}${repeat}${row.mnemonic.toLowerCase()}${operands === '' ? '' : ` ${operands}`}`;
  return { length: d.length, text };
}

/** A line for each of at most `count` instructions: address, bytes, text. */
export function listing(bytes: Uint8Array, mode: number, ripLo: number, ripHi: number, count: number): string[] {
  const lines: string[] = [];
  let at = 0;
  for (let n = 0; n < count && at < bytes.length; n++) {
    const low = (ripLo >>> 0) + at;
    const [lo, hi] = [low | 0, (ripHi + (low >= 0x1_0000_0000 ? 1 : 0)) | 0];
    const { length, text } = disassemble(bytes, at, mode, lo, hi);
    if (length === 0) break;
    const code = [...bytes.subarray(at, at + length)].map((b) => b.toString(16).padStart(2, '0')).join(' ');
    lines.push(`${addressText(lo, hi)}  ${code.padEnd(24)} ${text}`);
    at += length;
  }
  return lines;
}

/** An address as hexadecimal text. */
export const addressText = (lo: number, hi: number): string =>
  hi < 0 ? hex(lo, hi, 8) : `0x${numberOf(lo, hi).toString(16)}`;
