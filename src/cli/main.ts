/** The command line: finds the command, runs it, and turns what it throws into one line and an exit status. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { type Job, runJob } from '../tools/campaign/jobs.ts';
import { threadMain } from '../tools/explore/parallel.ts';
import type { ExploreReport } from '../tools/explore/report.ts';
import { makeModel } from '../tools/explore/scene-library.ts';
import type { WorkerTask } from '../tools/explore/worker.ts';
import { InputError, UnsupportedError } from '../tools/input-error.ts';
import { addBench } from './bench.ts';
import { addCampaign } from './campaign.ts';
import { addConform } from './conform.ts';
import { addDecode } from './decode.ts';
import { addDemo } from './demo.ts';
import { EXIT_PIPE, EXIT_USAGE } from './exit-status.ts';
import { addExplain } from './explain.ts';
import { addExplore } from './explore.ts';
import { addLater } from './later.ts';
import { addRangeDiff } from './range-diff.ts';
import { addRun } from './run.ts';
import { addSeries } from './series.ts';
import { addTrace } from './trace.ts';

// Scene files import 'softkvm/scenes' from here: the module that runs them.
export * from '../tools/explore/scene-api.ts';

/** What a thread of `softkvm explore --workers` runs: the threads have this same module as their code. */
export function exploreThread(task: WorkerTask): Promise<unknown> {
  return threadMain(task, makeModel);
}

/** What a thread of `softkvm campaign` runs. */
export function campaignThread(job: Job): Promise<ExploreReport> {
  return runJob(job);
}

/** Runs the command that `args` (without the program's name) ask for and sets the process's exit status. */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  const program = commandLine();
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', outputFailed);
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    process.exitCode = statusOf(error);
  }
}

/** Whoever reads the output may stop reading, as `head` does: that ends the program as SIGPIPE would. */
function outputFailed(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
  process.exit(EXIT_PIPE);
}

function commandLine(): Command {
  const program = new Command('softkvm')
    .description("KVM's x86 MMU as running TypeScript: run a guest and account for every page fault it takes")
    .version(version(), '--version')
    .helpOption('-h, --help', 'show this help')
    .exitOverride()
    .showSuggestionAfterError(false)
    .addHelpText(
      'after',
      '\nExample:\n  softkvm demo                              the tour: one guest, every class of fault\n  softkvm decode 0x100000006                an error code, bit by bit',
    );
  for (const add of [
    addRun,
    addConform,
    addExplain,
    addExplore,
    addCampaign,
    addDecode,
    addBench,
    addDemo,
    addRangeDiff,
    addSeries,
    addTrace,
    addLater,
  ])
    add(program);
  return program;
}

function statusOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
  if (error instanceof InputError || error instanceof UnsupportedError) {
    process.stderr.write(`softkvm: ${error.message}\n`);
    return EXIT_USAGE;
  }
  throw error;
}

function version(): string {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return manifest.version;
}
