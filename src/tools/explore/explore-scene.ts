/** One scene, explored: from the spec to the report. */

import { InputError } from '../input-error.ts';
import { type Counterexample, counterexample, type Run, runSchedule } from './counterexample.ts';
import { search, shortened } from './explorer.ts';
import type { Model, ModelSpec } from './model.ts';
import { randomSchedules } from './random-schedules.ts';
import type { ExploreReport } from './report.ts';
import { findScene, modelOf } from './scene-library.ts';
import { parseReplay } from './schedule.ts';
import type { Progress, SearchOptions, SearchResult } from './search.ts';

export interface ExploreOptions {
  readonly reduce: boolean;
  readonly depth?: number;
  readonly maxStates?: number;
  readonly random?: { readonly runs: number; readonly seed: number };
  readonly workers: number;
  /** false: the types of a scene file were checked before. */
  readonly check?: boolean;
  /** Searches with several threads; needed when `workers` is not 1. */
  readonly parallel?: (model: Model, spec: ModelSpec, workers: number, options: SearchOptions) => Promise<SearchResult>;
  readonly interrupted?: () => boolean;
  readonly onProgress?: (progress: Progress) => void;
}

/** Unless `maxStates` says otherwise: about 4 GiB of them. A scene without end must not take all memory there is. */
const MOST_STATES = 40_000_000;
/** Of a random run, unless `depth` says otherwise. */
const RANDOM_DEPTH = 10_000;

/** @throws InputError when there is no such scene */
export async function exploreScene(spec: ModelSpec, options: ExploreOptions): Promise<ExploreReport> {
  const scene = await findScene(spec.scene, options.check ?? true);
  const model = await modelOf(scene, spec);
  try {
    return await exploreModel(model, spec, scene.title, options);
  } catch (error) {
    if (scene.place === undefined || error instanceof InputError) throw error;
    throw new InputError(`${scene.place}: scene ${scene.name}: ${(error as Error).message}`);
  }
}

/** The same for a model that is in its first state, to which it comes back. */
export async function exploreModel(
  model: Model,
  spec: ModelSpec,
  title: string,
  options: ExploreOptions,
): Promise<ExploreReport> {
  const initial = new Int32Array(model.stateWords);
  model.capture(initial, 0);
  const restart = (): void => model.restore(initial, 0);
  const common = {
    version: 1 as const,
    scene: spec.scene,
    title,
    revision: spec.revision ?? null,
    params: spec.params ?? {},
    invariants: model.invariants,
  };
  const report =
    options.random === undefined
      ? await searched(model, spec, options, restart)
      : await byChance(model, options, options.random, restart);
  restart();
  return { ...common, ...report };
}

type Rest = Omit<ExploreReport, 'version' | 'scene' | 'title' | 'revision' | 'params' | 'invariants'>;

async function searched(model: Model, spec: ModelSpec, options: ExploreOptions, restart: () => void): Promise<Rest> {
  const searchOptions: SearchOptions = {
    reduce: options.reduce,
    livelock: true,
    ...(options.depth === undefined ? {} : { depth: options.depth }),
    maxStates: options.maxStates ?? MOST_STATES,
    ...(options.interrupted === undefined ? {} : { interrupted: options.interrupted }),
    ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
  };
  const { workers, parallel } = options;
  const found =
    workers === 1 || parallel === undefined
      ? await search(model, searchOptions)
      : await parallel(model, spec, workers, searchOptions);
  const { result, shortest } = await shortened(model, searchOptions, found, restart);
  restart();
  return {
    mode: 'exhaustive',
    verdict: result.verdict,
    complete: result.complete,
    stopped: result.stopped,
    livelockChecked: result.complete,
    states: result.states,
    transitions: result.transitions,
    depth: result.depth,
    seconds: result.seconds,
    statesPerSecond: result.states / result.seconds,
    bytesPerState: result.bytes / result.states,
    workers,
    reduction: options.reduce ? { states: result.reducedStates } : null,
    random: null,
    counterexample: counterexample(model, result, shortest),
  };
}

async function byChance(
  model: Model,
  options: ExploreOptions,
  random: { readonly runs: number; readonly seed: number },
  restart: () => void,
): Promise<Rest> {
  const result = await randomSchedules(model, {
    ...random,
    depth: options.depth ?? RANDOM_DEPTH,
    ...(options.interrupted === undefined ? {} : { interrupted: options.interrupted }),
  });
  restart();
  const { verdict, violation, moves } = result;
  const runs = result.verdict === 'holds' ? result.runs : result.runs + 1;
  const states = result.steps + runs;
  const found: Counterexample | null = counterexample(model, { ...emptySearch, verdict, violation, moves }, false);
  return {
    mode: 'random',
    verdict,
    complete: false,
    stopped: result.stopped ? 'interrupted' : null,
    livelockChecked: false,
    states,
    transitions: result.steps,
    depth: result.longest,
    seconds: result.seconds,
    statesPerSecond: states / result.seconds,
    bytesPerState: 0,
    workers: 1,
    reduction: null,
    random: { runs, seed: random.seed, unfinished: result.unfinished },
    counterexample: found,
  };
}

const emptySearch: SearchResult = {
  verdict: 'holds',
  violation: 0,
  complete: false,
  stopped: null,
  states: 0,
  transitions: 0,
  depth: 0,
  reducedStates: 0,
  seconds: 0,
  bytes: 0,
  moves: [],
};

/** What `softkvm explore SCENE --replay STRING --json` prints. */
export interface ReplayReport extends Run {
  readonly version: 1;
  readonly scene: string;
  readonly title: string;
  readonly revision: string | null;
  readonly replay: string;
  /** Of `violation`; null when the schedule violates nothing. */
  readonly violationText: string | null;
  /** How it ends: somebody can move, all have finished, or some have not and nobody can move. */
  readonly end: 'open' | 'finished' | 'deadlock';
}

/** Runs one schedule. `explain`: words for the last fault, of whoever took the last step if it had one. @throws InputError */
export async function replayScene(
  spec: ModelSpec,
  replay: string,
): Promise<{ readonly report: ReplayReport; readonly explain: () => readonly string[] }> {
  const scene = await findScene(spec.scene);
  const model = await modelOf(scene, spec);
  const moves = parseReplay(replay, model.actors.length);
  model.follow?.();
  const run = runSchedule(model, moves, true);
  const enabled = model.enabled();
  const report: ReplayReport = {
    version: 1,
    scene: spec.scene,
    title: scene.title,
    revision: spec.revision ?? null,
    replay,
    ...run,
    violationText: run.violation === 0 ? null : model.violationText(run.violation),
    end: enabled !== 0 ? 'open' : model.unfinished() !== 0 ? 'deadlock' : 'finished',
  };
  const last = [...new Set(moves.map((m) => m.actor).reverse())];
  const explain = (): readonly string[] =>
    last.map((actor) => model.explain?.(actor) ?? []).find((words) => words.length > 0) ?? [];
  return { report, explain };
}
