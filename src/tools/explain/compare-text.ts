/** One fault under two revisions, side by side. */

import { textOf } from './explain-text.ts';
import type { Explanation } from './explanation.ts';
import { wrap } from './wrap.ts';

const COLUMNS = 46;

/** The fault as the first revision sees it, the verdicts of both, and how both end. */
export function comparisonLines(a: Explanation, b: Explanation): string[] {
  const start = textOf(a);
  const head = start.slice(0, start.indexOf(''));
  const rows: [string, string, string][] = [
    ...stageRows(a, b),
    ['', '', ''],
    ['result', a.result.verdict ?? '', b.result.verdict ?? ''],
    ['reason', a.result.words, b.result.words],
    ['left', a.left.words.join('; '), b.left.words.join('; ')],
    ['SPTE', a.after.spte?.words ?? 'none', b.after.spte?.words ?? 'none'],
    ['MMIO cache', cacheOf(a), cacheOf(b)],
    ['statistics', statsOf(a), statsOf(b)],
    ['kernel log', logOf(a), logOf(b)],
    ['code seen', a.code.seen ?? 'none', b.code.seen ?? 'none'],
    ['VMM', a.advice.vmm, b.advice.vmm],
    ['otherwise', a.advice.otherwise, b.advice.otherwise],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return [
    ...head.map((line, i) => (i === 0 ? line.replace(/, [^,]*$/, '') : line)),
    '',
    ...row(width, '', [a.revision, b.revision], ' '),
    ...rows.flatMap(([name, left, right]) => row(width, name, [left, right], left === right ? ' ' : '*')),
    '',
    `  ${summary(rows)}`,
  ];
}

/** Stages of both, those of the second in order, what only the first has where the first has it. */
function stageRows(a: Explanation, b: Explanation): [string, string, string][] {
  const order = [...a.stages.map((s) => s.name), ...a.notReached];
  const other = [...b.stages.map((s) => s.name), ...b.notReached];
  const merged: string[] = [];
  let at = 0;
  for (const name of other) {
    const here = order.indexOf(name, at);
    if (here >= 0) {
      for (const only of order.slice(at, here)) if (!other.includes(only)) merged.push(only);
      at = here + 1;
    }
    merged.push(name);
  }
  for (const only of order.slice(at)) if (!merged.includes(only)) merged.push(only);
  return merged.map((name) => [name, verdictOf(a, name), verdictOf(b, name)]);
}

function verdictOf(e: Explanation, name: string): string {
  const at = e.stages.findIndex((s) => s.name === name);
  if (at >= 0) {
    const { verdict } = e.stages[at]!;
    return `${at + 1}. ${verdict === 'RET_PF_CONTINUE' ? 'continue' : verdict}`;
  }
  return e.notReached.includes(name) ? '(not asked)' : '(not there)';
}

function cacheOf(e: Explanation): string {
  return e.after.mmioCache === null ? 'empty' : `gfn ${e.after.mmioCache.gfn}`;
}

function statsOf(e: Explanation): string {
  const stats = Object.entries(e.after.stats).map(([name, by]) => `${name} ${by > 0 ? '+' : ''}${by}`);
  return stats.length === 0 ? 'none' : stats.join(', ');
}

function logOf(e: Explanation): string {
  return e.after.log.length === 0 ? 'nothing' : e.after.log.map((l) => `${l.where}: ${l.message}`).join('; ');
}

function row(width: number, name: string, cells: readonly [string, string], mark: string): string[] {
  const [left, right] = cells.map((cell) => wrap(cell, COLUMNS)) as [string[], string[]];
  const lines = Math.max(left.length, right.length, 1);
  return Array.from({ length: lines }, (_, i) =>
    `  ${i === 0 ? mark : ' '} ${(i === 0 ? name : '').padEnd(width)}  ${(left[i] ?? '').padEnd(COLUMNS)}  ${right[i] ?? ''}`.trimEnd(),
  );
}

function summary(rows: readonly (readonly [string, string, string])[]): string {
  const visible = ['left', 'SPTE', 'MMIO cache', 'statistics', 'kernel log', 'result'];
  const differ = rows.filter(([name, left, right]) => visible.includes(name) && left !== right).map(([name]) => name);
  return differ.length === 0
    ? 'What came of the fault is the same in both.'
    : `They differ in: ${differ.join(', ')} (marked *).`;
}
