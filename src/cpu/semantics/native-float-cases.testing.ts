/**
 * Sequences of x87, MMX and SSE instructions with a state that follows from a seed, for comparing with a host processor: the harness
 * (native-harness.c) executes them there, FlatMachine here. Both give an image of the same layout: FXSAVE (512 bytes), general
 * registers (128), RFLAGS (8), data (512), then the vector that ended the sequence (-1: none), its instruction's offset, and the upper
 * halves of the YMM registers (256).
 */
import { Decoder } from '../decode/decoder.ts';
import type { FlatMachine } from '../interpreter/flat-machine.testing.ts';
import type { Encoding } from '../isa/encoding.ts';
import { ENCODINGS } from '../isa/table.ts';
import { FPU_CW_AT, FPU_REGS, FPU_SW_AT, FPU_TAG_AT, GPR, MXCSR_AT, STATUS_BUDGET, XMM, XMM_SIZE } from '../state.ts';
import { DATA_ADDRESS, encode, generator } from './native-cases.testing.ts';

export const IMAGE_SIZE = 648 + 512;
const UPPER_AT = IMAGE_SIZE + 8;
/** An image with all that follows it. */
export const ANSWER_SIZE = UPPER_AT + 256;
const DATA_AT = 648;
const STATUS_FLAGS = 0x8d5n;
const CODE = 0x10000;

export interface FloatCase {
  readonly code: Uint8Array;
  /** Mnemonics, one an instruction. */
  readonly names: readonly string[];
  readonly image: Uint8Array;
}

/** Left out: state images, whose pointers are the host's, and what is compared by other means. */
const excluded = /^(DPP|FX(SAVE|RSTOR)|PREFETCH|MASKMOV|FNSAVE|FNSTENV|FLDENV|FRSTOR|RCP|RSQRT|FNSTSW)/;
const approximate = /^(F2XM1|FYL2X|FYL2XP1|FPTAN|FPATAN|FSIN|FCOS|FSINCOS)$/;
const isFloat = (row: Encoding): boolean =>
  row.meaning.kind === 'emit' &&
  !excluded.test(row.mnemonic) &&
  row.map < 4 &&
  (/^F|^WAIT$|^(LD|ST)MXCSR$|^EMMS$/.test(row.mnemonic) || row.operands.some((o) => o.file !== 'gpr'));
const ROWS = ENCODINGS.filter((row) => isFloat(row) && !approximate.test(row.mnemonic));
export const X87_ROWS = ROWS.filter((row) => row.mnemonic.startsWith('F') || row.mnemonic === 'WAIT');
export const SSE_ROWS = ROWS.filter((row) => !row.mnemonic.startsWith('F'));
export const TRANSCENDENTAL_ROWS = ENCODINGS.filter((row) => approximate.test(row.mnemonic));

type Next = () => number;
const big = (next: Next): bigint => (BigInt(next()) << 32n) | BigInt(next());

/** A number of `fraction` and `width` bits whose class and exponent are likely to matter. */
function small(next: Next, fraction: number, width: number): bigint {
  const most = 2 ** width - 1;
  const bias = (most - 1) / 2;
  const mask = (1n << BigInt(fraction)) - 1n;
  let low = big(next) & mask;
  if (next() % 4 === 0) low = (low >> BigInt(fraction - 8)) << BigInt(fraction - 8);
  let field: number;
  switch (next() % 12) {
    case 0:
      field = 0;
      if (next() % 2 === 0) low = 0n;
      break;
    case 1:
      field = most;
      if (next() % 2 === 0) low = 0n;
      break;
    case 2:
      field = 1 + (next() % 30);
      break;
    case 3:
      field = most - 1 - (next() % 30);
      break;
    case 4:
      field = 1 + (next() % (most - 1));
      break;
    default:
      field = bias - 16 + (next() % 48);
  }
  return (BigInt(next() & 1) << BigInt(fraction + width)) | (BigInt(field) << BigInt(fraction)) | low;
}
function extended(next: Next): readonly [bigint, number] {
  let low = big(next) | (1n << 63n);
  if (next() % 3 === 0) low = (low >> 56n) << 56n;
  if (next() % 8 === 0) low = (low >> 40n) << 40n;
  const sign = (next() & 1) << 15;
  switch (next() % 16) {
    case 0:
      return [0n, sign];
    case 1:
      return [next() % 3 === 0 ? low : low & ((1n << 63n) - 1n), sign];
    case 2:
      return [next() % 2 === 0 ? 1n << 63n : low, sign | 0x7fff];
    case 3:
      return [low & ((1n << 63n) - 1n), sign | (next() & 0x7fff)];
    case 4:
      return [low, sign | (1 + (next() % 70))];
    case 5:
      return [low, sign | (0x7ffe - (next() % 70))];
    case 6:
      return [low, sign | (next() & 0x7fff)];
    case 7:
      return [low, sign | (0x3fff - 1022 - 30 + (next() % 40))];
    default:
      return [low, sign | (0x3fff - 20 + (next() % 90))];
  }
}

