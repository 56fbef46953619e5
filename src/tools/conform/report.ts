/** The text of a replay: a line a scenario, the first difference of a failing one, totals by cause. */
import type { ConformReport, ScenarioResult } from './conform.ts';

export interface Paint {
  readonly green: (s: string) => string;
  readonly red: (s: string) => string;
  readonly yellow: (s: string) => string;
  readonly bold: (s: string) => string;
  readonly dim: (s: string) => string;
}

/** The lines for one scenario. */
export function scenarioLines(r: ScenarioResult, paint: Paint): string[] {
  if (r.full) return [`${paint.green('pass')}  ${r.path}`];
  if (r.status === 'unsupported') return [`${paint.yellow('----')}  ${r.path}: ${r.cause}`];
  const contract = r.contract ? ' (contract holds)' : '';
  const d = r.firstDifference;
  if (d === undefined)
    return [
      `${paint.red('FAIL')}  ${r.path}: ${r.cause}`,
      ...(r.stack ?? '')
        .split('\n')
        .slice(1, 6)
        .map((line) => paint.dim(`    ${line}`)),
    ];
  const where = d.step < 0 ? 'set-up' : `step ${d.step} (${d.op?.op})`;
  return [
    `${paint.red('FAIL')}  ${r.path}: ${where}, ${d.path}${contract}`,
    paint.dim(`        before  ${beforeText(d.before)}`),
    `        ours    ${valueText(d.ours)}`,
    `        theirs  ${valueText(d.theirs)}`,
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

function beforeText(before: { readonly [field: string]: unknown } | null): string {
  if (before === null) return 'nothing has run yet';
  return valueText(before);
}

function valueText(value: unknown): string {
  if (value === undefined) return '(nothing)';
  const text = typeof value === 'string' ? value : JSON.stringify(value).replaceAll('"', '').replaceAll(',', ' ');
  return text.length > 400 ? `${text.slice(0, 397)}...` : text;
}
