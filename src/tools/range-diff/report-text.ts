/** A range-diff report as text: a block for each change, the table of changes, and what was enumerated. */
import { wrap } from '../explain/wrap.ts';
import type { DifferenceLevel } from '../fault-machine/outcome.ts';
import type { LevelCounts, RangeDiffReport, ReportBlock, ReportChange, ReportDifference } from './report.ts';

type Brush = (text: string) => string;
export type Paint = { readonly [name in 'bold' | 'dim' | 'red' | 'green' | 'yellow']: Brush };

export interface TextOptions {
  readonly colour: Paint;
  /** Print every part of a condition and everything else that differs, however many. */
  readonly all: boolean;
  /** Print what is not an input, and why. */
  readonly excluded: boolean;
}

/** Parts of a condition, and further differences, that are printed without --all. */
const SOME = 4;
const WIDTH = 120;
/** Where the words of a difference begin, and the second of the two outcomes. */
const INDENT = 20;
const COLUMN = 48;

const LEVEL_WORDS: Readonly<Record<DifferenceLevel, string>> = {
  exit: 'what userspace or the guest sees',
  state: "KVM's own state",
  field: 'fields of the fault object only',
};

export function reportLines(report: RangeDiffReport, options: TextOptions): string[] {
  const { colour } = options;
  const lines = [
    colour.bold(`${report.before.name} (${report.before.title}) to ${report.after.name} (${report.after.title})`),
    '',
  ];
  for (const block of report.blocks) lines.push(...blockLines(block, report, options), '');
  if (report.changes.length > 0) lines.push(...changeTable(report, colour), '');
  lines.push(...summary(report, options));
  return lines;
}

function blockLines(block: ReportBlock, report: RangeDiffReport, options: TextOptions): string[] {
  const { colour } = options;
  const changes = block.changes.map((label) => report.changes.find((c) => c.label === label));
  const head = changes.map((c, i) =>
    c === undefined ? block.changes[i]! : `${c.label}  ${c.commit}  ${c.undone ? '(taken back) ' : ''}${c.title}`,
  );
  if (head.length === 0) head.push('no change accounts for this');
  const lines = head.map((h, i) => {
    const together = head.length > 1 && i === 0 ? 'together: ' : head.length > 1 ? '          ' : '';
    return colour.yellow(`${together}${h}`);
  });
  lines[lines.length - 1] += colour.dim(`  ${inputs(block.inputs)}`);
  for (const d of block.differences) lines.push(...differenceLines(d, report, options));
  return lines;
}

function differenceLines(d: ReportDifference, report: RangeDiffReport, options: TextOptions): string[] {
  const { colour, all } = options;
  const lines = [`  ${colour.bold(d.level)}, ${inputs(d.inputs)}`];
  const shown = all ? d.conditions : d.conditions.slice(0, SOME);
  for (const [i, c] of shown.entries()) {
    const count = d.conditions.length > 1 ? `  (${number(c.inputs)})` : '';
    lines.push(...labelled(i === 0 ? 'when' : 'or', `${c.text}${count}`));
  }
  const more = d.conditions.slice(shown.length);
  if (more.length > 0)
    lines.push(...labelled('or', colour.dim(`${more.length} more, of ${number(more[0]!.inputs)} and fewer: --all`)));
  lines.push(sides('', [report.before.name], [report.after.name]).map((l) => colour.dim(l))[0]!);
  for (const c of d.changes) lines.push(...changeLines(c.field, c.before, c.after, '', options));
  if (d.leaves !== null) lines.push(...labelled('leaves', `${d.leaves}, on both sides`).map((l) => colour.dim(l)));
  const also = all ? d.also : d.also.slice(0, SOME);
  for (const c of also) {
    const count = c.inputs === d.inputs ? '' : `  (${number(c.inputs)} of them)`;
    lines.push(...changeLines(c.field, c.before, c.after, count, options));
  }
  if (d.also.length > also.length)
    lines.push(...labelled('', colour.dim(`${d.also.length - also.length} more: --all`)));
  lines.push(...witness(d.witness.before, 'see').map((l) => colour.dim(l)));
  lines.push(...witness(d.witness.after, '').map((l) => colour.dim(l)));
  return lines;
}

/** A command line is not wrapped: it is to be copied. */
function witness(command: string, label: string): string[] {
  return [`    ${label.padEnd(INDENT - 4)}${command}`];
}