/** The state before. RDI points into the data, RSI is small. */
function imageOf(next: Next): Uint8Array {
  const image = new Uint8Array(ANSWER_SIZE);
  const view = new DataView(image.buffer);
  const masks = next() % 3 === 0 ? next() & 0x3f : 0x3f;
  const control = 0x40 | masks | ((next() % 4) << 10) | (next() % 3 === 0 ? (next() % 4) << 8 : 0x300);
  view.setUint16(0, control, true);
  const flags = next() % 4 === 0 ? next() & 0x7f : 0;
  const pending = (flags & ~masks & 0x3f) !== 0 ? 0x8080 : 0;
  view.setUint16(2, flags | pending | (next() & 0x4700) | ((next() % 4 === 0 ? 0 : next() & 7) << 11), true);
  image[4] = next() % 3 === 0 ? next() & 0xff : next() % 4 === 0 ? 0 : 0xff;
  if (image[4] === 0xff && next() % 2 === 0)
    image[4] = 0xff & ~(1 << ((((view.getUint16(2, true) >> 11) & 7) + 7) & 7));
  const sseMasks = next() % 3 === 0 ? next() & 0x3f : 0x3f;
  const daz = next() % 4 === 0 ? next() & 0x8040 : 0;
  view.setUint32(24, (sseMasks << 7) | ((next() % 4) << 13) | daz | (next() % 2 === 0 ? 0x20 : next() & 0x3f), true);
  view.setUint32(28, 0xffff, true);
  for (let i = 0; i < 8; i++) {
    const [low, high] = extended(next);
    view.setBigUint64(32 + i * 16, low, true);
    view.setUint16(40 + i * 16, high, true);
  }
  const lanes = (at: number): void => {
    if (next() % 2 === 0) {
      view.setBigUint64(at, small(next, 52, 11), true);
      view.setBigUint64(at + 8, small(next, 52, 11), true);
    } else for (let i = 0; i < 16; i += 4) view.setUint32(at + i, Number(small(next, 23, 8)), true);
  };
  for (let i = 0; i < 16; i++) lanes(160 + i * 16);
  for (let i = 0; i < 16; i++) view.setBigUint64(512 + i * 8, next() % 2 === 0 ? big(next) : BigInt(next() % 40), true);
  view.setBigUint64(512 + 4 * 8, 0n, true);
  view.setBigUint64(512 + 6 * 8, BigInt(next() % 8), true);
  view.setBigUint64(512 + 7 * 8, BigInt(DATA_ADDRESS + 128), true);
  view.setBigUint64(640, BigInt((next() & 0x8d5) | 0x202), true);
  for (let i = 0; i < 512; i += 16) {
    if (next() % 3 !== 0) lanes(DATA_AT + i);
    else {
      const [low, high] = extended(next);
      view.setBigUint64(DATA_AT + i, low, true);
      view.setUint16(DATA_AT + i + 8, high, true);
    }
  }
  return image;
}

