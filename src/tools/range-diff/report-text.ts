/** A range-diff report as text: a block for each change, the table of changes, and what was enumerated. */
import { wrap } from '../explain/wrap.ts';
import type { DifferenceLevel } from '../fault-machine/outcome.ts';
import { ANY_INPUT } from './condition-text.ts';
import type { LevelCounts, RangeDiffReport, ReportChange, ReportCondition, ReportDifference } from './report.ts';

type Brush = (text: string) => string;
export type Paint = { readonly [name in 'bold' | 'dim' | 'red' | 'green' | 'yellow']: Brush };

export interface TextOptions {
  readonly colour: Paint;
  /** Print every difference, every part of its condition, and everything that differs. */
  readonly all: boolean;
  /** Print what is not an input, and why. */
  readonly excluded: boolean;
}

/** How many effects of a change, parts of a condition and things that differ are printed without --all, and how many of one kind. */
export const EFFECTS = 3;
const SOME = 3;
const OF_A_KIND = 2;
const WIDTH = 120;
/** Where the words of a difference begin, and how far the second of the two outcomes is from there. */
const INDENT = 20;
const COLUMN = 48;

const LEVEL_WORDS: Readonly<Record<DifferenceLevel, string>> = {
  exit: 'what userspace or the guest sees',
  state: "KVM's own state",
  field: 'fields of the fault object only',
};

export function reportLines(report: RangeDiffReport, options: TextOptions): string[] {
  const { colour } = options;
  const { before, after } = report;
  const lines = [colour.bold(`${before.name} (${before.title}) to ${after.name} (${after.title})`), ''];
  for (const change of report.changes)
    if (change.different.inputs > 0) lines.push(...changeBlock(change, report, options), '');
  if (report.changes.some((c) => c.commit !== null)) lines.push(...changeTable(report, colour), '');
  lines.push(...summary(report, options));
  return lines;
}

function changeBlock(change: ReportChange, report: RangeDiffReport, options: TextOptions): string[] {
  const { colour, all } = options;
  const { label, commit, title, symptom } = change;
  const name = label === '' ? 'no change accounts for this' : label;
  const head = [name, commit === label ? null : commit, change.undone ? '(taken back)' : null, title].filter(
    (w) => w !== null,
  );
  const lines = [
    `${colour.yellow(head.join('  '))}  ${colour.dim(inputs(change.different.inputs))}`,
    ...wrap(symptom ?? '', WIDTH - 2).map((l) => colour.dim(`  ${l}`)),
  ];
  lines.push(...conditionBlock('when', change.conditions, options));
  const shown = all ? change.differences : change.differences.slice(0, EFFECTS);
  for (const [i, d] of shown.entries()) {
    const when = change.differences.length === 1 ? null : i === 0 ? 'if' : 'else if';
    lines.push(...differenceLines(d, change, when, report, options));
  }
  const rest = change.differences.slice(shown.length);
  if (rest.length > 0)
    lines.push(
      colour.dim(`  ${rest.length} more ${rest.length === 1 ? 'effect' : 'effects'}, on ${inputs(total(rest))}: --all`),
    );
  return lines;
}

function differenceLines(
  d: ReportDifference,
  change: ReportChange,
  when: string | null,
  report: RangeDiffReport,
  options: TextOptions,
): string[] {
  const { colour, all } = options;
  const lines = [`  ${colour.bold(d.level)}  ${colour.dim(extent(d, all))}`];
  if (when !== null) {
    const rest = d.conditions.length === 1 && d.conditions[0]!.text === ANY_INPUT;
    lines.push(...(rest ? labelled('otherwise', '') : conditionBlock(when, d.conditions, options)));
  }
  lines.push(...sides('', [nameOf(change.from, report)], [nameOf(change.to, report)]).map(colour.dim));
  const { leaves } = d;
  if (leaves.before !== leaves.after || d.level === 'exit')
    lines.push(...changeLines('leaves', leaves.before, leaves.after, colour));
  else if (!leaves.before.includes(';'))
    lines.push(...labelled('leaves', `${leaves.before}, on both sides`).map(colour.dim));
  const seen = all ? d.changes : typical(d);
  for (const c of seen) {
    const count = c.inputs === d.inputs ? '' : `  (${number(c.inputs)} of them)`;
    lines.push(...changeLines(c.field, c.before, `${c.after}${count}`, colour));
  }
  if (d.changes.length > seen.length)
    lines.push(...labelled('', `and ${d.changes.length - seen.length} more: --all`).map(colour.dim));
  lines.push(colour.dim(`    ${'see'.padEnd(INDENT - 4)}${d.witness.compare}`));
  return lines;
}

