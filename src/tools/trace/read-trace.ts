/** Reads a trace from its beginning to its end, one event after the other, in memory that does not depend on its length. */
import type { TraceEvent } from '../../kvm/trace/events.ts';
import { openTrace, type TraceFormat } from './open-trace.ts';
import { eventText } from './softkvm-trace.ts';
import { LINE_BROKEN, LINE_EVENT, LINE_LOST, LINE_STRANGE, readLine } from './text-line.ts';
import { TraceRecord, textOf } from './trace-record.ts';

const LINE_FEED = 0x0a;
/** A longer line is no event. */
const LONGEST = 64 * 1024;

/** Something that is wrong with some lines: how many, and the first of them. */
export interface Problem {
  readonly lines: number;
  readonly firstLine: number;
  readonly text: string;
}

export interface TraceSummary {
  readonly format: TraceFormat;
  readonly compression: string;
  readonly lines: number;
  readonly events: number;
  /** Of KVM, with text that is understood. */
  readonly kvmEvents: number;
  /** Nanoseconds on the trace's clock of the first and the last event; null without. */
  readonly from: number | null;
  readonly to: number | null;
  /** Lines that are no events at all. */
  readonly strange: Problem | null;
  /** Events of KVM whose text is cut off, or as no kernel prints it. */
  readonly broken: Problem | null;
  /** Places where the tracer lost events. */
  readonly lost: Problem | null;
  /** Events of a CPU with an earlier time than the one before. */
  readonly backwards: Problem | null;
  /** The input ended in the middle of a line. */
  readonly truncated: boolean;
}

class ProblemCount {
  private lines = 0;
  private firstLine = 0;
  private text = '';

  add(line: number, bytes: Uint8Array, from: number, to: number): void {
    if (this.lines++ > 0) return;
    this.firstLine = line;
    this.text = textOf(bytes, from, Math.min(to, from + 120)).trim();
  }

  get(): Problem | null {
    return this.lines === 0 ? null : { lines: this.lines, firstLine: this.firstLine, text: this.text };
  }
}

/** Gets each event, with the number of its line, from 1. The record is filled again for the next one. */
export type EventSink = (record: TraceRecord, line: number) => void;

class TraceReader {
  readonly record = new TraceRecord();
  private readonly sink: EventSink;
  private readonly format: TraceFormat;
  private lines = 0;
  private events = 0;
  private kvmEvents = 0;
  private from = -1;
  private to = -1;
  private readonly strange = new ProblemCount();
  private readonly broken = new ProblemCount();
  private readonly lost = new ProblemCount();
  private readonly backwards = new ProblemCount();
  /** Time of the last event, by CPU. */
  private readonly last: number[] = [];

  constructor(format: TraceFormat, sink: EventSink) {
    this.format = format;
    this.sink = sink;
  }

  /** HOT */
  line(bytes: Uint8Array, start: number, end: number): void {
    const line = ++this.lines;
    const { record } = this;
    const kind = this.format === 'softkvm' ? this.jsonLine(bytes, start, end) : readLine(record, bytes, start, end);
    if (kind === LINE_EVENT) {
      this.events++;
      this.clock(line, start, end);
      if (record.event !== null) this.kvmEvents++;
      this.sink(record, line);
    } else if (kind === LINE_STRANGE) this.strange.add(line, bytes, start, end);
    else if (kind === LINE_BROKEN) this.broken.add(line, bytes, start, end);
    else if (kind === LINE_LOST) this.lost.add(line, bytes, start, end);
  }

  private clock(line: number, start: number, end: number): void {
    const { record, last } = this;
    const { time, cpu } = record;
    if (time < 0) return;
    if (this.from < 0) this.from = time;
    if (time > this.to) this.to = time;
    const before = last[cpu + 1];
    if (before !== undefined && time < before) this.backwards.add(line, record.bytes, start, end);
    last[cpu + 1] = time;
  }

  private jsonLine(bytes: Uint8Array, start: number, end: number): number {
    const { record } = this;
    try {
      const { event, fields } = JSON.parse(textOf(bytes, start, end)) as TraceEvent;
      const text = Buffer.from(`[000] 0: ${event}: ${eventText({ event, fields } as TraceEvent)}`);
      const kind = readLine(record, text, 0, text.length);
      record.time = -1;
      record.cpu = -1;
      return kind;
    } catch {
      return start === end ? LINE_EVENT + 1 : LINE_STRANGE;
    }
  }

  summary(compression: string, truncated: boolean): TraceSummary {
    return {
      format: this.format,
      compression,
      lines: this.lines,
      events: this.events,
      kvmEvents: this.kvmEvents,
      from: this.from < 0 ? null : this.from,
      to: this.to < 0 ? null : this.to,
      strange: this.strange.get(),
      broken: this.broken.get(),
      lost: this.lost.get(),
      backwards: this.backwards.get(),
      truncated,
    };
  }
}

/** Reads a file, or stdin for `-`. @throws InputError when it cannot be read, or is no trace */
export async function readTrace(file: string, sink: EventSink): Promise<TraceSummary> {
  const { chunks, format, compression } = await openTrace(file);
  const reader = new TraceReader(format, sink);
  let rest: Uint8Array = new Uint8Array(0);
  for await (const chunk of chunks) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    for (;;) {
      const end = bytes.indexOf(LINE_FEED, at);
      if (end < 0) break;
      reader.line(bytes, at, end);
      at = end + 1;
    }
    // A "line" without an end is no text.
    rest = bytes.length - at > LONGEST ? new Uint8Array(0) : bytes.subarray(at);
    if (bytes.length - at > LONGEST) reader.line(bytes, at, at + LONGEST);
  }
  if (rest.length > 0) reader.line(rest, 0, rest.length);
  return reader.summary(compression, rest.length > 0);
}
