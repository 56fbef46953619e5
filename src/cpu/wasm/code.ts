/**
 * WebAssembly expressions as nested byte lists. An expression is the code that leaves one value on the stack; operators take their
 * operands in order and append their opcode, so that emitters read like formulas. Types are checked by TypeScript alone.
 */

/** Bytes of code, nested as they were put together; flattened once, when the module is written. */
export type Code = readonly (number | Code)[];
declare const type: unique symbol;
/** Code that leaves one i32 (i64) on the stack. */
export type I32 = Code & { readonly [type]?: 'i32' };
export type I64 = Code & { readonly [type]?: 'i64' };

export const T_I32 = 0x7f;
export const T_I64 = 0x7e;
export const T_VOID = 0x40;

const smallUleb = new Array<Code | undefined>(0x4000).fill(undefined);
/** Unsigned LEB128 of a non-negative integer below 2^32. */
export function uleb(value: number): Code {
  if (value < 0x4000) {
    const known = smallUleb[value] ?? encodeUleb(value);
    smallUleb[value] = known;
    return known;
  }
  return encodeUleb(value);
}
function encodeUleb(value: number): Code {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest % 128;
    rest = Math.floor(rest / 128);
    bytes.push(rest === 0 ? low : low | 0x80);
  } while (rest !== 0);
  return bytes;
}

/** Most constants are small: made once. */
const SMALL_SLEB = 0x1000;
const smallSleb = new Array<Code | undefined>(2 * SMALL_SLEB).fill(undefined);
/** Signed LEB128 of an integer that a double holds exactly. */
export function sleb(value: number): Code {
  if (value < -SMALL_SLEB || value >= SMALL_SLEB) return encodeSleb(value);
  const known = smallSleb[value + SMALL_SLEB] ?? encodeSleb(value);
  smallSleb[value + SMALL_SLEB] = known;
  return known;
}
function encodeSleb(value: number): Code {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const low = ((rest % 128) + 128) % 128;
    rest = Math.floor(rest / 128);
    const done = (rest === 0 && low < 64) || (rest === -1 && low >= 64);
    bytes.push(done ? low : low | 0x80);
    if (done) return bytes;
  }
}

const op1 = (opcode: number) => (a: Code) => [a, opcode];
const op2 = (opcode: number) => (a: Code, b: Code) => [a, b, opcode];
const load =
  (opcode: number) =>
  (address: I32, offset = 0): Code => [address, opcode, 0, uleb(offset)];
const store =
  (opcode: number) =>
  (address: I32, offset: number, value: Code): Code => [address, value, opcode, 0, uleb(offset)];

type Un<A, R> = (a: A) => R;
type Bin<A, R> = (a: A, b: A) => R;
type Load<R> = (address: I32, offset?: number) => R;
type Store<A> = (address: I32, offset: number, value: A) => Code;

export const i32 = {
  const: (value: number): I32 => [0x41, sleb(value | 0)],
  eqz: op1(0x45) as Un<I32, I32>,
  eq: op2(0x46) as Bin<I32, I32>,
  ne: op2(0x47) as Bin<I32, I32>,
  ltS: op2(0x48) as Bin<I32, I32>,
  ltU: op2(0x49) as Bin<I32, I32>,
  gtS: op2(0x4a) as Bin<I32, I32>,
  gtU: op2(0x4b) as Bin<I32, I32>,
  leS: op2(0x4c) as Bin<I32, I32>,
  leU: op2(0x4d) as Bin<I32, I32>,
  geU: op2(0x4f) as Bin<I32, I32>,
  popcnt: op1(0x69) as Un<I32, I32>,
  add: op2(0x6a) as Bin<I32, I32>,
  sub: op2(0x6b) as Bin<I32, I32>,
  mul: op2(0x6c) as Bin<I32, I32>,
  divU: op2(0x6e) as Bin<I32, I32>,
  and: op2(0x71) as Bin<I32, I32>,
  or: op2(0x72) as Bin<I32, I32>,
  xor: op2(0x73) as Bin<I32, I32>,
  shl: op2(0x74) as Bin<I32, I32>,
  shrS: op2(0x75) as Bin<I32, I32>,
  shrU: op2(0x76) as Bin<I32, I32>,
  wrap: op1(0xa7) as Un<I64, I32>,
  load: load(0x28) as Load<I32>,
  load8U: load(0x2d) as Load<I32>,
  load16U: load(0x2f) as Load<I32>,
  store: store(0x36) as Store<I32>,
  store8: store(0x3a) as Store<I32>,
  store16: store(0x3b) as Store<I32>,
  /** `condition ? a : b`, both evaluated. */
  select: (condition: I32, a: I32, b: I32): I32 => [a, b, condition, 0x1b],
} as const;

