/** `softkvm campaign`. */
import { setMaxListeners } from 'node:events';
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { campaignLines, campaignReport, runJobs } from '../tools/campaign/campaign.ts';
import { type Job, jobsOf } from '../tools/campaign/jobs.ts';
import { collectFromQueue, QUEUE_DEFAULTS, serveQueue } from '../tools/campaign/queue.ts';
import { ResultsFile } from '../tools/campaign/results-file.ts';
import type { ExploreReport } from '../tools/explore/report.ts';
import { isSceneFile } from '../tools/explore/scene-file.ts';
import { findScene, type SceneInfo, scenes } from '../tools/explore/scene-library.ts';
import { InputError } from '../tools/input-error.ts';
import { moduleParams, splitParams } from '../tools/module-params.ts';
import { BUILT_MAIN } from './built-threads.ts';
import { EXIT_FAILED, EXIT_INTERRUPTED } from './exit-status.ts';
import { collect, count, threads, untilInterrupted } from './options.ts';
import { Progress, print, printJson } from './output.ts';

interface WorkOptions {
  readonly workers?: number;
  readonly redis?: string;
  readonly redisPatience: number;
  readonly stalled: number;
  readonly json?: boolean;
}

interface RunOptions extends WorkOptions {
  readonly revision: readonly string[];
  readonly param: readonly string[];
  readonly depth?: number;
  readonly maxStates?: number;
  readonly reduction: boolean;
  readonly seeds: number;
  readonly runs: number;
  readonly results: string;
}

export function addCampaign(program: Command): void {
  const campaign = program
    .command('campaign')
    .description('many scenes, revisions and seeds as jobs, on this machine or on many')
    .addHelpText(
      'after',
      '\nExit status: 1 when a job failed or a scene did not give what it expects, 130 when interrupted.\n\nExample:\n  softkvm campaign run fault-protocol fault-protocol-unguarded --seeds 4\n  softkvm campaign run --redis redis://127.0.0.1:6379     and on each machine:\n  softkvm campaign worker --redis redis://127.0.0.1:6379\n  softkvm campaign resume softkvm-campaign.sqlite',
    );
  withWork(
    campaign
      .command('run [scenes...]', { isDefault: true })
      .description('make the jobs of these scenes (default: all) and do them'),
  )
    .option(
      '--revision <name>',
      "revision of the fault path, or all (repeatable; default: each scene's own)",
      collect,
      [],
    )
    .option('--param <name=value>', 'KVM module parameter (repeatable)', collect, [])
    .option('--depth <n>', 'schedules of at most n steps', count('--depth', 'a count of steps'))
    .option('--max-states <n>', 'stop each search after so many states', count('--max-states', 'a count of states'))
    .option('--no-reduction', 'every order of steps, also where the order cannot matter')
    .option('--seeds <n>', 'and schedules by chance, from n seeds', count('--seeds', 'a count of seeds', 0), 0)
    .option('--runs <n>', 'schedules by chance of each seed', count('--runs', 'a count of schedules'), 10_000)
    .option('--results <file>', 'SQLite file to make', 'softkvm-campaign.sqlite')
    .addHelpText('after', '\nExample:\n  softkvm campaign run fault-protocol --seeds 4 --workers 2')
    .action(async (names: readonly string[], options: RunOptions) => {
      const jobs = await plannedJobs(names, options);
      await work(await ResultsFile.create(options.results, jobs), options);
    });
  withWork(campaign.command('resume <file>').description('do what is still to do of a campaign'))
    .addHelpText('after', '\nExample:\n  softkvm campaign resume softkvm-campaign.sqlite')
    .action(async (file: string, options: WorkOptions) => work(await ResultsFile.resume(file), options));
  withWork(campaign.command('worker').description('do jobs from the queue of a Redis until interrupted'))
    .addHelpText('after', '\nExample:\n  softkvm campaign worker --redis redis://127.0.0.1:6379')
    .action(serve);
  campaign
    .command('report <file>')
    .description('what a campaign has found so far')
    .option('--json', 'machine-readable output')
    .addHelpText('after', '\nExample:\n  softkvm campaign report softkvm-campaign.sqlite')
    .action(async (file: string, options: { readonly json?: boolean }) => {
      conclude(await ResultsFile.read(file), options.json === true);
    });
}

function withWork(command: Command): Command {
  return command
    .option('--workers <n>', 'threads on this machine (default: one a processor; 0 with --redis)', threads(0))
    .option('--redis <url>', 'hand the jobs out through BullMQ on this Redis, as redis://127.0.0.1:6379')
    .option(
      '--redis-patience <seconds>',
      'how long Redis may be away',
      count('--redis-patience', 'seconds'),
      QUEUE_DEFAULTS.patience / 1000,
    )
    .option(
      '--stalled <seconds>',
      'after how long the job of a worker that is gone is given to another',
      count('--stalled', 'seconds'),
      QUEUE_DEFAULTS.stalled / 1000,
    )
    .option('--json', 'machine-readable output');
}

