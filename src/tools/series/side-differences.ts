/** What is different between the two sides of a change, line by line. */
import type { Side, StageView } from './demonstration.ts';

/** One line of a list on either side; null where a side has none. */
export interface PairedLine<T> {
  readonly before: T | null;
  readonly after: T | null;
  readonly same: boolean;
}

/** Pairs two lists in order, as diff does: those with the same key next to each other, the others alone. */
function pair<T>(
  before: readonly T[],
  after: readonly T[],
  key: (item: T) => string,
  same: (a: T, b: T) => boolean,
): PairedLine<T>[] {
  const lengths = commonLengths(before.map(key), after.map(key));
  const lines: PairedLine<T>[] = [];
  let i = 0;
  let j = 0;
  while (i < before.length || j < after.length) {
    const a = before[i];
    const b = after[j];
    if (a !== undefined && b !== undefined && key(a) === key(b)) {
      lines.push({ before: a, after: b, same: same(a, b) });
      i++;
      j++;
    } else if (b === undefined || (a !== undefined && lengths[i + 1]![j]! >= lengths[i]![j + 1]!)) {
      lines.push({ before: a!, after: null, same: false });
      i++;
    } else {
      lines.push({ before: null, after: b, same: false });
      j++;
    }
  }
  return lines;
}

/** Length of the longest common subsequence of the rests from (i, j) on. */
function commonLengths(a: readonly string[], b: readonly string[]): number[][] {
  const lengths = Array.from({ length: a.length + 1 }, () => new Array<number>(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i]![j] = a[i] === b[j] ? lengths[i + 1]![j + 1]! + 1 : Math.max(lengths[i + 1]![j]!, lengths[i]![j + 1]!);
    }
  }
  return lengths;
}

/** A value on both sides. */
export interface PairedValue {
  readonly name: string;
  readonly before: string;
  readonly after: string;
}

export interface SideDifferences {
  readonly stages: readonly PairedLine<StageView>[];
  readonly trace: readonly PairedLine<string>[];
  readonly log: readonly PairedLine<string>[];
  /** Facts that differ; the others are left out. */
  readonly facts: readonly PairedValue[];
}

export function sideDifferences(before: Side, after: Side): SideDifferences {
  const names = [...new Set([...Object.keys(before.facts), ...Object.keys(after.facts)])];
  const facts = names.map((name) => ({
    name,
    before: before.facts[name] ?? 'none',
    after: after.facts[name] ?? 'none',
  }));
  return {
    stages: pair(
      before.stages,
      after.stages,
      (stage) => stage.name,
      (a, b) => a.verdict === b.verdict,
    ),
    trace: pair(before.trace, after.trace, eventName, (a, b) => a === b),
    log: pair(
      before.log,
      after.log,
      (line) => line,
      () => true,
    ),
    facts: facts.filter((fact) => fact.before !== fact.after),
  };
}

/** Events of one name stand next to each other. */
function eventName(line: string): string {
  return line.slice(0, line.indexOf(':'));
}

/** Whether anything at all is different. */
export function anyDifference(before: Side, after: Side): boolean {
  const { stages, trace, log, facts } = sideDifferences(before, after);
  const lines = [...stages, ...trace, ...log];
  return lines.some((line) => !line.same) || facts.length > 0 || before.left !== after.left;
}
