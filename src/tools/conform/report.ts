/** The text of a replay: a line a scenario, the first difference of a failing one, totals by cause. */
import type { ConformReport, ScenarioResult } from './conform.ts';

export interface Paint {
  readonly green: (s: string) => string;
  readonly red: (s: string) => string;
  readonly yellow: (s: string) => string;
  readonly bold: (s: string) => string;
  readonly dim: (s: string) => string;
}

/** The lines for one scenario: one, and for one that failed the first difference; `verbose` adds its question and whole values. */
export function scenarioLines(r: ScenarioResult, paint: Paint, verbose = false): string[] {
  const question = verbose ? [paint.dim(`        ${r.title}`)] : [];
  if (r.full) return [`${paint.green('pass')}  ${r.path}`, ...question];
  if (r.status === 'unsupported') return [`${paint.yellow('----')}  ${r.path}: ${r.cause}`, ...question];
  const d = r.firstDifference;
  if (d === undefined) {
    const stack = verbose ? (r.stack ?? '').split('\n').slice(1, 8) : [];
    return [`${paint.red('FAIL')}  ${r.path}: ${r.cause}`, ...stack.map((line) => paint.dim(`    ${line}`))];
  }
  const contract = r.contract ? ' (contract holds)' : '';
  const where = d.step < 0 ? 'set-up' : `step ${d.step} (${d.op?.op})`;
  const most = verbose ? Number.POSITIVE_INFINITY : 400;
  return [
    `${paint.red('FAIL')}  ${r.path}: ${where}, ${d.path}${contract}`,
    ...question,
    paint.dim(`        before  ${d.before === null ? 'nothing has run yet' : valueText(d.before, most)}`),
    `        ours    ${valueText(d.ours, most)}`,
    `        theirs  ${valueText(d.theirs, most)}`,
  ];
}

/** The totals, and the causes of what did not pass. */
export function totalLines(report: ConformReport, contractOnly: boolean, paint: Paint): string[] {
  const t = report.total;
  const lines: string[] = [];
  if (report.causes.length > 0) {
    lines.push('', paint.bold('By cause'));
    for (const c of report.causes) lines.push(`${String(c.scenarios).padStart(5)}  ${c.cause}`);
  }
  lines.push('');
  if (report.permissionFault !== undefined) {
    const p = report.permissionFault;
    lines.push(
      `permission-fault.txt: ${p.equal} of ${p.answers} answers equal${p.first === undefined ? '' : `; first difference: ${p.first}`}`,
    );
  }
  if (t.scenarios > 0) {
    const percent = (n: number): string => `${((100 * n) / t.scenarios).toFixed(1)} %`;
    lines.push(
      `${t.scenarios} scenarios: ${contractOnly ? '' : `${t.passed} passed in full (${percent(t.passed)}), `}` +
        `${t.contractPassed} in the contract (${percent(t.contractPassed)}), ${t.failed} failed, ${t.unsupported} not supported yet`,
    );
  }
  if (report.interrupted) lines.push('interrupted: the rest was not replayed');
  return lines;
}

function valueText(value: unknown, most: number): string {
  if (value === undefined) return '(nothing)';
  const text = typeof value === 'string' ? value : JSON.stringify(value).replaceAll('"', '').replaceAll(',', ' ');
  return text.length > most ? `${text.slice(0, most - 3)}...` : text;
}
