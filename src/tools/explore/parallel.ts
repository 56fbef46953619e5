/** A search in several threads, of a Piscina pool: who starts them and puts together what they found. */
import type { Piscina } from 'piscina';
import { conclude, type Part } from './conclusion.ts';
import { Overseer, sharedSpace } from './exchange.ts';
import { GrowingInts } from './growing.ts';
import type { Model, ModelSpec } from './model.ts';
import { shareOut } from './ownership.ts';
import type { SearchOptions, SearchResult } from './search.ts';
import { buffersOf, type Pieces, runShard, type WorkerAnswer, type WorkerTask } from './worker.ts';

/** Milliseconds between two looks at how far they are. */
const TICK = 100;

/** Where threads find their code: a module of the build that exports `name`. */
export interface ThreadCode {
  readonly file: string;
  readonly name: string;
}

/** Threads that search together, one model after the other. */
export class SearchThreads {
  private readonly pool: Piscina;
  private readonly workers: number;

  private constructor(pool: Piscina, workers: number) {
    this.pool = pool;
    this.workers = workers;
  }

  static async start({ file, name }: ThreadCode, workers: number): Promise<SearchThreads> {
    const { Piscina } = await import('piscina');
    const pool = new Piscina({
      filename: file,
      name,
      minThreads: workers,
      maxThreads: workers,
      concurrentTasksPerWorker: 1,
      // each has one task at a time, in which it waits for the others itself
      atomics: 'disabled',
    });
    return new SearchThreads(pool, workers);
  }

  async stop(): Promise<void> {
    await this.pool.destroy();
  }

  /** Each thread makes `spec` again; `model` is one in its first state. The result is the one of `search`, except for memory and time. */
  async search(model: Model, spec: ModelSpec, options: SearchOptions): Promise<SearchResult> {
    const start = performance.now();
    const { workers } = this;
    const space = sharedSpace(workers, model.stateWords, shareOut(model, workers));
    const overseer = new Overseer(space);
    const timer = setInterval(() => {
      if (options.interrupted?.() === true) overseer.stop();
      options.onProgress?.({ states: overseer.states(), depth: 0, level: 0 });
    }, TICK);
    try {
      const { depth, maxStates, reduce, livelock } = options;
      const bounds = { ...(depth === undefined ? {} : { depth }), ...(maxStates === undefined ? {} : { maxStates }) };
      const tasks = Array.from({ length: workers }, (_, me): Promise<WorkerAnswer> => {
        const task: WorkerTask = { space, me, spec, reduce, livelock, bounds };
        return this.pool.run(task).catch((error: unknown) => {
          overseer.abort();
          throw error;
        });
      });
      const answers = await allOrFirstError(tasks);
      const parts = answers.map(
        (answer): Part => ({ ...answer, edges: joined(answer.edges), finished: joined(answer.finished) }),
      );
      const stopped = answers.find((a) => a.stopped !== null)?.stopped ?? null;
      return conclude(parts, answers[0]!.depth, stopped, livelock, () => (performance.now() - start) / 1000);
    } finally {
      clearInterval(timer);
    }
  }
}

/** One search with threads of its own. */
export async function parallelSearch(
  code: ThreadCode,
  model: Model,
  spec: ModelSpec,
  workers: number,
  options: SearchOptions,
): Promise<SearchResult> {
  const threads = await SearchThreads.start(code, workers);
  try {
    return await threads.search(model, spec, options);
  } finally {
    await threads.stop();
  }
}

function joined({ pieces, length }: Pieces): GrowingInts {
  return new GrowingInts(pieces, length);
}

/** The error that came first is the cause; the others only heard of it. */
async function allOrFirstError<T>(tasks: readonly Promise<T>[]): Promise<T[]> {
  let first: { readonly error: unknown } | null = null;
  const settled = await Promise.allSettled(
    tasks.map((task) =>
      task.catch((error: unknown) => {
        first ??= { error };
        throw error;
      }),
    ),
  );
  if (first !== null) throw (first as { readonly error: unknown }).error;
  return settled.map((s) => (s as PromiseFulfilledResult<T>).value);
}

/** What a thread runs: makes the model again and searches its share. */
export async function threadMain(
  task: WorkerTask,
  makeModel: (spec: ModelSpec) => Model | Promise<Model>,
): Promise<unknown> {
  const { move, transferableSymbol, valueSymbol } = (await import('piscina')).Piscina;
  const answer = runShard(await makeModel(task.spec), task);
  return move({ [transferableSymbol]: buffersOf(answer), [valueSymbol]: answer } as never);
}