/** A file's revision by its name. */
function nameOf(argument: string, { before, after }: RangeDiffReport): string {
  return [before, after].find((side) => side.argument === argument)?.name ?? argument;
}

/** The most frequent of what differs at the levels that matter, not too many of one kind. */
function typical(d: ReportDifference): ReportDifference['changes'] {
  const kinds = new Map<string, number>();
  return d.changes
    .filter((c) => {
      if (c.level === 'field' && d.level !== 'field') return false;
      const seen = kinds.get(c.field) ?? 0;
      kinds.set(c.field, seen + 1);
      return seen < OF_A_KIND;
    })
    .slice(0, SOME);
}

/** How many inputs, and how many of them without an invalidation. */
function extent(d: ReportDifference, all: boolean): string {
  const disturbed = d.inputs - d.undisturbed;
  const impossible = d.possible ? '' : '; codes that no hardware produces';
  if (disturbed === 0) return `${inputs(d.inputs)}${impossible}`;
  if (d.undisturbed === 0) return `${inputs(d.inputs)}, all with an invalidation${impossible}`;
  if (d.conditions.some((c) => c.invalidation === 'any'))
    return `${inputs(d.inputs)}, with or without an invalidation${impossible}`;
  const when = all ? '' : ' (when: --all)';
  return `${inputs(d.undisturbed)}, and ${number(disturbed)} with an invalidation${when}${impossible}`;
}

/** Without --all not those with an invalidation, where there are any without. */
function conditionBlock(label: string, conditions: readonly ReportCondition[], options: TextOptions): string[] {
  const undisturbed = conditions.some((c) => c.invalidation === 'none');
  return (['any', 'none', 'some'] as const).flatMap((kind) => {
    if (kind === 'some' && undisturbed && !options.all) return [];
    const own = conditions.filter((c) => c.invalidation === kind);
    return conditionLines(kind === 'some' && undisturbed ? 'or, invalidated' : label, own, options);
  });
}

function conditionLines(label: string, conditions: readonly ReportCondition[], { colour, all }: TextOptions): string[] {
  const shown = all ? conditions : conditions.slice(0, SOME);
  const lines = shown.flatMap((c, i) => {
    const count = conditions.length > 1 ? `  (${number(c.inputs)})` : '';
    return labelled(i === 0 ? label : 'or', `${c.text}${count}`);
  });
  const rest = conditions.slice(shown.length);
  if (rest.length > 0)
    lines.push(
      ...labelled('or', `${rest.length} more, of ${number(rest[0]!.inputs)} and fewer: --all`).map(colour.dim),
    );
  return lines;
}

function labelled(label: string, text: string): string[] {
  const lines = text === '' ? [''] : wrap(text, WIDTH - INDENT);
  return lines.map((l, i) => `    ${(i === 0 ? label : '').padEnd(INDENT - 4)}${l}`.trimEnd());
}

function changeLines(field: string, before: string, after: string, colour: Paint): string[] {
  return sides(field, wrap(before, COLUMN - 2), wrap(after, COLUMN - 2), colour.red, colour.green);
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
  const commitOf = (c: ReportChange): string => (c.commit === null || c.commit === c.label ? '' : c.commit);
  const labels = Math.max(...report.changes.map((c) => c.label.length), 'change'.length);
  const commits = Math.max(...report.changes.map((c) => commitOf(c).length));
  const row = (c: ReportChange): string => {
    const { different } = c;
    const mark = different.inputs === 0 ? '=' : '!';
    const text = `  ${c.label.padEnd(labels)}  ${commitOf(c).padEnd(commits)} ${mark}${counts(different)}  ${c.undone ? '(taken back) ' : ''}${c.title}`;
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
    `${number(space.inputs)} inputs, every one of them on both sides; nothing was sampled. ${number(space.runs)} runs of the fault path, ` +
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
  if (different.inputs > 0 && different.racing === different.inputs)
    lines.push('All of them with an invalidation in the middle of the fault: a race. Without one, no input differs.');
  if (different.leftOut > 0) lines.push(`${number(different.leftOut)} more at weaker levels, left out.`);
  if (report.changes.some((c) => c.commit !== null) && different.inputs > 0)
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

function total(parts: readonly { readonly inputs: number }[]): number {
  return parts.reduce((sum, p) => sum + p.inputs, 0);
}

function number(n: number): string {
  return n.toLocaleString('en-US');
}

function inputs(n: number): string {
  return n === 1 ? '1 input' : `${number(n)} inputs`;
}
