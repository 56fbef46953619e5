/** `softkvm conform PATH...`. */
import { writeFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import type { EngineName } from '../cpu/compiler/engine.ts';
import { type ConformReport, conform } from '../tools/conform/conform.ts';
import { scenarioLines, totalLines } from '../tools/conform/report.ts';
import { splitParams } from '../tools/module-params.ts';
import { EXIT_FAILED, EXIT_OK } from './exit-status.ts';
import { collect, engineOption, untilInterrupted, useEngine } from './options.ts';
import { colour, Progress, print, printJson } from './output.ts';

interface Options {
  readonly only?: 'contract';
  readonly json?: boolean;
  readonly verbose?: boolean;
  readonly quiet?: boolean;
  readonly allowUnsupported?: boolean;
  readonly engine: EngineName;
  readonly param: readonly string[];
  readonly hardware?: string;
  readonly revision?: string;
  readonly list?: string;
}

export function addConform(program: Command): void {
  program
    .command('conform <paths...>')
    .description('replay recorded scenarios from real KVM and compare every answer')
    .addOption(
      new Option('--only <what>', 'compare the contract alone: ret, errno, run, regs, out').choices(['contract']),
    )
    .option('--quiet', 'lines for scenarios that did not pass only')
    .option('--verbose', 'what each scenario asks, and differences in full')
    .option('--allow-unsupported', 'exit 0 although some scenarios are not supported yet')
    .option('--param <name=value>', "KVM module parameter in place of the folder's (repeatable)", collect, [])
    .option('--hardware <profile>', "hardware profile in place of the folder's")
    .addOption(engineOption('interpreter'))
    .option('--revision <name>', 'revision of the fault path')
    .option('--list <file>', 'write what did not pass, with its cause, as JSON')
    .option('--json', 'machine-readable output')
    .addHelpText(
      'after',
      '\nExit status: 0 when every scenario passed, 1 when one failed or is not supported yet, 2 for bad input.\n\nExample:\n  softkvm conform conformance/npt\n  softkvm conform conformance/npt/mmio-cache-evict.json --verbose\n  softkvm conform conformance/npt --only contract --json',
    )
    .action(async (paths: readonly string[], options: Options) => {
      useEngine(options.engine);
      process.exitCode = await run(paths, options);
    });
}

async function run(paths: readonly string[], options: Options): Promise<number> {
  const contractOnly = options.only === 'contract';
  const progress = new Progress();
  const report = await untilInterrupted((requested) =>
    conform(paths, {
      contractOnly,
      params: splitParams(options.param),
      ...(options.hardware === undefined ? {} : { hardware: options.hardware }),
      ...(options.revision === undefined ? {} : { revision: options.revision }),
      stopped: requested,
      onScenario: (result, done, all) => {
        progress.update(() => `${done} of ${all}`);
        if (options.json || (result.full && options.quiet)) return;
        progress.done();
        for (const line of scenarioLines(result, colour, options.verbose === true)) print(line);
      },
    }),
  );
  progress.done();
  if (options.list !== undefined) writeFileSync(options.list, knownFailures(report));
  if (options.json) printJson(report);
  else for (const line of totalLines(report, contractOnly, colour)) print(line);
  return holds(report, { contractOnly, allowUnsupported: options.allowUnsupported === true }) ? EXIT_OK : EXIT_FAILED;
}

function holds(report: ConformReport, asked: { contractOnly: boolean; allowUnsupported: boolean }): boolean {
  const t = report.total;
  const passed = asked.contractOnly ? t.contractPassed : t.passed;
  const permission = report.permissionFault;
  return (
    !report.interrupted &&
    passed + (asked.allowUnsupported ? t.unsupported : 0) === t.scenarios &&
    (permission === undefined || permission.equal === permission.answers)
  );
}

function knownFailures(report: ConformReport): string {
  const known = report.scenarios
    .filter((s) => !s.full)
    .map((s) => [s.path.replaceAll('\\', '/'), { contract: s.contract, cause: s.cause }] as const);
  return `${JSON.stringify(Object.fromEntries(known), null, 2)}\n`;
}
