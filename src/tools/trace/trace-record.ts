/** One event of a trace as it is read: made once and filled again for each event, so that reading allocates nothing. */
import { hex64 } from '../../arch/flags.ts';
import type { EventSchema } from './template.ts';

/** Most fields that an event has. */
export const MOST_FIELDS = 16;

export class TraceRecord {
  /** The bytes that the offsets below are in. */
  bytes: Uint8Array = new Uint8Array(0);
  /** Nanoseconds on the trace's own clock; -1 if the format does not say. */
  time = -1;
  /** Host CPU, -1 if not said. */
  cpu = -1;
  /** Thread that was running, -1 if not said. */
  pid = -1;
  commStart = 0;
  commEnd = 0;
  /** What the event is; null for one that is not of KVM. */
  event: EventSchema | null = null;
  nameStart = 0;
  nameEnd = 0;
  /** The event's own text, behind its name. */
  textStart = 0;
  textEnd = 0;
  /** Numbers, by field: 64 bits in halves. */
  readonly lo = new Int32Array(MOST_FIELDS);
  readonly hi = new Int32Array(MOST_FIELDS);
  /** Words, by field: where in `bytes`. */
  readonly from = new Int32Array(MOST_FIELDS);
  readonly to = new Int32Array(MOST_FIELDS);
  /** Which of the event's spellings the text has, as fields that it leaves out hold nothing. */
  spelling = 0;

  /** A number that is known to have at most 53 bits: a gfn, an address, a level. HOT */
  num(field: number): number {
    return this.hi[field]! * 0x1_0000_0000 + (this.lo[field]! >>> 0);
  }

  /** A word as text. */
  word(field: number): string {
    return textOf(this.bytes, this.from[field]!, this.to[field]!);
  }

  name(): string {
    return textOf(this.bytes, this.nameStart, this.nameEnd);
  }

  text(): string {
    return textOf(this.bytes, this.textStart, this.textEnd);
  }

  comm(): string {
    return textOf(this.bytes, this.commStart, this.commEnd);
  }
}

const decoder = new TextDecoder('utf-8');

export function textOf(bytes: Uint8Array, from: number, to: number): string {
  return decoder.decode(bytes.subarray(from, to));
}

/** A number of 64 bits in hex, without leading zeros. */
export function hexOf(lo: number, hi: number): string {
  return hex64(lo, hi).replace(/^0x0+(?=.)/, '0x');
}