async function plannedJobs(names: readonly string[], options: RunOptions): Promise<Job[]> {
  const asked = names.length === 0 ? scenes().flatMap((s) => (s.large === true ? [] : [s.name])) : names;
  const params = splitParams(options.param);
  moduleParams(params);
  const found = new Map<string, SceneInfo>();
  for (const name of asked) found.set(name, await findScene(name));
  const known = [...new Set([...found.values()].flatMap((s) => s.revisions))];
  const revisions = options.revision.includes('all') ? known : options.revision;
  const unknown = revisions.find((revision) => !known.includes(revision));
  if (unknown !== undefined)
    throw new InputError(
      `--revision ${unknown}: the scenes run under ${known.join(', ') || 'none that can be chosen'}`,
    );
  const jobs = jobsOf({
    scenes: asked,
    revisions: revisions.length === 0 ? [null] : revisions,
    params,
    reduce: options.reduction,
    seeds: Array.from({ length: options.seeds }, (_, i) => i + 1),
    runs: options.runs,
    ...(options.depth === undefined ? {} : { depth: options.depth }),
    ...(options.maxStates === undefined ? {} : { maxStates: options.maxStates }),
  });
  return jobs.flatMap((job) => {
    const { scene, revision } = job.spec;
    const { expects, revisions } = found.get(scene)!;
    // a scene that is made of a revision of its own has nothing to say about another
    if (revision !== undefined && !revisions.includes(revision)) return [];
    return isSceneFile(scene) ? [{ ...job, expects }] : [job];
  });
}

async function work(results: ResultsFile, options: WorkOptions): Promise<void> {
  const progress = new Progress();
  const show = (): void => progress.update(() => `${results.done} of ${results.total} jobs`);
  let closed = false;
  let stopped = false;
  try {
    await untilInterrupted(async (requested) => {
      const interrupted = (): boolean => {
        stopped = requested();
        return stopped;
      };
      const { redis } = options;
      const threads = options.workers ?? (redis === undefined ? availableParallelism() : 0);
      const queue = redis === undefined ? null : queueOptions(redis, options);
      if (queue === null) {
        await withThreads(Math.max(1, threads), (run, giveUp) =>
          whenever(interrupted, giveUp, runJobs(results, Math.max(1, threads), run, { interrupted, onDone: show })),
        );
        return;
      }
      let over = false;
      const serving =
        threads === 0
          ? Promise.resolve()
          : withThreads(threads, (run) => serveQueue({ ...queue, interrupted: () => over }, threads, run));
      try {
        await collectFromQueue(results, { ...queue, interrupted }, show);
      } finally {
        over = true;
        await serving.catch(() => {});
      }
    });
    progress.done();
    closed = true;
    conclude(results, options.json === true, stopped);
  } finally {
    progress.done();
    if (!closed) results.close();
  }
}

function conclude(results: ResultsFile, json: boolean, interrupted = false): void {
  try {
    const report = campaignReport(results);
    if (json) printJson(report);
    else for (const line of campaignLines(report)) print(line);
    const unexpected = report.failures.length > 0 || report.results.some((r) => r.asExpected === false);
    if (!report.asExpected) process.exitCode = interrupted && !unexpected ? EXIT_INTERRUPTED : EXIT_FAILED;
  } finally {
    results.close();
  }
}

async function serve(options: WorkOptions): Promise<void> {
  const threads = Math.max(1, options.workers ?? availableParallelism());
  let done = 0;
  const progress = new Progress(0);
  await untilInterrupted((interrupted) =>
    withThreads(threads, (run) =>
      serveQueue(
        { ...queueOptions(options.redis ?? 'redis://127.0.0.1:6379', options), interrupted },
        threads,
        run,
        () => progress.update(() => `${++done} jobs done`),
        () => process.stderr.write('softkvm: finishing what is under way; Ctrl-C again leaves it to others\n'),
      ),
    ),
  ).finally(() => progress.done());
  if (options.json) printJson({ version: 1, done });
  else print(`${done} jobs done`);
}

function queueOptions(url: string, options: WorkOptions): { url: string; patience: number; stalled: number } {
  return { url, patience: options.redisPatience * 1000, stalled: options.stalled * 1000 };
}

/** A pool of threads that do jobs, for as long as `use` runs. `giveUp` ends the jobs that are under way. */
async function withThreads<T>(
  threads: number,
  use: (run: (job: Job) => Promise<ExploreReport>, giveUp: () => void) => Promise<T>,
): Promise<T> {
  const { Piscina } = await import('piscina');
  const pool = new Piscina({
    filename: BUILT_MAIN,
    name: 'campaignThread',
    maxThreads: threads,
    concurrentTasksPerWorker: 1,
  });
  const abort = new AbortController();
  // each job listens
  setMaxListeners(0, abort.signal);
  try {
    return await use(
      (job) => pool.run(job, { signal: abort.signal }),
      () => abort.abort(),
    );
  } finally {
    await pool.destroy();
  }
}

/** Waits for `work`; once `asked` says so, `then` hurries it. */
async function whenever<T>(asked: () => boolean, then: () => void, work: Promise<T>): Promise<T> {
  const timer = setInterval(() => {
    if (asked()) then();
  }, 100);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}
