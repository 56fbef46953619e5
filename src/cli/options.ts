/** Readers of option values that several commands share. */
import { Option } from 'commander';
import { ENGINES, type EngineName, setDefaultEngine } from '../cpu/compiler/engine.ts';
import { InputError } from '../tools/input-error.ts';

/** For a repeatable option: the values so far and one more. */
export function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

/** A count of `what`, decimal or 0x hex, at least `least`. @throws InputError */
export function count(option: string, what: string, least = 1): (text: string) => number {
  return (text) => {
    const value = /^(0x[0-9a-f]+|[0-9]+)$/i.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value) || value < least)
      throw new InputError(`${option} ${text}: expected ${what}, ${least} or more`);
    return value;
  };
}

/** `--engine`; the action hands its value to `useEngine`. */
export const engineOption = (usual: EngineName): Option =>
  new Option('--engine <name>', 'how the processor executes guests; the answers are the same')
    .choices(Object.keys(ENGINES))
    .default(usual);
export function useEngine(name: EngineName): void {
  setDefaultEngine(ENGINES[name]);
}

/** More threads than this share nothing any more. */
const MOST_THREADS = 64;

/** A number of threads, at least `least`. @throws InputError */
export function threads(least: number): (text: string) => number {
  const read = count('--workers', 'a count of threads', least);
  return (text) => {
    const value = read(text);
    if (value > MOST_THREADS) throw new InputError(`--workers ${text}: expected ${MOST_THREADS} threads or fewer`);
    return value;
  };
}

/** A size in bytes: a number with K, M or G. @throws InputError */
export function size(option: string, least: number, most: number): (text: string) => number {
  return (text) => {
    const match = /^([0-9]+)([kmg]?)(i?b)?$/i.exec(text);
    const unit = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }[match?.[2]?.toLowerCase() ?? ''] ?? 1;
    const bytes = match === null ? Number.NaN : Number(match[1]) * unit;
    if (!Number.isSafeInteger(bytes) || bytes < least || bytes > most)
      throw new InputError(`${option} ${text}: expected a size from ${sizeText(least)} to ${sizeText(most)}, as 512M`);
    return bytes;
  };
}

function sizeText(bytes: number): string {
  return bytes % 1024 ** 3 === 0
    ? `${bytes / 1024 ** 3}G`
    : bytes % 1024 ** 2 === 0
      ? `${bytes / 1024 ** 2}M`
      : `${bytes / 1024}K`;
}

/** Runs `work`, which asks whether it should end: after the first Ctrl-C it should. The second one ends the process. */
export async function untilInterrupted<T>(work: (requested: () => boolean) => Promise<T>): Promise<T> {
  let requested = false;
  const handler = (): void => {
    if (requested) process.exit(130);
    requested = true;
  };
  process.on('SIGINT', handler);
  try {
    return await work(() => requested);
  } finally {
    process.off('SIGINT', handler);
  }
}
