/** The series as text: the table, and one row's demonstration in two columns, or in two blocks where the terminal is narrow. */
import { wrap } from '../explain/wrap.ts';
import type { Side, StageView } from './demonstration.ts';
import type { CaseReport, RowReport, SeriesTableRow } from './series.ts';
import { type PairedLine, sideDifferences } from './side-differences.ts';

/** What marks a line; the identity for each where nothing is coloured. */
export interface Paint {
  readonly strong: (text: string) => string;
  readonly faint: (text: string) => string;
  readonly changed: (text: string) => string;
}

/** Columns below which two blocks are printed instead of two columns. */
const TWO_COLUMNS = 100;
const WIDEST = 160;
const GAP = '  ';
const MARK = '≠ ';
/** A stage that the revision does not have there, or that the fault did not reach. */
const NOT_ASKED = '-';

/** The table: two lines a row, and more where the terminal is narrow. */
export function tableLines(rows: readonly SeriesTableRow[], width: number, paint: Paint): string[] {
  const columns = Math.min(width, WIDEST);
  const lines = [paint.strong('row   v2   v1  commit        title')];
  for (const r of rows) {
    const mails = `${String(r.v2).padStart(2)}/17  ${r.v1 === null ? ' new' : `${String(r.v1).padStart(2)}/16`}`;
    const head = `${String(r.row).padStart(3)}  ${mails}  ${r.commit.padEnd(12)}  `;
    const pad = ' '.repeat(5);
    lines.push(paint.strong(`${head}${r.title}`));
    for (const line of wrap(r.differs, columns - 5)) lines.push(`${pad}${line}`);
    const where = `in: ${r.carriedBy}; held by: ${r.held}${r.difference === 'behaviour' ? '' : ` (${r.difference === 'field' ? 'fields only' : 'no functional change'})`}`;
    for (const line of wrap(where, columns - 5)) lines.push(paint.faint(`${pad}${line}`));
  }
  return lines;
}

/** One row's demonstration. */
export function rowLines(report: RowReport, width: number, paint: Paint): string[] {
  const columns = Math.min(width, WIDEST);
  const v1 = report.v1 === null ? 'new in v2' : `v1 ${report.v1}/16`;
  const lines = [
    paint.strong(`row ${report.row}: ${report.title}`),
    ...wrap(`${report.commit}, v2 ${report.v2}/17, ${v1}; carried by ${report.carriedBy}`, columns),
    ...wrap(`What differs: ${report.differs}.`, columns),
  ];
  for (const [i, c] of report.cases.entries()) {
    const title = report.cases.length === 1 ? '' : `Case ${i + 1} of ${report.cases.length}. `;
    lines.push('', ...wrap(`${title}${c.setting}`, columns), ...wrap(`Input: ${c.input}.`, columns));
    if (c.explain !== null) lines.push(paint.faint(`softkvm explain ${c.explain} --revision ${report.before}`));
    lines.push('', ...sideLines(report, c, columns, paint));
    if (c.fixedBy !== null) lines.push(`Fixed by ${c.fixedBy}.`);
  }
  if (report.equality !== null) lines.push('', ...equalityLines(report.equality, columns));
  lines.push('', ...wrap(`What it is for: ${report.purpose}`, columns));
  lines.push(report.shown ? 'The difference is there.' : paint.changed('THE DIFFERENCE IS NOT THERE.'));
  if (report.cases.length === 0 && report.shown) lines[lines.length - 1] = 'Both sides are equal, as they must be.';
  return lines;
}

function equalityLines(equality: NonNullable<RowReport['equality']>, columns: number): string[] {
  const { inputs, different, announced } = equality;
  const count = inputs.toLocaleString('en-US');
  const differ =
    different === 0
      ? 'none differs'
      : `${different.toLocaleString('en-US')} differ, ${announced.toLocaleString('en-US')} of them as announced`;
  return wrap(`Equality over ${count} inputs, ${differ}: ${equality.words}.`, columns);
}

interface Pair {
  readonly before: string;
  readonly after: string;
  readonly same: boolean;
}