export const i64 = {
  const: (value: number): I64 => [0x42, sleb(value)],
  eqz: op1(0x50) as Un<I64, I32>,
  eq: op2(0x51) as Bin<I64, I32>,
  ne: op2(0x52) as Bin<I64, I32>,
  ltS: op2(0x53) as Bin<I64, I32>,
  ltU: op2(0x54) as Bin<I64, I32>,
  gtS: op2(0x55) as Bin<I64, I32>,
  gtU: op2(0x56) as Bin<I64, I32>,
  leS: op2(0x57) as Bin<I64, I32>,
  leU: op2(0x58) as Bin<I64, I32>,
  geU: op2(0x5a) as Bin<I64, I32>,
  clz: op1(0x79) as Un<I64, I64>,
  ctz: op1(0x7a) as Un<I64, I64>,
  popcnt: op1(0x7b) as Un<I64, I64>,
  add: op2(0x7c) as Bin<I64, I64>,
  sub: op2(0x7d) as Bin<I64, I64>,
  mul: op2(0x7e) as Bin<I64, I64>,
  divS: op2(0x7f) as Bin<I64, I64>,
  divU: op2(0x80) as Bin<I64, I64>,
  remS: op2(0x81) as Bin<I64, I64>,
  remU: op2(0x82) as Bin<I64, I64>,
  and: op2(0x83) as Bin<I64, I64>,
  or: op2(0x84) as Bin<I64, I64>,
  xor: op2(0x85) as Bin<I64, I64>,
  shl: op2(0x86) as Bin<I64, I64>,
  shrS: op2(0x87) as Bin<I64, I64>,
  shrU: op2(0x88) as Bin<I64, I64>,
  rotl: op2(0x89) as Bin<I64, I64>,
  rotr: op2(0x8a) as Bin<I64, I64>,
  extendS: op1(0xac) as Un<I32, I64>,
  extendU: op1(0xad) as Un<I32, I64>,
  extend8S: op1(0xc2) as Un<I64, I64>,
  extend16S: op1(0xc3) as Un<I64, I64>,
  extend32S: op1(0xc4) as Un<I64, I64>,
  load: load(0x29) as Load<I64>,
  load8S: load(0x30) as Load<I64>,
  load8U: load(0x31) as Load<I64>,
  load16S: load(0x32) as Load<I64>,
  load16U: load(0x33) as Load<I64>,
  load32S: load(0x34) as Load<I64>,
  load32U: load(0x35) as Load<I64>,
  store: store(0x37) as Store<I64>,
  store8: store(0x3c) as Store<I64>,
  store16: store(0x3d) as Store<I64>,
  store32: store(0x3e) as Store<I64>,
  select: (condition: I32, a: I64, b: I64): I64 => [a, b, condition, 0x1b],
  not: (a: I64): I64 => i64.xor(a, i64.const(-1)),
} as const;

/** memory.copy and memory.fill. */
export const memoryCopy = (to: I32, from: I32, bytes: I32): Code => [to, from, bytes, 0xfc, 10, 0, 0];
export const memoryFill = (to: I32, value: I32, bytes: I32): Code => [to, value, bytes, 0xfc, 11, 0];

/** Code that leaves one 128-bit vector. */
export type V128 = Code & { readonly [type]?: 'v128' };
const vectorOp = (opcode: number): Code => [0xfd, uleb(opcode)];