/** The state that goes with a seed. */
export function floatState(seed: number): { readonly next: () => number; readonly image: Uint8Array } {
  const next = generator(seed);
  for (let i = 0; i < 8; i++) next();
  const image = imageOf(next);
  upperHalves(generator(seed ^ 0x5a5a5a5a), new DataView(image.buffer));
  return { next, image };
}
function upperHalves(next: Next, view: DataView): void {
  for (let i = 0; i < 8; i++) next();
  for (let i = 0; i < 32; i++) {
    const value =
      i % 3 === 0 ? big(next) : i % 3 === 1 ? small(next, 52, 11) : small(next, 23, 8) | (small(next, 23, 8) << 32n);
    view.setBigUint64(UPPER_AT + i * 8, value, true);
  }
}

/** A case of one to `most` instructions of `rows`. */
export function floatCase(seed: number, rows: readonly Encoding[], most: number): FloatCase {
  const { next, image } = floatState(seed);
  const bytes: number[] = [];
  const names: string[] = [];
  const count = 1 + (next() % most);
  while (names.length < count) {
    const row = rows[next() % rows.length]!;
    const one = encode(row, next);
    // RDI stays where it is.
    if (one.length === 0 || one.length + bytes.length > 60 || writesBase(row, one)) continue;
    bytes.push(...one);
    names.push(row.mnemonic);
  }
  return { code: Uint8Array.from(bytes), names, image };
}
const decoder = new Decoder();
function writesBase(row: Encoding, bytes: readonly number[]): boolean {
  decoder.decode(Uint8Array.from(bytes), 0, bytes.length, 2);
  const first = row.operands[0];
  if (first === undefined || first.file !== 'gpr') return false;
  const register = first.place === 'reg' ? decoder.reg : decoder.rm;
  return (register === 7 * 8 || register === 6 * 8 || register === 4 * 8) && !row.mnemonic.startsWith('F');
}

/** Executes a case, its code at `at` in a code segment that begins at `base`, and answers the image afterwards. */
export function runHere(machine: FlatMachine, { code, names, image }: FloatCase, at = CODE, base = 0): Uint8Array {
  const { u8, i32, u64 } = machine.memory;
  const view = new DataView(image.buffer, image.byteOffset);
  i32[FPU_CW_AT >> 2] = view.getUint16(0, true);
  i32[FPU_SW_AT >> 2] = view.getUint16(2, true);
  i32[FPU_TAG_AT >> 2] = image[4]!;
  i32[MXCSR_AT >> 2] = view.getUint32(24, true);
  u8.set(image.subarray(32, 160), FPU_REGS);
  for (let i = 0; i < 16; i++) u8.set(image.subarray(160 + i * 16, 176 + i * 16), XMM + i * XMM_SIZE);
  for (let i = 0; i < 16; i++)
    u8.set(image.subarray(UPPER_AT + i * 16, UPPER_AT + i * 16 + 16), XMM + i * XMM_SIZE + 16);
  u8.set(image.subarray(512, 640), GPR);
  machine.load(DATA_ADDRESS, image.subarray(DATA_AT, DATA_AT + 512));
  // What follows goes nowhere.
  machine.load(at, [...code, 0xeb, 0xfe]);
  machine.interpreter.writeRflags(Number(view.getBigUint64(640, true)));
  machine.rip = at - base;
  const status = machine.run(names.length + 300);
  const after = new Uint8Array(ANSWER_SIZE);
  for (let i = 0; i < 16; i++)
    after.set(u8.subarray(XMM + i * XMM_SIZE + 16, XMM + i * XMM_SIZE + 32), UPPER_AT + i * 16);
  const out = new DataView(after.buffer);
  out.setUint16(0, i32[FPU_CW_AT >> 2]!, true);
  out.setUint16(2, i32[FPU_SW_AT >> 2]!, true);
  after[4] = i32[FPU_TAG_AT >> 2]!;
  out.setUint32(24, i32[MXCSR_AT >> 2]!, true);
  for (let i = 0; i < 8; i++) after.set(u8.subarray(FPU_REGS + i * 16, FPU_REGS + i * 16 + 10), 32 + i * 16);
  for (let i = 0; i < 16; i++) after.set(u8.subarray(XMM + i * XMM_SIZE, XMM + i * XMM_SIZE + 16), 160 + i * 16);
  for (let i = 0; i < 16; i++) out.setBigUint64(512 + i * 8, u64[(GPR >> 3) + i]!, true);
  out.setBigUint64(640, BigInt(machine.interpreter.readRflags() >>> 0), true);
  after.set(machine.bytes(DATA_ADDRESS, 512), DATA_AT);
  out.setInt32(IMAGE_SIZE, status === STATUS_BUDGET ? -1 : machine.faultVector, true);
  out.setInt32(IMAGE_SIZE + 4, status === STATUS_BUDGET ? 0 : machine.rip + base - at, true);
  return after;
}

