/**
 * The text of an event as the kernel's format string gives it, as data: from one template come the reader of trace text, the writer of it,
 * and the event's fields with their names.
 */
import { hex64 } from '../../arch/flags.ts';
import type { TraceRecord } from './trace-record.ts';

/** `number`: 64 bits, printed as the template says. `word`: text up to what follows it in the template. */
export type FieldKind = 'number' | 'word';

export interface EventField {
  readonly name: string;
  readonly kind: FieldKind;
}

interface Op {
  /** Bytes that stand there as they are; empty for a field. */
  readonly literal: Uint8Array;
  /** -1 for a literal. */
  readonly field: number;
  readonly base: 10 | 16 | 0;
  /** How the kernel prints the number: `#` with 0x, and the width to which zeros fill it. */
  readonly prefix: boolean;
  readonly width: number;
}

const BLANK = 0x20;
const MINUS = 0x2d;
const ZERO = 0x30;
const LOWER_X = 0x78;

/** One spelling of an event. `{name:x}` is a number in hex, `{name:#x}` with 0x, `{name:016x}` filled up, `{name:d}` decimal, `{name}` a word. */
export class Template {
  private readonly ops: readonly Op[];

  constructor(source: string, fields: EventField[]) {
    const ops: Op[] = [];
    const encoder = new TextEncoder();
    for (const part of source.split(/(\{[^}]*\})/)) {
      if (part === '') continue;
      if (!part.startsWith('{')) {
        ops.push({ literal: encoder.encode(part), field: -1, base: 0, prefix: false, width: 0 });
        continue;
      }
      const [, name = '', prefix, width, type] = /^\{(\w+)(?::(#?)(\d*)([xd]))?\}$/.exec(part) ?? [];
      if (name === '') throw new Error(`template ${source}: ${part}`);
      let field = fields.findIndex((f) => f.name === name);
      if (field < 0) field = fields.push({ name, kind: type === undefined ? 'word' : 'number' }) - 1;
      ops.push({
        literal: new Uint8Array(0),
        field,
        base: type === 'x' ? 16 : type === 'd' ? 10 : 0,
        prefix: prefix === '#',
        width: Number(width ?? 0),
      });
    }
    this.ops = ops;
  }

  /** Whether the record's text is of this spelling, and then its fields. HOT */
  read(record: TraceRecord): boolean {
    const { bytes, textEnd } = record;
    const { ops } = this;
    let at = record.textStart;
    for (let i = 0; i < ops.length; i++) {
      const op = ops[i]!;
      if (op.field < 0) {
        const { literal } = op;
        const n = literal.length;
        for (let k = 0; k < n; k++) {
          if (at + k >= textEnd || bytes[at + k] !== literal[k]) {
            // The kernel ends some texts in a blank, which tools cut off, and an empty word behind it.
            if (at + k === textEnd && k === n - 1 && literal[k] === BLANK) return this.endsHere(record, i + 1);
            return false;
          }
        }
        at += n;
      } else if (op.base === 0) {
        record.from[op.field] = at;
        at = i + 1 < ops.length ? find(bytes, ops[i + 1]!.literal, at, textEnd) : textEnd;
        if (at < 0) return false;
        record.to[op.field] = at;
      } else {
        at = op.base === 16 ? readHex(record, op.field, at) : readDecimal(record, op.field, at);
        if (at < 0) return false;
      }
      if (at > textEnd) return false;
    }
    return at === textEnd;
  }

  /** All that is left from op `i` on is a word, or nothing: it is empty. HOT */
  private endsHere(record: TraceRecord, i: number): boolean {
    const { ops } = this;
    if (i === ops.length) return true;
    if (i + 1 < ops.length || ops[i]!.base !== 0) return false;
    record.from[ops[i]!.field] = record.textEnd;
    record.to[ops[i]!.field] = record.textEnd;
    return true;
  }

  /** The text of the record's fields. */
  write(record: TraceRecord): string {
    return this.ops.map((op) => this.writeOp(op, record)).join('');
  }

  private writeOp(op: Op, record: TraceRecord): string {
    if (op.field < 0) return new TextDecoder().decode(op.literal);
    if (op.base === 0) return record.word(op.field);
    const lo = record.lo[op.field]!;
    const hi = record.hi[op.field]!;
    if (op.base === 10) return String(hi === -1 ? lo : hi * 0x1_0000_0000 + (lo >>> 0)).padStart(op.width, '0');
    const hex = hex64(lo, hi).slice(2);
    return op.prefix ? `0x${hex.padStart(op.width - 2, '0')}` : hex.padStart(op.width, '0');
  }
}

/** What an event is called, in which group, and how its text may be spelled: the first spelling is that of 6.12. */
export class EventSchema {
  readonly name: string;
  readonly group: 'kvm' | 'kvmmmu';
  readonly fields: readonly EventField[];
  readonly templates: readonly Template[];
  /** Number of the schema in the table. */
  readonly id: number;

  constructor(id: number, group: 'kvm' | 'kvmmmu', name: string, sources: readonly string[]) {
    this.id = id;
    this.group = group;
    this.name = name;
    const fields: EventField[] = [];
    this.templates = sources.map((source) => new Template(source, fields));
    this.fields = fields;
  }

  /** Number of a field, for code that reads it often. @throws Error when there is none */
  field(name: string): number {
    const at = this.fields.findIndex((f) => f.name === name);
    if (at < 0) throw new Error(`${this.name} has no field ${name}`);
    return at;
  }

  /** Reads the text of the record; false when no spelling is that of it. HOT */
  read(record: TraceRecord): boolean {
    const { templates } = this;
    for (let i = 0; i < templates.length; i++) {
      if (templates[i]!.read(record)) {
        record.spelling = i;
        return true;
      }
    }
    return false;
  }
}

/** Where `literal` stands first, from `from` on; -1 for nowhere. HOT */
function find(bytes: Uint8Array, literal: Uint8Array, from: number, end: number): number {
  const n = literal.length;
  const first = literal[0];
  for (let at = from; at + n <= end; at++) {
    if (bytes[at] !== first) continue;
    let k = 1;
    while (k < n && bytes[at + k] === literal[k]) k++;
    if (k === n) return at;
  }
  return -1;
}

/** HOT */
function digitOf(byte: number): number {
  if (byte >= ZERO && byte <= 0x39) return byte - ZERO;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

/** Hex of at most 64 bits, with or without 0x; the offset behind it, -1 for none. HOT */
function readHex(record: TraceRecord, field: number, from: number): number {
  const { bytes, textEnd } = record;
  let at = from;
  if (bytes[at] === ZERO && at + 1 < textEnd && bytes[at + 1] === LOWER_X) at += 2;
  let lo = 0;
  let hi = 0;
  const first = at;
  for (; at < textEnd; at++) {
    const digit = digitOf(bytes[at]!);
    if (digit < 0) break;
    hi = (hi << 4) | (lo >>> 28);
    lo = (lo << 4) | digit;
  }
  if (at === first) return -1;
  record.lo[field] = lo;
  record.hi[field] = hi;
  return at;
}

/** HOT */
function readDecimal(record: TraceRecord, field: number, from: number): number {
  const { bytes, textEnd } = record;
  let at = from;
  const negative = bytes[at] === MINUS;
  if (negative) at++;
  const first = at;
  let value = 0;
  for (; at < textEnd; at++) {
    const digit = bytes[at]! - ZERO;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
  }
  if (at === first) return -1;
  if (negative) value = -value;
  record.lo[field] = value | 0;
  record.hi[field] = Math.floor(value / 0x1_0000_0000);
  return at;
}
