/** A search in several threads: this one, and those of a Piscina pool. */
import { MessageChannel } from 'node:worker_threads';
import type { Piscina } from 'piscina';
import type { Part } from './conclusion.ts';
import { boundsOf, searchWith } from './explorer.ts';
import { GrowingInts } from './growing.ts';
import type { Model, ModelSpec } from './model.ts';
import type { SearchOptions, SearchResult } from './search.ts';
import { StateTable } from './state-table.ts';
import { FAILED_ELSEWHERE, Team, teamSpace } from './team.ts';
import { buffersOf, type Pieces, runThread, type WorkerAnswer, type WorkerTask } from './worker.ts';

/** Where threads find their code: a module of the build that exports `name`. */
export interface ThreadCode {
  readonly file: string;
  readonly name: string;
}

/** Threads that search together, one model after the other. The thread that asks is the first of them. */
export class SearchThreads {
  private readonly pool: Piscina | null;
  private readonly workers: number;

  private constructor(pool: Piscina | null, workers: number) {
    this.pool = pool;
    this.workers = workers;
  }

  static async start({ file, name }: ThreadCode, workers: number): Promise<SearchThreads> {
    if (workers === 1) return new SearchThreads(null, 1);
    const { Piscina } = await import('piscina');
    const pool = new Piscina({
      filename: file,
      name,
      minThreads: workers - 1,
      maxThreads: workers - 1,
      concurrentTasksPerWorker: 1,
      // each has one task at a time, in which it waits for the others itself
      atomics: 'disabled',
    });
    return new SearchThreads(pool, workers);
  }

  async stop(): Promise<void> {
    await this.pool?.destroy();
  }

  /** Each thread makes `spec` again; `model` is one in its first state. The result is the one of `search`, except for memory and time. */
  async search(model: Model, spec: ModelSpec, options: SearchOptions): Promise<SearchResult> {
    const { workers } = this;
    const table = new StateTable(model.stateWords, true);
    const space = teamSpace(workers);
    const channels = Array.from({ length: workers - 1 }, () => new MessageChannel());
    const bounds = boundsOf(options);
    const team = new Team(
      space,
      0,
      table,
      bounds,
      channels.map((c) => c.port1),
    );
    const tasks = channels.map(async ({ port2 }, i): Promise<WorkerAnswer> => {
      const { reduce } = options;
      const task: WorkerTask = { space, me: i + 1, table: table.memory, port: port2, spec, reduce, bounds };
      try {
        return await this.pool!.run(task, { transferList: [port2] });
      } catch (error) {
        team.abort();
        throw error;
      }
    });
    const answers = allOrCause(tasks);
    answers.catch(() => {});
    try {
      return await searchWith(model, table, team, options, async () =>
        (await answers).flatMap((a): Part[] =>
          a === null ? [] : [{ ...a, edges: joined(a.edges), finished: joined(a.finished) }],
        ),
      );
    } catch (error) {
      team.abort();
      if (isHearsay(error)) await answers;
      throw error;
    } finally {
      for (const { port1 } of channels) port1.close();
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

/** Of several errors the cause: the others only heard of it. */
async function allOrCause<T>(tasks: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(tasks);
  const errors = settled.flatMap((s): unknown[] => (s.status === 'rejected' ? [s.reason] : []));
  if (errors.length > 0) throw errors.find((e) => !isHearsay(e)) ?? errors[0];
  return settled.map((s) => (s as PromiseFulfilledResult<T>).value);
}

function isHearsay(error: unknown): boolean {
  return error instanceof Error && error.message === FAILED_ELSEWHERE;
}

/** What a thread runs: makes the model again and searches with the others. */
export async function threadMain(
  task: WorkerTask,
  makeModel: (spec: ModelSpec) => Model | Promise<Model>,
): Promise<unknown> {
  const { move, transferableSymbol, valueSymbol } = (await import('piscina')).Piscina;
  const answer = await runThread(task, makeModel);
  return move({ [transferableSymbol]: buffersOf(answer), [valueSymbol]: answer } as never);
}