function labelled(label: string, text: string): string[] {
  return wrap(text, WIDTH - INDENT).map((l, i) => `    ${(i === 0 ? label : '').padEnd(INDENT - 4)}${l}`);
}

function changeLines(field: string, before: string, after: string, count: string, options: TextOptions): string[] {
  const { colour } = options;
  return sides(field, wrap(before, COLUMN - 2), wrap(`${after}${count}`, COLUMN - 2), colour.red, colour.green);
}

/** Two texts, each in its column. */
function sides(
  label: string,
  before: readonly string[],
  after: readonly string[],
  paintBefore: Brush = (t) => t,
  paintAfter: Brush = (t) => t,
): string[] {
  const rows = Math.max(before.length, after.length);
  return Array.from({ length: rows }, (_, i) => {
    const left = before[i] ?? '';
    const right = after[i] ?? '';
    const padding = ' '.repeat(Math.max(0, COLUMN - left.length));
    return `    ${(i === 0 ? label : '').padEnd(INDENT - 4)}${paintBefore(left)}${padding}${paintAfter(right)}`.trimEnd();
  });
}

function changeTable(report: RangeDiffReport, colour: Paint): string[] {
  const labels = Math.max(...report.changes.map((c) => c.label.length), 'change'.length);
  const commits = Math.max(...report.changes.map((c) => (c.commit ?? '').length));
  const row = (c: ReportChange): string => {
    const { different } = c;
    const mark = different.inputs === 0 ? '=' : '!';
    const text = `  ${c.label.padEnd(labels)}  ${(c.commit ?? '').padEnd(commits)} ${mark}${counts(different)}  ${c.undone ? '(taken back) ' : ''}${c.title}`;
    return different.inputs === 0 ? colour.dim(text) : text;
  };
  const head = `  ${'change'.padEnd(labels)}  ${''.padEnd(commits)}  ${['exit', 'state', 'field'].map((h) => h.padStart(10)).join('')}`;
  const none = report.changes.filter((c) => c.different.inputs === 0).map((c) => c.label);
  const lines = [colour.bold(head), ...report.changes.map(row)];
  if (none.length > 0) lines.push(`  = no observable difference${atLevel(report)}: ${none.join(', ')}`);
  return lines;
}

function atLevel(report: RangeDiffReport): string {
  return report.level === 'field' ? '' : ` at --level ${report.level}`;
}

function counts(c: LevelCounts): string {
  return [c.exit, c.state, c.field].map((n) => (n === 0 ? '-' : number(n)).padStart(10)).join('');
}

function summary(report: RangeDiffReport, options: TextOptions): string[] {
  const { colour } = options;
  const { space, different } = report;
  const lines = [
    `${number(space.inputs)} inputs, every one of them run on both sides (${number(space.runs)} runs); nothing was sampled. ` +
      `${space.seconds.toFixed(1)} s, ${number(space.inputsPerSecond)} inputs/s.`,
  ];
  if (different.inputs === 0) lines.push(colour.bold(`No input differs${atLevel(report)}.`));
  else {
    const parts = (['exit', 'state', 'field'] as const)
      .filter((l) => different[l] > 0)
      .map((l) => `${number(different[l])} in ${LEVEL_WORDS[l]} (${l})`);
    lines.push(
      colour.bold(`${inputs(different.inputs)} ${different.inputs === 1 ? 'differs' : 'differ'}: ${parts.join(', ')}.`),
    );
  }
  if (different.leftOut > 0) lines.push(`${inputs(different.leftOut)} more at weaker levels, left out.`);
  if (report.changes.length > 0 && different.inputs > 0)
    lines.push(
      different.unattributed === 0
        ? 'Every difference belongs to a change.'
        : colour.red(`${inputs(different.unattributed)} with a difference that no change accounts for.`),
    );
  if (space.excluded.length > 0) {
    if (options.excluded)
      lines.push(
        'Not inputs:',
        ...space.excluded.flatMap((e) => wrap(e, WIDTH - 4).map((l, i) => (i === 0 ? `  - ${l}` : `    ${l}`))),
      );
    else lines.push(`What is not an input, and why: --excluded (${space.excluded.length}).`);
  }
  return lines;
}

function number(n: number): string {
  return n.toLocaleString('en-US');
}

function inputs(n: number): string {
  return n === 1 ? '1 input' : `${number(n)} inputs`;
}