export const v128 = {
  load: (address: I32, offset = 0): V128 => [address, vectorOp(0), 0, uleb(offset)],
  /** Loads 4 or 8 bytes, the rest zero. */
  load32Zero: (address: I32, offset = 0): V128 => [address, vectorOp(92), 0, uleb(offset)],
  load64Zero: (address: I32, offset = 0): V128 => [address, vectorOp(93), 0, uleb(offset)],
  store: (address: I32, offset: number, value: V128): Code => [address, value, vectorOp(11), 0, uleb(offset)],
  /** Stores the low 8 bytes. */
  store64: (address: I32, offset: number, value: V128): Code => [address, value, vectorOp(91), 0, uleb(offset), 0],
  shuffle: (a: V128, b: V128, lanes: readonly number[]): V128 => [a, b, vectorOp(13), [...lanes]],
  /** A binary operation by its number in the SIMD opcode space. */
  binary:
    (opcode: number) =>
    (a: V128, b: V128): V128 => [a, b, vectorOp(opcode)],
  unary:
    (opcode: number) =>
    (a: V128): V128 => [a, vectorOp(opcode)],
  /** A shift of every lane by a count. */
  shift:
    (opcode: number) =>
    (a: V128, count: I32): V128 => [a, count, vectorOp(opcode)],
  /** The top bits of the sixteen bytes. */
  byteMask: (a: V128): I32 => [a, vectorOp(100)],
  const: (bytes: readonly number[]): V128 => [vectorOp(12), [...bytes]],
  /** Bits of `a` where `mask` is set, else of `b`. */
  select: (a: V128, b: V128, mask: V128): V128 => [a, b, mask, vectorOp(82)],
  /** A lane of `bytes` (1, 2, 4: the low bytes of an i32; 8: an i64) in all lanes. */
  splat: (bytes: 1 | 2 | 4 | 8, value: Code): V128 => [value, vectorOp({ 1: 15, 2: 16, 4: 17, 8: 18 }[bytes])],
  zero: (): V128 => [vectorOp(12), new Array<number>(16).fill(0)],
} as const;

/** Loads `size` bytes (1, 2, 4, 8) sign-extended. */
export function loadSigned(size: number, address: I32, offset = 0): I64 {
  if (size === 1) return i64.load8S(address, offset);
  if (size === 2) return i64.load16S(address, offset);
  return size === 4 ? i64.load32S(address, offset) : i64.load(address, offset);
}
/** Loads `size` bytes (1, 2, 4, 8) zero-extended. */
export function loadUnsigned(size: number, address: I32, offset = 0): I64 {
  if (size === 1) return i64.load8U(address, offset);
  if (size === 2) return i64.load16U(address, offset);
  return size === 4 ? i64.load32U(address, offset) : i64.load(address, offset);
}
/** Stores the low `size` bytes (1, 2, 4, 8). */
export function storeSized(size: number, address: I32, offset: number, value: I64): Code {
  if (size === 1) return i64.store8(address, offset, value);
  if (size === 2) return i64.store16(address, offset, value);
  return size === 4 ? i64.store32(address, offset, value) : i64.store(address, offset, value);
}
/** Sign-extends from the low `size` bytes. */
export function signExtend(size: number, value: I64): I64 {
  if (size === 1) return i64.extend8S(value);
  if (size === 2) return i64.extend16S(value);
  return size === 4 ? i64.extend32S(value) : value;
}
/** Zero-extends from the low `size` bytes. */
export function zeroExtend(size: number, value: I64): I64 {
  if (size === 1) return i64.and(value, i64.const(0xff));
  if (size === 2) return i64.and(value, i64.const(0xffff));
  return size === 4 ? i64.extendU(i32.wrap(value)) : value;
}

let scratch = new Uint8Array(0x10000);

function write(code: Code, at: number): number {
  let end = at;
  for (let i = 0; i < code.length; i++) {
    const part = code[i]!;
    if (typeof part !== 'number') end = write(part, end);
    else {
      if (end === scratch.length) {
        const larger = new Uint8Array(2 * end);
        larger.set(scratch);
        scratch = larger;
      }
      scratch[end++] = part;
    }
  }
  return end;
}

/** The bytes of `code` in order. */
export function flatten(code: Code): Uint8Array {
  return scratch.slice(0, write(code, 0));
}