function sideLines(report: RowReport, c: CaseReport, columns: number, paint: Paint): string[] {
  const { before, after } = c;
  const differences = sideDifferences(before, after);
  const pairs: Pair[] = [
    ...stagePairs(differences.stages),
    ...textPairs('log: ', differences.log),
    ...tracePairs(differences.trace),
    ...differences.facts.map((f) => ({
      before: `${f.name}: ${f.before}`,
      after: `${f.name}: ${f.after}`,
      same: false,
    })),
    both('left: ', before, after, (side) => side.left),
    both('sees: ', before, after, (side) => side.sees),
  ];
  const titles = { before: `before: ${report.before}`, after: `after: ${report.after}`, same: true };
  return columns >= TWO_COLUMNS ? twoColumns(titles, pairs, columns, paint) : twoBlocks(titles, pairs, columns, paint);
}

function both(label: string, before: Side, after: Side, of: (side: Side) => string): Pair {
  return { before: `${label}${of(before)}`, after: `${label}${of(after)}`, same: of(before) === of(after) };
}

/** Stages that answer alike are named; those that do not say why. */
function stagePairs(lines: readonly PairedLine<StageView>[]): Pair[] {
  return lines.map(({ before, after, same }) => ({
    before: before === null ? NOT_ASKED : stageText(before, same),
    after: after === null ? NOT_ASKED : stageText(after, same),
    same,
  }));
}

function stageText(stage: StageView, same: boolean): string {
  const verdict = stage.verdict.replace('RET_PF_', '');
  const plain = same && verdict === 'CONTINUE';
  return `${stage.name}: ${verdict}${plain ? '' : `, ${stage.reason}`}`;
}

function textPairs(label: string, lines: readonly PairedLine<string>[]): Pair[] {
  return lines.map(({ before, after, same }) => ({
    before: before === null ? '' : `${label}${before}`,
    after: after === null ? '' : `${label}${after}`,
    same,
  }));
}

/** Only trace lines that differ are printed. */
function tracePairs(lines: readonly PairedLine<string>[]): Pair[] {
  const different = lines.filter((line) => !line.same);
  const pairs = textPairs('trace: ', different);
  const alike = lines.length - different.length;
  if (alike === 0) return pairs;
  const text = `trace: ${alike} ${alike === 1 ? 'line' : 'lines'} alike`;
  return [...pairs, { before: text, after: text, same: true }];
}

function twoColumns(titles: Pair, pairs: readonly Pair[], columns: number, paint: Paint): string[] {
  const width = Math.floor((columns - MARK.length - GAP.length) / 2);
  const lines = [paint.strong(`${' '.repeat(MARK.length)}${titles.before.padEnd(width)}${GAP}${titles.after}`)];
  for (const pair of pairs) {
    const left = hanging(pair.before, width);
    const right = hanging(pair.after, width);
    for (let i = 0; i < Math.max(left.length, right.length, 1); i++) {
      const mark = !pair.same && i === 0 ? MARK : ' '.repeat(MARK.length);
      const line = `${mark}${(left[i] ?? '').padEnd(width)}${GAP}${right[i] ?? ''}`.trimEnd();
      lines.push(pair.same ? paint.faint(line) : paint.changed(line));
    }
  }
  return lines;
}

function twoBlocks(titles: Pair, pairs: readonly Pair[], columns: number, paint: Paint): string[] {
  const block = (side: 'before' | 'after'): string[] => {
    const lines = [paint.strong(titles[side])];
    for (const pair of pairs) {
      if (pair[side] === '' || pair[side] === NOT_ASKED) continue;
      hanging(pair[side], columns - MARK.length).forEach((text, i) => {
        const line = `${!pair.same && i === 0 ? MARK : ' '.repeat(MARK.length)}${text}`;
        lines.push(pair.same ? paint.faint(line) : paint.changed(line));
      });
    }
    return lines;
  };
  return [...block('before'), '', ...block('after')];
}

/** Wrapped, with the lines after the first one indented. */
function hanging(text: string, width: number): string[] {
  const [first, ...rest] = wrap(text, width);
  if (first === undefined) return [];
  if (rest.length === 0) return [first];
  const tail = text.slice(first.length).trimStart();
  return [first, ...wrap(tail, width - 2).map((line) => `  ${line}`)];
}
