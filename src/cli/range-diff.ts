/** `softkvm range-diff A B`. */
import { type Command, Option } from 'commander';
import { historyBetween, revisionByName } from '../kvm/mmu/revisions/index.ts';
import type { Revision } from '../kvm/mmu/revisions/revision.ts';
import { StageError } from '../tools/fault-machine/fault-machine.ts';
import { inputFlags } from '../tools/fault-machine/input-text.ts';
import type { DifferenceLevel } from '../tools/fault-machine/outcome.ts';
import { InputError } from '../tools/input-error.ts';
import { enumerate } from '../tools/range-diff/enumerate.ts';
import { LEVELS } from '../tools/range-diff/group.ts';
import { type LoadedRevision, loadRevision } from '../tools/range-diff/load-revision.ts';
import { type RangeDiffReport, type ReportSide, reportOf, sequential } from '../tools/range-diff/report.ts';
import { reportLines } from '../tools/range-diff/report-text.ts';
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
        'the weakest difference to report: what userspace or the guest sees, KVM state, fault fields',
      )
        .choices([...LEVELS])
        .default('field'),
    )
    .option('--sequential', 'leave out inputs with an invalidation in the middle of the fault')
    .option('--all', 'every part of a condition, and everything else that differs')
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
      process.stderr.write(
        `softkvm: ${side.argument}: types not checked: there is no typescript package here or beside it\n`,
      );
  const report = compare(before, after, options);
  if (options.json) printJson(report);
  else
    for (const line of reportLines(report, { colour, all: options.all === true, excluded: options.excluded === true }))
      print(line);
  return options.expect === 'none' && report.different.inputs > 0 ? EXIT_FAILED : EXIT_OK;
}

function compare(before: LoadedRevision, after: LoadedRevision, options: Options): RangeDiffReport {
  const progress = new Progress();
  try {
    const space = enumerate(before.revision, after.revision, {
      onProgress: (done: number, all: number) =>
        progress.update(() => `${done.toLocaleString('en-US')} of ${all.toLocaleString('en-US')} inputs`),
    });
    progress.update(() => 'conditions');
    return reportOf(options.sequential ? sequential(space) : space, {
      before: sideOf(before),
      after: sideOf(after),
      history:
        historyBetween(before.revision, after.revision)?.map((s) => ({ ...s, revision: nameOf(s.revision) })) ?? null,
      level: options.level,
      flagsOf: inputFlags,
    });
  } catch (error) {
    throw stageFailure(error, [before, after]);
  } finally {
    progress.done();
  }
}

/** What a stage of a user's revision throws is an error of its file; what one of ours throws is a bug. */
function stageFailure(error: unknown, sides: readonly LoadedRevision[]): unknown {
  if (!(error instanceof StageError)) return error;
  if (error.cause instanceof InputError) return error.cause;
  const side = sides.find((s) => s.revision.name === error.revision && s.file !== null);
  if (side === undefined) return error;
  const why = error.cause instanceof Error ? error.cause.message : String(error.cause);
  return new InputError(`${side.file}: stage "${error.stage}": threw ${why}`);
}

/** The name that finds the revision again; null for one on a way that has no names of its own. */
function nameOf(revision: Revision): string | null {
  try {
    return revisionByName(revision.name) === revision ? revision.name : null;
  } catch {
    return null;
  }
}

function sideOf({ revision, argument }: LoadedRevision): ReportSide {
  return { argument, name: revision.name, title: revision.title };
}
