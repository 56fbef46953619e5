/** `softkvm explore`. */
import type { Command } from 'commander';
import { type ExploreOptions, exploreScene, type ReplayReport, replayScene } from '../tools/explore/explore-scene.ts';
import type { ModelSpec } from '../tools/explore/model.ts';
import { parallelSearch } from '../tools/explore/parallel.ts';
import { differenceLines, reportLines, scheduleLines } from '../tools/explore/report.ts';
import { type SceneInfo, scenes } from '../tools/explore/scene-library.ts';
import { InputError } from '../tools/input-error.ts';
import { splitParams } from '../tools/module-params.ts';
import { THREAD_CODE } from './built-threads.ts';
import { EXIT_FAILED, EXIT_INTERRUPTED } from './exit-status.ts';
import { collect, count, threads, untilInterrupted } from './options.ts';
import { colour, Progress, print, printJson } from './output.ts';

interface Options {
  readonly list?: boolean;
  readonly revision?: string;
  readonly param: readonly string[];
  readonly depth?: number;
  readonly maxStates?: number;
  readonly random?: number;
  readonly seed?: number;
  readonly reduction: boolean;
  readonly workers?: number;
  readonly replay?: string;
  readonly explain?: boolean;
  readonly json?: boolean;
}

export function addExplore(program: Command): void {
  program
    .command('explore [scene]')
    .description('every interleaving of a small scene; a violated invariant prints its schedule')
    .option('--list', 'name the scenes')
    .option('--revision <name>', 'revision of the fault path')
    .option('--param <name=value>', 'KVM module parameter, as kvm.mmio_caching=0 (repeatable)', collect, [])
    .option('--depth <n>', 'schedules of at most n steps', count('--depth', 'a count of steps'))
    .option(
      '--max-states <n>',
      'stop after so many states (default: 40 million)',
      count('--max-states', 'a count of states'),
    )
    .option('--random <n>', 'n schedules by chance instead of all', count('--random', 'a count of schedules'))
    .option('--seed <n>', 'seed of --random (default: 1)', count('--seed', 'a seed', 0))
    .option('--no-reduction', 'every order of steps, also where the order cannot matter')
    .option('--workers <n>', 'threads that share the search (default: 1)', threads(1))
    .option('--replay <schedule>', 'step through one schedule, as a violation prints it')
    .option('--explain', 'the last fault of the schedule, stage by stage')
    .option('--json', 'machine-readable output')
    .addHelpText(
      'after',
      '\nExit status: 1 when something was found. Interrupted or bounded searches say that they are not complete.\n\nExample:\n  softkvm explore --list\n  softkvm explore fault-protocol-unguarded\n  softkvm explore fault-protocol --workers 2 --json',
    )
    .action(async (scene: string | undefined, options: Options) => {
      refuseMixed(options);
      if (options.list) list(options);
      else if (scene === undefined) throw new InputError('explore: expected a scene, or --list');
      else if (options.replay !== undefined) await replay(specOf(scene, options), options.replay, options);
      else await explore(specOf(scene, options), options);
    });
}

/** What one way of exploring has no use for. */
function refuseMixed(options: Options): void {
  const refuse = (way: string, others: readonly (keyof Options)[]): void => {
    const other = others.find((name) => options[name] !== undefined);
    if (other !== undefined)
      throw new InputError(
        `--${other.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}: expected no --${way} beside it`,
      );
  };
  if (options.replay !== undefined) refuse('replay', ['depth', 'maxStates', 'random', 'seed', 'workers']);
  if (options.random !== undefined) refuse('random', ['maxStates', 'workers']);
  else if (options.seed !== undefined) throw new InputError('--seed: expected --random beside it');
}

function specOf(scene: string, options: Options): ModelSpec {
  const params = splitParams(options.param);
  return {
    scene,
    ...(options.revision === undefined ? {} : { revision: options.revision }),
    ...(Object.keys(params).length === 0 ? {} : { params }),
  };
}

