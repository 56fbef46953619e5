/** `softkvm series`. */
import type { Command } from 'commander';
import { demonstrateRow, demonstrations, type RowReport, rowNumber, seriesTable } from '../tools/series/series.ts';
import { type Paint, rowLines, tableLines } from '../tools/series/series-text.ts';
import { EXIT_FAILED } from './exit-status.ts';
import { colour, Progress, print, printJson } from './output.ts';

/** Columns where nobody says how many there are. */
const COLUMNS = 132;

const paint: Paint = { strong: colour.bold, faint: colour.dim, changed: colour.yellow };

export function addSeries(program: Command): void {
  program
    .command('series [row]')
    .description(
      'the seventeen patches of the series: the table; with 1 to 17 one patch on both sides of the change, with all every one, a line each',
    )
    .option('--json', 'machine-readable output')
    .addHelpText('after', '\nExample:\n  softkvm series\n  softkvm series 10\n  softkvm series all')
    .action((row: string | undefined, options: { json?: boolean }) => {
      const width = process.stdout.columns ?? (Number(process.env['COLUMNS']) || COLUMNS);
      if (row === 'all') showAll(options.json === true);
      else if (row === undefined) showTable(options.json === true, width);
      else showRow(rowNumber(row), options.json === true, width);
    });
}

function showTable(json: boolean, width: number): void {
  const rows = seriesTable();
  if (json) printJson({ version: 1, rows });
  else for (const line of tableLines(rows, width, paint)) print(line);
}

function showRow(row: number, json: boolean, width: number): void {
  const report = withProgress(row);
  if (json) printJson({ version: 1, ...report });
  else for (const line of rowLines(report, width, paint)) print(line);
  if (!report.shown) process.exitCode = EXIT_FAILED;
}

function showAll(json: boolean): void {
  const reports: RowReport[] = [];
  for (const { row } of demonstrations) {
    const report = withProgress(row);
    reports.push(report);
    if (!json) print(allLine(report));
  }
  const missing = reports.filter((report) => !report.shown).map((report) => report.row);
  if (json) printJson({ version: 1, rows: reports });
  else if (missing.length === 0) print(`all ${reports.length} rows hold`);
  else print(colour.red(`not there: row ${missing.join(', ')}`));
  if (missing.length > 0) process.exitCode = EXIT_FAILED;
}

function allLine(report: RowReport): string {
  const number = String(report.row).padStart(2);
  const good = report.cases.length === 0 ? 'equal    ' : 'there    ';
  const mark = report.shown ? colour.green(good) : colour.red('NOT THERE');
  const { equality } = report;
  const cases = report.cases.length === 0 ? '' : `${report.cases.length} shown`;
  const equal = equality === null ? '' : `equal over ${equality.inputs.toLocaleString('en-US')} inputs`;
  const but =
    equality !== null && equality.different > 0
      ? ` but for ${equality.different.toLocaleString('en-US')} announced`
      : '';
  const how = [cases, `${equal}${but}`].filter((text) => text !== '').join(', ');
  return `${number}  ${mark}  ${report.before} -> ${report.after}: ${how}; ${report.title}`;
}

function withProgress(row: number): RowReport {
  const progress = new Progress();
  const report = demonstrateRow(row, {
    onProgress: (done, all) =>
      progress.update(() => `row ${row}: ${done.toLocaleString('en-US')} of ${all.toLocaleString('en-US')} inputs`),
  });
  progress.done();
  return report;
}
