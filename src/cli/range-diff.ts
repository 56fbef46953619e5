/** `softkvm range-diff A B`. */
import { type Command, Option } from 'commander';
import type { DifferenceLevel } from '../tools/fault-machine/outcome.ts';
import { LEVELS } from '../tools/range-diff/group.ts';
import { loadRevision } from '../tools/range-diff/load-revision.ts';
import { rangeDiff } from '../tools/range-diff/range-diff.ts';
import { EFFECTS, reportLines } from '../tools/range-diff/report-text.ts';
import { EXIT_FAILED, EXIT_OK } from './exit-status.ts';
import { colour, Progress, print, printJson } from './output.ts';

interface Options {
  readonly expect?: 'none';
  readonly level: DifferenceLevel;
  readonly sequential?: boolean;
  readonly all?: boolean;
  readonly excluded?: boolean;
  readonly json?: boolean;
}

export function addRangeDiff(program: Command): void {
  program
    .command('range-diff <a> <b>')
    .description('what changed in behaviour between two revisions of the fault path, over all of its inputs')
    .addOption(new Option('--expect <what>', 'exit 1 if anything differs').choices(['none']))
    .addOption(
      new Option(
        '--level <level>',
        "the weakest difference to report: what userspace or the guest sees, KVM's state, fields of the fault",
      )
        .choices([...LEVELS])
        .default('field'),
    )
    .option('--sequential', 'leave out inputs with an invalidation in the middle of the fault')
    .option('--all', 'every effect, every part of its condition, and everything that differs')
    .option('--excluded', 'list what is not an input, and why')
    .option('--json', 'machine-readable output')
    .addHelpText(
      'after',
      "\nA and B are names (an unknown one is answered with the list), NAME@N after patch N, or a file with a revision of one's own.\n\nExit status: 0; 1 with --expect none when an input differs; 2 for bad input.\n\nExample:\n  softkvm range-diff linux-6.9 series-v2\n  softkvm range-diff series-v2@9 series-v2@10 --level exit\n  softkvm range-diff linux-6.12 ./examples/my-revision.ts --expect none",
    )
    .action(async (a: string, b: string, options: Options) => {
      process.exitCode = await run(a, b, options);
    });
}

async function run(a: string, b: string, options: Options): Promise<number> {
  const [before, after] = [await loadRevision(a), await loadRevision(b)];
  for (const side of [before, after])
    if (side.unchecked)
      process.stderr.write(`softkvm: ${side.argument}: types not checked: no typescript package can be found\n`);
  const progress = new Progress();
  const n = (x: number): string => x.toLocaleString('en-US');
  const report = rangeDiff(before, after, {
    level: options.level,
    sequential: options.sequential === true,
    ...(options.json || options.all ? {} : { most: EFFECTS }),
    onProgress: (done, all) =>
      progress.update(() => (done < all ? `${n(done)} of ${n(all)} inputs` : 'conditions of what differs')),
  });
  progress.done();
  if (options.json) printJson(report);
  else
    for (const line of reportLines(report, { colour, all: options.all === true, excluded: options.excluded === true }))
      print(line);
  return options.expect === 'none' && report.different.inputs > 0 ? EXIT_FAILED : EXIT_OK;
}
