/**
 * A line of trace text: ftrace's `trace` and `trace_pipe`, `trace-cmd report`, `perf script`. All have the CPU in brackets, then flags or none,
 * a time, and the event; what stands before the CPU differs.
 */
import { schemaAt } from './events.ts';
import type { TraceRecord } from './trace-record.ts';

/** What a line turned out to be. */
export const LINE_EVENT = 0;
/** Blank, a comment, a header of a tool. */
export const LINE_NOTHING = 1;
/** Not a line of a trace. */
export const LINE_STRANGE = 2;
/** An event of KVM whose text is not as any kernel prints it, or cut off. */
export const LINE_BROKEN = 3;
/** ftrace: events were lost here. */
export const LINE_LOST = 4;

const BLANK = 0x20;
const TAB = 0x09;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const COLON = 0x3a;
const DOT = 0x2e;
const DASH = 0x2d;
const SLASH = 0x2f;
const HASH = 0x23;
const PAREN = 0x28;

/** HOT */
function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

/** HOT */
function isBlank(byte: number | undefined): boolean {
  return byte === BLANK || byte === TAB;
}

/** HOT */
function skipBlanks(bytes: Uint8Array, from: number, end: number): number {
  let at = from;
  while (at < end && isBlank(bytes[at])) at++;
  return at;
}

/** Reads the line of `bytes` from `start` to `end` (its line feed not included) into `record`; returns LINE_*. HOT */
export function readLine(record: TraceRecord, bytes: Uint8Array, start: number, lineEnd: number): number {
  let end = lineEnd;
  while (end > start && (isBlank(bytes[end - 1]) || bytes[end - 1] === 0x0d)) end--;
  const first = skipBlanks(bytes, start, end);
  if (first === end || bytes[first] === HASH) return LINE_NOTHING;
  record.bytes = bytes;
  record.event = null;
  const cpu = findCpu(bytes, first, end);
  if (cpu < 0) return otherLine(bytes, first, end);
  readTask(record, first, cpu);
  let at = cpu + 1;
  let number = 0;
  for (; bytes[at] !== CLOSE; at++) number = number * 10 + bytes[at]! - 0x30;
  record.cpu = number;
  at = readTime(record, skipBlanks(bytes, at + 1, end), end);
  if (at < 0) return LINE_STRANGE;
  return readEvent(record, bytes, at, end);
}

/** The bracket of a CPU number, [000] with three digits or more behind a blank; -1 for none. HOT */
function findCpu(bytes: Uint8Array, from: number, end: number): number {
  for (let at = from; at < end; at++) {
    if (bytes[at] !== OPEN || (at > from && !isBlank(bytes[at - 1]))) continue;
    let digits = at + 1;
    while (digits < end && isDigit(bytes[digits])) digits++;
    if (digits - at > 3 && bytes[digits] === CLOSE) return at;
  }
  return -1;
}

/** `comm-pid`, `comm pid` or `comm pid/tid`, with ftrace's `(tgid)` behind, if that is shown. HOT */
function readTask(record: TraceRecord, from: number, cpu: number): void {
  const { bytes } = record;
  let end = cpu;
  while (end > from && isBlank(bytes[end - 1])) end--;
  if (bytes[end - 1] === 0x29) {
    while (end > from && bytes[end] !== PAREN) end--;
    while (end > from && isBlank(bytes[end - 1])) end--;
  }
  let at = end;
  while (at > from && isDigit(bytes[at - 1])) at--;
  let pid = 0;
  for (let i = at; i < end; i++) pid = pid * 10 + bytes[i]! - 0x30;
  record.pid = at === end ? -1 : pid;
  if (at > from && bytes[at - 1] === SLASH) {
    at--;
    while (at > from && isDigit(bytes[at - 1])) at--;
  }
  if (at > from && bytes[at - 1] === DASH) at--;
  while (at > from && isBlank(bytes[at - 1])) at--;
  record.commStart = from;
  record.commEnd = at;
}

/** Flags or none, then seconds with a fraction, or a bare counter; the offset behind the colon, -1 when it is not so. HOT */
function readTime(record: TraceRecord, from: number, end: number): number {
  const { bytes } = record;
  let at = from;
  for (let words = 0; words < 2; words++) {
    const start = at;
    let value = 0;
    while (at < end && isDigit(bytes[at])) value = value * 10 + bytes[at++]! - 0x30;
    if (at > start && bytes[at] === COLON) {
      record.time = value;
      return at + 1;
    }
    if (at > start && bytes[at] === DOT && isDigit(bytes[at + 1])) {
      let fraction = 0;
      let scale = 1e9;
      for (at++; at < end && isDigit(bytes[at]); at++) {
        scale /= 10;
        fraction += (bytes[at]! - 0x30) * scale;
      }
      if (bytes[at] !== COLON) return -1;
      record.time = value * 1e9 + Math.round(fraction);
      return at + 1;
    }
    while (at < end && !isBlank(bytes[at])) at++;
    at = skipBlanks(bytes, at, end);
  }
  return -1;
}

/** `event: text`, `group:event: text`, with perf's sampling period before it or without. HOT */
function readEvent(record: TraceRecord, bytes: Uint8Array, from: number, end: number): number {
  let at = skipBlanks(bytes, from, end);
  if (isDigit(bytes[at])) {
    let digits = at;
    while (isDigit(bytes[digits])) digits++;
    if (isBlank(bytes[digits])) at = skipBlanks(bytes, digits, end);
  }
  let start = at;
  while (at < end && bytes[at] !== COLON && !isBlank(bytes[at])) at++;
  if (bytes[at] !== COLON || at === end) return LINE_STRANGE;
  if (at + 1 < end && !isBlank(bytes[at + 1]) && bytes[at + 1] !== COLON) {
    // a group, as perf prints it
    start = at + 1;
    at = start;
    while (at < end && bytes[at] !== COLON && !isBlank(bytes[at])) at++;
    if (bytes[at] !== COLON) return LINE_STRANGE;
  }
  record.nameStart = start;
  record.nameEnd = at;
  record.textStart = skipBlanks(bytes, at + 1, end);
  record.textEnd = end;
  const schema = schemaAt(bytes, start, at);
  record.event = schema;
  return schema === null || schema.read(record) ? LINE_EVENT : LINE_BROKEN;
}

const LOST = /^CPU:\d+ \[.*\b(?:LOST|DROPPED)\b.*\]/;
const HEADER = /^(?:cpus=\d+|version = \d|CPU \d+ is empty|# )/;
const decoder = new TextDecoder();

/** A line that has no CPU: headers of trace-cmd, and where events were lost. */
function otherLine(bytes: Uint8Array, from: number, end: number): number {
  const text = decoder.decode(bytes.subarray(from, Math.min(end, from + 200)));
  if (LOST.test(text)) return LINE_LOST;
  return HEADER.test(text) ? LINE_NOTHING : LINE_STRANGE;
}
