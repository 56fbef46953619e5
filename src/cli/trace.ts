/** `softkvm trace`. */
import type { Command } from 'commander';
import { UnsupportedError } from '../tools/input-error.ts';
import { traceReportLines } from '../tools/trace/report-text.ts';
import { TraceReporter } from '../tools/trace/trace-report.ts';
import { count } from './options.ts';
import { colour, print, printJson } from './output.ts';

/** What the contract has and this does not yet. */
const LATER = ['import', 'sql', 'convert', 'replay'] as const;

export function addTrace(program: Command): void {
  const trace = program
    .command('trace')
    .description('read traces of KVM events: ftrace, trace-cmd report, perf script')
    .addHelpText('after', '\nExample:\n  softkvm trace report trace.txt');
  trace
    .command('report <file...>')
    .description(
      'faults by kind and place, MMIO, exits, and what is odd; - reads stdin; gzip and zstd are seen by content',
    )
    .option('--top <n>', 'rows of a table', count('--top', 'a count of rows'), 10)
    .option('--json', 'machine-readable output')
    .addHelpText(
      'after',
      `
Example:
  softkvm trace report trace.txt
  trace-cmd report | softkvm trace report -
  perf script | softkvm trace report --json -`,
    )
    .action(async (files: readonly string[], options: { readonly top: number; readonly json?: boolean }) => {
      const reporter = new TraceReporter(options.top);
      for (const file of files) await reporter.read(file);
      const report = reporter.report();
      if (options.json === true) printJson(report);
      else for (const line of traceReportLines(report, colour.bold)) print(line);
    });
  for (const name of LATER) {
    trace
      .command(`${name} [args...]`)
      .description('(not supported yet)')
      .allowUnknownOption()
      .action(() => {
        throw new UnsupportedError(`softkvm trace ${name}`);
      });
  }
}
