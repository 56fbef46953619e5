/**
 * Operands as the encoding table writes them: a letter for where, a letter for how large.
 *
 *   E ModRM.rm, register or memory     M memory only       R register only       G ModRM.reg      B VEX.vvvv
 *   Z the register in the opcode       I immediate         J relative target     O memory at an absolute offset
 *   A far pointer (immediate)          V XMM in reg        W XMM or memory       U XMM in rm only
 *   P MMX in reg                       Q MMX or memory     N MMX in rm only      S C D segment, control, debug register in reg
 *   H XMM in VEX.vvvv                  L XMM in the immediate's bits 7:4         X XMM as the index of the address (VSIB)
 *   AL, rAX, CL, DX, 1                 fixed
 *   b w d q x qq (1 2 4 8 16 32 bytes) v operand size      y operand size, at least 4       z immediate of at most 4 bytes
 *   +                                  an immediate that is not sign-extended
 */

/** Where an operand comes from in the decoded record; `extra` is a register number that the record keeps in its second immediate. */
export type OperandPlace =
  | 'rm'
  | 'reg'
  | 'vvvv'
  | 'imm'
  | 'rel'
  | 'far'
  | 'acc'
  | 'cl'
  | 'dx'
  | 'one'
  | 'sreg'
  | 'extra';

export interface OperandSpec {
  readonly text: string;
  readonly place: OperandPlace;
  /** Bytes; 0 for the operand size, -1 for the operand size but at least 4. */
  readonly size: number;
  /** Which forms of ModRM the operand allows. */
  readonly form: 'any' | 'memory' | 'register';
  readonly file: 'gpr' | 'xmm' | 'mmx';
  /** Bytes of the immediate: 0 for none, -1 for 2 or 4 by operand size, -2 for 2, 4 or 8. */
  readonly immediate: number;
  readonly unsigned: boolean;
}

const sizes: Readonly<Record<string, number>> = {
  b: 1,
  w: 2,
  d: 4,
  q: 8,
  x: 16,
  qq: 32,
  v: 0,
  y: -1,
  z: 0,
  p: 0,
  '': 0,
};
const places: Readonly<Record<string, OperandPlace>> = {
  E: 'rm',
  M: 'rm',
  R: 'rm',
  Z: 'rm',
  O: 'rm',
  W: 'rm',
  U: 'rm',
  Q: 'rm',
  N: 'rm',
  G: 'reg',
  V: 'reg',
  P: 'reg',
  C: 'reg',
  D: 'reg',
  B: 'vvvv',
  H: 'vvvv',
  L: 'extra',
  X: 'extra',
  I: 'imm',
  J: 'rel',
  A: 'far',
  S: 'sreg',
}; // prettier-ignore
const fixed: Readonly<Record<string, readonly [OperandPlace, number]>> = {
  AL: ['acc', 1],
  rAX: ['acc', 0],
  CL: ['cl', 1],
  DX: ['dx', 2],
  '1': ['one', 1],
}; // prettier-ignore

/** Reads one operand of a table row. */
export function parseOperand(text: string): OperandSpec {
  const known = fixed[text];
  if (known !== undefined) {
    return { text, place: known[0], size: known[1], form: 'any', file: 'gpr', immediate: 0, unsigned: false };
  }
  const letter = text[0]!;
  const sizeLetter = text.slice(1).replace('+', '');
  const place = places[letter];
  const size = sizes[sizeLetter];
  if (place === undefined || size === undefined) throw new Error(`operand ${text}`);
  const immediateSizes: Readonly<Record<string, number>> = { b: 1, w: 2, d: 4, z: -1, v: -2, p: -1 };
  return {
    text,
    place,
    size,
    form: 'MO'.includes(letter) ? 'memory' : 'RZUN'.includes(letter) ? 'register' : 'any',
    file: 'VWUHLX'.includes(letter) ? 'xmm' : 'PQN'.includes(letter) ? 'mmx' : 'gpr',
    immediate: 'IJA'.includes(letter) ? immediateSizes[sizeLetter]! : 0,
    unsigned: text.endsWith('+'),
  };
}
