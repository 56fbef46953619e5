/** The report of a trace as lines for people. */
import type { Finding } from './finding.ts';
import type { Problem, TraceSummary } from './read-trace.ts';
import type { PlaceRow, TraceReport } from './trace-report.ts';

/** @param accent marks a headline */
export function traceReportLines(report: TraceReport, accent: (text: string) => string): string[] {
  const { faults, mmio, latency } = report;
  const lines: string[] = [];
  for (const file of report.files) lines.push(...fileLines(file));
  const section = (title: string, rows: readonly (readonly string[])[], head: readonly string[]): void => {
    if (rows.length > 0) lines.push('', accent(title), ...table([head, ...rows]));
  };
  section(
    `${count(faults.total)} page faults`,
    faults.kinds.map((k) => [
      k.code,
      k.bits === '' ? '-' : k.bits,
      count(k.count),
      Object.entries(k.outcomes)
        .map(([what, n]) => `${count(n)} ${what}`)
        .join(', '),
    ]),
    ['error code', 'bits', 'faults', 'what KVM did'],
  );
  section('by gfn', pairs(faults.byGfn), ['gfn', 'faults']);
  section('by 2M', pairs(faults.by2M), ['first gfn', 'faults']);
  section('by RIP', pairs(faults.byRip), ['RIP', 'faults']);
  if (faults.byVcpu.length > 1) section('by vCPU', pairs(faults.byVcpu), ['vCPU', 'faults']);
  if (faults.missed > 0)
    lines.push(`there were more places than are kept: counts by place are too low by up to ${faults.missed}`);
  section('exits', pairs(report.exits), ['reason', 'exits']);
  section(
    `${count(mmio.total)} MMIO accesses`,
    mmio.places.map((p) => [p.gpa, count(p.reads), count(p.writes), p.rate === null ? '-' : rate(p.rate)]),
    ['gpa', 'reads', 'writes', 'a second'],
  );
  if (latency !== null) {
    const { p50, p90, p99, max } = latency;
    const times = [p50, p90, p99, max].map((ns) => `${(ns / 1000).toFixed(1)} us`);
    lines.push('', accent('from the fault to the next entry'));
    lines.push(
      `  half below ${times[0]}, 90 % below ${times[1]}, 99 % below ${times[2]}, the longest ${times[3]} (${count(latency.count)} faults)`,
    );
  }
  lines.push('', accent(report.findings.length === 0 ? 'nothing odd was found' : `${report.findings.length} findings`));
  lines.push(...report.findings.flatMap((finding, i) => findingLines(finding, i + 1)));
  return lines;
}

function fileLines(file: { readonly file: string } & TraceSummary): string[] {
  const compressed = file.compression === 'none' ? '' : `, ${file.compression}`;
  const span = file.from === null || file.to === null ? '' : `, ${((file.to - file.from) / 1e9).toFixed(3)} s`;
  const lines = [
    `${file.file}: ${file.format}${compressed}, ${count(file.lines)} lines, ${count(file.kvmEvents)} events of KVM${span}`,
  ];
  const other = file.events - file.kvmEvents;
  if (other > 0) lines.push(`  ${count(other)} other events`);
  problem(lines, file.strange, 'are no events');
  problem(lines, file.broken, 'are cut off, or not as KVM prints them');
  problem(lines, file.lost, 'say that the tracer lost events: what is counted here is too low');
  problem(lines, file.backwards, 'have a time before that of the event before, on the same CPU');
  if (file.truncated) lines.push('  the file ends in the middle of a line');
  return lines;
}

function problem(lines: string[], found: Problem | null, what: string): void {
  if (found === null) return;
  lines.push(`  ${count(found.lines)} lines ${what}; the first is line ${found.firstLine}: ${found.text}`);
}

function findingLines(finding: Finding, n: number): string[] {
  const where = finding.lines.map((line) => count(line)).join(', ');
  const more = finding.count > finding.lines.length ? ', ...' : '';
  return [
    `${n}. ${finding.title}`,
    `   lines  ${where}${more}`,
    `   cause  ${finding.cause}`,
    `   do     ${finding.advice}`,
  ];
}

function pairs(rows: readonly PlaceRow[]): string[][] {
  return rows.map((row) => [row.at, count(row.count)]);
}

function count(n: number): string {
  return n.toLocaleString('en-US');
}

function rate(n: number): string {
  return n >= 10 ? count(Math.round(n)) : n.toFixed(1);
}

/** Columns side by side; a column of numbers to the right. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, c) => Math.max(...rows.map((row) => row[c]!.length)));
  const isNumber = rows[0]!.map((_, c) => rows.slice(1).every((row) => /^[\d,.]+$|^-$/.test(row[c]!)));
  return rows.map((row) =>
    `  ${row.map((cell, c) => (isNumber[c] ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!))).join('  ')}`.trimEnd(),
  );
}
