/** How the table's rows are written. */
import type { MachineEmitter } from '../semantics/machine-context.ts';
import type { StringKind } from '../semantics/strings.ts';
import { type Encoding, type Meaning, parseEncoding } from './encoding.ts';
import type { Feature } from './features.ts';

/** Collects rows; ids are positions in the whole table. */
export class EncodingTable {
  readonly rows: Encoding[] = [];
  /** The feature (see features.ts) that the rows to come belong to. */
  feature: Feature = 'base';

  private add(text: string, mnemonic: string, operands: string, meaning: Meaning, options: string): void {
    this.rows.push(parseEncoding(this.rows.length, text, mnemonic, operands, meaning, options, this.feature));
  }
  /** `op('00 /r', 'ADD', 'Eb,Gb', add, 'lock')` */
  readonly op = (text: string, mnemonic: string, operands: string, emit: MachineEmitter, options = ''): void =>
    this.add(text, mnemonic, operands, { kind: 'emit', emit }, options);
  /** An instruction that the system port executes. */
  readonly sys = (text: string, mnemonic: string, operands: string, op: number, options = ''): void =>
    this.add(text, mnemonic, operands, { kind: 'system', op }, options);
  readonly string = (text: string, mnemonic: string, string: StringKind, options: string): void =>
    this.add(text, mnemonic, '', { kind: 'string', string }, options);
}

/** The suffixes of conditions, by their number in opcodes. */
export const CONDITIONS = [
  'O',
  'NO',
  'B',
  'AE',
  'E',
  'NE',
  'BE',
  'A',
  'S',
  'NS',
  'P',
  'NP',
  'L',
  'GE',
  'LE',
  'G',
] as const;

/** Two hex digits. */
export const hex = (value: number): string => value.toString(16).toUpperCase().padStart(2, '0');
