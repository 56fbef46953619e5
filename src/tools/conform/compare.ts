/** Compares an answer with the recorded one, and names the first place where they differ. */
import type { Expectation } from './scenario.ts';

/** Our answer to a step, in the recorded form. */
export interface Answer {
  /** null: the operation was not made, as there is no vCPU for it. */
  readonly ret: number | null;
  readonly errno: string | null;
  readonly run?: { readonly [field: string]: unknown };
  readonly regs?: { readonly [field: string]: unknown };
  readonly out?: { readonly [field: string]: unknown };
  readonly trace: readonly { readonly event: string; readonly fields: { readonly [field: string]: unknown } }[];
  readonly stats: { readonly [counter: string]: number };
}

export type Part = 'ret' | 'errno' | 'run' | 'regs' | 'out' | 'trace' | 'stats';

/** One place where two answers differ. `ours` or `theirs` is undefined when that side has nothing there. */
export interface Difference {
  readonly part: Part;
  /** Where in the answer, as `run.phys_addr` or `trace[12].fields.new`. */
  readonly path: string;
  readonly ours: unknown;
  readonly theirs: unknown;
}

/** General registers that hold chance after a step whose completion data was stale; compared again once they are equal. */
export type ChanceRegisters = Set<string>;

/** The first difference in the contract (ret, errno, run, regs, out), or null. */
export function contractDifference(
  ours: Answer,
  theirs: Expectation,
  stale: boolean,
  chance: ChanceRegisters,
): Difference | null {
  if (ours.ret !== theirs.ret) return { part: 'ret', path: 'ret', ours: ours.ret, theirs: theirs.ret };
  if (ours.errno !== theirs.errno) return { part: 'errno', path: 'errno', ours: ours.errno, theirs: theirs.errno };
  for (const part of ['run', 'regs', 'out'] as const) {
    const expected = theirs[part];
    if (expected === undefined) continue;
    const skip = part === 'regs' ? (path: string) => isChance(path, stale, chance) : () => false;
    const d = firstDifference(part, part, ours[part], expected, skip);
    if (d !== null) return d;
  }
  return null;
}

/** The first difference in trace, then in statistics, or null. */
export function internalsDifference(ours: Answer, theirs: Expectation): Difference | null {
  const never = () => false;
  return (
    firstDifference('trace', 'trace', ours.trace, theirs.trace, never) ??
    (theirs.interrupted ? null : firstDifference('stats', 'stats', ours.stats, theirs.stats ?? {}, never))
  );
}

const general = /^regs\.(?:\d+\.)?(r[abcd]x|r[sd]i|rbp|rsp|r\d+)$/;

function isChance(path: string, stale: boolean, chance: ChanceRegisters): boolean {
  if (!general.test(path)) return false;
  if (stale) chance.add(path);
  return chance.has(path);
}

function firstDifference(
  part: Part,
  path: string,
  ours: unknown,
  theirs: unknown,
  skip: (path: string) => boolean,
): Difference | null {
  if (Array.isArray(theirs)) {
    if (!Array.isArray(ours)) return { part, path, ours, theirs };
    const longer = Math.max(ours.length, theirs.length);
    for (let i = 0; i < longer; i++) {
      const d = firstDifference(part, `${path}[${i}]`, ours[i], theirs[i], skip);
      if (d !== null) return d;
    }
    return null;
  }
  if (typeof theirs === 'object' && theirs !== null) {
    if (typeof ours !== 'object' || ours === null) return { part, path, ours, theirs };
    const mine = ours as { [key: string]: unknown };
    const yours = theirs as { [key: string]: unknown };
    if (part === 'trace' && yours['event'] !== undefined && yours['event'] !== mine['event'])
      return { part, path, ours, theirs };
    for (const key of new Set([...Object.keys(yours), ...Object.keys(mine)])) {
      const d = firstDifference(part, `${path}.${key}`, mine[key], yours[key], skip);
      if (d !== null) return d;
    }
    return null;
  }
  return ours === theirs || skip(path) ? null : { part, path, ours, theirs };
}
