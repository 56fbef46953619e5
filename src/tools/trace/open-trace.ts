/** A trace file as a stream of bytes: what it is compressed with, and which tool wrote it, are seen in its first bytes, not in its name. */
import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { Decompress } from 'fzstd';
import { InputError, UnsupportedError } from '../input-error.ts';

export type TraceFormat = 'ftrace' | 'trace-cmd report' | 'perf script' | 'softkvm';
export type Compression = 'none' | 'gzip' | 'zstd';

/** Bytes that a format is told by. */
const SNIFFED = 64 * 1024;
const CHUNK = 1024 * 1024;

export interface OpenTrace {
  readonly compression: Compression;
  readonly format: TraceFormat;
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** @param file a path, or `-` for stdin. @throws InputError for a file that cannot be read or is no trace */
export async function openTrace(file: string): Promise<OpenTrace> {
  const raw = named(file, file === '-' ? process.stdin : createReadStream(file, { highWaterMark: CHUNK }));
  const outer = await peek(raw);
  const compression = compressionOf(outer.head);
  const inner = compression === 'none' ? outer : await peek(named(file, expand(outer.chunks, compression)));
  const format = formatOf(inner.head, file);
  return { compression, format, chunks: inner.chunks };
}

/** The chunks of `stream`, with what goes wrong told in one line. */
async function* named(file: string, stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* stream;
  } catch (error) {
    if (error instanceof InputError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    throw new InputError(`${file}: cannot be read (${code ?? message})`);
  }
}

interface Peeked {
  readonly head: Uint8Array;
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** The first bytes, and all of them again. */
async function peek(stream: AsyncIterable<Uint8Array>): Promise<Peeked> {
  const iterator = stream[Symbol.asyncIterator]();
  const first: Uint8Array[] = [];
  let bytes = 0;
  while (bytes < SNIFFED) {
    const { done, value } = await iterator.next();
    if (done === true) break;
    first.push(value);
    bytes += value.length;
  }
  async function* again(): AsyncGenerator<Uint8Array> {
    yield* first;
    for (;;) {
      const { done, value } = await iterator.next();
      if (done === true) return;
      yield value;
    }
  }
  return { head: Buffer.concat(first).subarray(0, SNIFFED), chunks: again() };
}

function startsWith(bytes: Uint8Array, ...magic: readonly number[]): boolean {
  return magic.every((byte, i) => bytes[i] === byte);
}

function compressionOf(head: Uint8Array): Compression {
  if (startsWith(head, 0x1f, 0x8b)) return 'gzip';
  return startsWith(head, 0x28, 0xb5, 0x2f, 0xfd) ? 'zstd' : 'none';
}

function expand(chunks: AsyncIterable<Uint8Array>, compression: Compression): AsyncIterable<Uint8Array> {
  if (compression === 'gzip') {
    const gunzip = createGunzip({ chunkSize: CHUNK });
    const from = Readable.from(chunks, { objectMode: false });
    from.on('error', (error) => gunzip.destroy(error));
    return from.pipe(gunzip);
  }
  return unzstd(chunks);
}

async function* unzstd(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const out: Uint8Array[] = [];
  const stream = new Decompress((chunk) => {
    out.push(chunk);
  });
  for await (const chunk of chunks) {
    stream.push(chunk);
    yield* out.splice(0);
  }
  stream.push(new Uint8Array(0), true);
  yield* out.splice(0);
}

const TRACE_DAT = [0x17, 0x08, 0x44, 0x74, 0x72, 0x61, 0x63, 0x69, 0x6e, 0x67] as const;
const PERF_DATA = 'PERFILE2';
/** An event with a CPU in front of it, in any of the texts. */
const EVENT = /\[\d{3,}\][^\n]*?\d+: +(?:\d+ +)?(?:(\w+):)?\w+:(?= |$)/m;

/** @throws InputError for what is no trace of kvm events */
function formatOf(head: Uint8Array, file: string): TraceFormat {
  if (startsWith(head, ...TRACE_DAT))
    throw new UnsupportedError(`${file}: trace-cmd's binary trace.dat (trace-cmd report makes text of it)`);
  const text = Buffer.from(head).toString('latin1');
  if (text.startsWith(PERF_DATA)) throw new UnsupportedError(`${file}: perf.data (perf script makes text of it)`);
  if (/^\s*\{\s*"/.test(text)) return 'softkvm';
  const event = EVENT.exec(text);
  if (event?.[1] !== undefined) return 'perf script';
  if (/^(?:version = \d+|cpus=\d+)\s*$/m.test(text)) return 'trace-cmd report';
  if (event !== null || /^# tracer:/m.test(text)) return 'ftrace';
  throw new InputError(
    `${file}: expected trace text of ftrace, trace-cmd report or perf script, or softkvm's own, plain or in gzip or zstd`,
  );
}