/** What counts in an image: not the host's instruction pointers, RSP, reserved bytes and flags that are not status flags. */
export function counted(image: Uint8Array): Uint8Array {
  const kept = image.slice();
  for (const [from, to] of [
    [5, 24],
    [28, 32],
    [416, 512],
    [544, 552],
  ] as const) {
    kept.fill(0, from, to);
  }
  for (let i = 0; i < 8; i++) kept.fill(0, 42 + i * 16, 48 + i * 16);
  const view = new DataView(kept.buffer);
  view.setBigUint64(640, view.getBigUint64(640, true) & STATUS_FLAGS, true);
  return kept;
}

/** The case as the harness reads it. */
export function caseBytes({ code, image }: FloatCase): Uint8Array {
  const bytes = new Uint8Array(256 + IMAGE_SIZE + 256);
  bytes[0] = code.length;
  bytes.set(code, 1);
  bytes.set(image.subarray(0, IMAGE_SIZE), 256);
  bytes.set(image.subarray(UPPER_AT), 256 + IMAGE_SIZE);
  return bytes;
}

/** What two images differ in, by name; empty when they agree. The host's instruction pointers and RSP do not count. */
export function differences(ours: Uint8Array, host: Uint8Array): string[] {
  const a = new DataView(ours.buffer, ours.byteOffset);
  const b = new DataView(host.buffer, host.byteOffset);
  const wrong: string[] = [];
  const check = (name: string, x: bigint | number, y: bigint | number): void => {
    if (x !== y) wrong.push(`${name} ${x.toString(16)}, host ${y.toString(16)}`);
  };
  check('vector', a.getInt32(IMAGE_SIZE, true), b.getInt32(IMAGE_SIZE, true));
  check('at', a.getInt32(IMAGE_SIZE + 4, true), b.getInt32(IMAGE_SIZE + 4, true));
  check('fcw', a.getUint16(0, true), b.getUint16(0, true));
  check('fsw', a.getUint16(2, true), b.getUint16(2, true));
  check('tags', ours[4]!, host[4]!);
  check('mxcsr', a.getUint32(24, true), b.getUint32(24, true));
  for (let i = 0; i < 8; i++) {
    check(`st${i}`, a.getBigUint64(32 + i * 16, true), b.getBigUint64(32 + i * 16, true));
    check(`st${i} exponent`, a.getUint16(40 + i * 16, true), b.getUint16(40 + i * 16, true));
  }
  for (let i = 0; i < 32; i++) {
    check(`xmm${i >> 1}.${i & 1}`, a.getBigUint64(160 + i * 8, true), b.getBigUint64(160 + i * 8, true));
  }
  for (let i = 0; i < 32; i++) {
    check(
      `ymm${i >> 1}.${2 + (i & 1)}`,
      a.getBigUint64(UPPER_AT + i * 8, true),
      b.getBigUint64(UPPER_AT + i * 8, true),
    );
  }
  for (let i = 0; i < 16; i++) {
    if (i !== 4) check(`gpr${i}`, a.getBigUint64(512 + i * 8, true), b.getBigUint64(512 + i * 8, true));
  }
  check('flags', a.getBigUint64(640, true) & STATUS_FLAGS, b.getBigUint64(640, true) & STATUS_FLAGS);
  for (let i = 0; i < 64; i++) {
    check(`data${i}`, a.getBigUint64(DATA_AT + i * 8, true), b.getBigUint64(DATA_AT + i * 8, true));
  }
  return wrong;
}
