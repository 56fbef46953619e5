/** One row of the encoding table, parsed. */
import type { MachineEmitter } from '../semantics/machine-context.ts';
import type { StringKind } from '../semantics/strings.ts';
import type { Feature } from './features.ts';
import { type OperandSpec, parseOperand } from './operands.ts';

/** What executes a row. */
export type Meaning =
  | { readonly kind: 'emit'; readonly emit: MachineEmitter }
  | { readonly kind: 'system'; readonly op: number }
  | { readonly kind: 'string'; readonly string: StringKind };

/** Opcode maps: one-byte, 0F, 0F 38, 0F 3A; the VEX ones are 4 higher. */
export const MAP_VEX = 4;
export const MAPS = 8;

export interface Encoding {
  readonly id: number;
  readonly text: string;
  readonly mnemonic: string;
  readonly operands: readonly OperandSpec[];
  readonly meaning: Meaning;
  readonly map: number;
  readonly opcode: number;
  /** How many opcodes the row covers: 8 with a register in the opcode. */
  readonly span: number;
  /** ModRM.reg, or -1. */
  readonly digit: number;
  /** The whole ModRM byte, or -1. */
  readonly literal: number;
  readonly hasModrm: boolean;
  /** Mandatory prefix: '' any, NP none of the three, NR neither F2 nor F3. */
  readonly prefix: '' | 'NP' | 'NR' | '66' | 'F3' | 'F2';
  /** VEX.W and VEX.L: -1 ignored. */
  readonly w: number;
  readonly l: number;
  readonly form: 'any' | 'memory' | 'register';
  /** Operand size: 0 by prefixes, else fixed in bytes. */
  readonly size: number;
  /** At least 4 bytes of operand size. */
  readonly atLeast4: boolean;
  readonly options: ReadonlySet<string>;
  /** What CPUID must report for it. */
  readonly feature: Feature;
  /** Values that the row puts into the record's reg and immediate, or undefined. */
  readonly regValue: number | undefined;
  readonly immValue: number | undefined;
}

/**
 * The options of a row: `lock` may be locked when its destination is memory; `i64` invalid, `o64` only valid in 64-bit mode; `d64`
 * 64-bit operands by default there, `f64` always; `mode` works differently in 64-bit mode (stack, RIP); `bits` a bit string;
 * `norexb` not with REX.B; `modreg` ModRM names a register whatever its mod; `cr` `sreg` `notcs` restrict reg; `v` `b` operand size
 * when no operand tells; `noopsize` ignores 66; `reg=` `imm=` constants for the record; `xlat` `rdi` an
 * implied memory operand at rBX or rDI; `fence` ModRM.rm ignored; `port` never 8 bytes;
 * `vsib` the index register is an XMM one, and none of the three registers is another.
 */
export function parseEncoding(
  id: number,
  text: string,
  mnemonic: string,
  operandText: string,
  meaning: Meaning,
  optionText: string,
  feature: Feature,
): Encoding {
  const operands = operandText === '' ? [] : operandText.split(',').map(parseOperand);
  const options = new Set(optionText === '' ? [] : optionText.split(' '));
  let map = 0;
  let prefix: Encoding['prefix'] = '';
  let w = -1;
  let l = 0;
  let opcode = -1;
  let span = 1;
  let digit = -1;
  let literal = -1;
  let hasModrm = false;
  for (const token of text.split(' ')) {
    if (token.startsWith('VEX.')) {
      const parts = token.split('.').slice(1);
      const length = ['128', '256', 'LIG'].indexOf(parts[0]!);
      if (length >= 0) parts.shift();
      l = length === 2 ? -1 : Math.max(length, 0);
      prefix = parts[0] as Encoding['prefix'];
      map = MAP_VEX + ['', '0F', '0F38', '0F3A'].indexOf(parts[1]!);
      if (parts[2] !== undefined) w = Number(parts[2].slice(1));
    } else if (token.startsWith('/')) {
      hasModrm = true;
      if (token !== '/r') digit = Number(token.slice(1));
    } else if (opcode < 0 && map === 0 && ['NP', 'NR', '66', 'F3', 'F2'].includes(token)) {
      prefix = token as Encoding['prefix'];
    } else if (opcode < 0 && map === 0 && token === '0F') {
      map = 1;
    } else if (opcode < 0 && map === 1 && (token === '38' || token === '3A')) {
      map = token === '38' ? 2 : 3;
    } else if (opcode < 0) {
      opcode = Number.parseInt(token, 16);
      if (token.endsWith('+r')) span = 8;
    } else {
      literal = Number.parseInt(token, 16);
      hasModrm = true;
    }
  }
  const forms = operands.filter((o) => o.place === 'rm').map((o) => o.form);
  const form = options.has('modreg') || literal >= 0xc0 ? 'register' : (forms.find((x) => x !== 'any') ?? 'any');
  const bySize = operands.some((o) => o.size <= 0 && o.place !== 'sreg') || options.has('v');
  const first = operands.find((o) => o.size > 0)?.size ?? 4;
  const constant = (name: string): number | undefined => {
    const found = [...options].find((o) => o.startsWith(name));
    return found === undefined ? undefined : Number(found.slice(name.length));
  };
  return {
    id,
    text,
    mnemonic,
    operands,
    meaning,
    map,
    opcode,
    span,
    digit,
    literal,
    hasModrm,
    prefix,
    w,
    l,
    form,
    size: options.has('b') ? 1 : bySize ? 0 : first,
    atLeast4: operands.some((o) => o.size === -1) && !operands.some((o) => o.size === 0 && o.place !== 'imm'),
    options,
    feature,
    regValue: constant('reg='),
    immValue: constant('imm='),
  }; // prettier-ignore
}