/** What `softkvm explore --list --json` prints. */
export interface SceneList {
  readonly version: 1;
  readonly scenes: readonly Omit<SceneInfo, 'make'>[];
}

function list(options: Options): void {
  const all = scenes().map(({ make: _, ...info }) => info);
  if (options.json) {
    printJson({ version: 1, scenes: all } satisfies SceneList);
    return;
  }
  const width = Math.max(...all.map((s) => s.name.length));
  for (const s of all)
    print(`${s.name.padEnd(width)}  ${s.expects === 'holds' ? 'holds    ' : s.expects.padEnd(9)}  ${s.title}`);
}

async function explore(spec: ModelSpec, options: Options): Promise<void> {
  const { workers = 1 } = options;
  const progress = new Progress();
  const report = await untilInterrupted((interrupted) => {
    const exploreOptions: ExploreOptions = {
      reduce: options.reduction,
      workers,
      parallel: (...args) => parallelSearch(THREAD_CODE, ...args),
      interrupted,
      onProgress: (p) =>
        progress.update(() => `${p.depth === 0 ? '' : `depth ${p.depth}: `}${p.states.toLocaleString('en-US')} states`),
      ...(options.depth === undefined ? {} : { depth: options.depth }),
      ...(options.maxStates === undefined ? {} : { maxStates: options.maxStates }),
      ...(options.random === undefined ? {} : { random: { runs: options.random, seed: options.seed ?? 1 } }),
    };
    return exploreScene(spec, exploreOptions);
  }).finally(() => progress.done());
  const explained =
    options.explain && report.counterexample !== null
      ? (await replayScene(spec, report.counterexample.replay)).explain()
      : null;
  if (options.json) printJson(explained === null ? report : { ...report, explained });
  else {
    const [head, ...lines] = reportLines(report, explained ?? []);
    print((report.verdict === 'holds' ? colour.bold : colour.red)(head!));
    for (const line of lines) print(line);
    if (explained?.length === 0) print(`${spec.scene}: no fault in this schedule, nothing to explain`);
  }
  if (report.verdict !== 'holds') process.exitCode = EXIT_FAILED;
  else if (report.stopped === 'interrupted') process.exitCode = EXIT_INTERRUPTED;
}

async function replay(spec: ModelSpec, schedule: string, options: Options): Promise<void> {
  const { report, explain } = await replayScene(spec, schedule);
  const explained = options.explain ? explain() : [];
  if (options.json) printJson(options.explain ? { ...report, explained } : report);
  else for (const line of replayLines(report, explained)) print(line);
  if (report.violation !== 0 || report.end === 'deadlock') process.exitCode = EXIT_FAILED;
}

/** Step by step: the table's line, then what the step changed. */
function replayLines(r: ReplayReport, explained: readonly string[]): string[] {
  const table = scheduleLines(r.steps, [], r.violation === 0 ? -1 : r.violatedAfter);
  const revision = r.revision === null ? '' : `, ${r.revision}`;
  const lines = [colour.bold(`${r.scene}${revision}: ${r.steps.length} steps`), 'at first:'];
  const indented = (line: string): string => colour.dim(`        ${line}`);
  lines.push(...r.first.map(indented), ...table.slice(0, 2));
  for (const [i, state] of r.states.entries()) {
    lines.push(table[i + 2]!);
    const changes = differenceLines(r.states[i - 1] ?? r.first, state).filter((line) => !line.startsWith('   '));
    lines.push(...changes.map(indented));
  }
  if (r.violationText !== null) lines.push(colour.red(`after step ${r.violatedAfter}: ${r.violationText}`));
  else lines.push('no invariant is violated');
  if (r.end !== 'open')
    lines.push(r.end === 'finished' ? 'all have finished' : colour.red('nobody can move: a deadlock'));
  if (explained.length > 0) lines.push('', ...explained);
  return lines;
}
