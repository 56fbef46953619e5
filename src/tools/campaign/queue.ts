/**
 * A campaign through a queue: BullMQ on a Redis that the user points to. Whoever has the results file puts the jobs in and takes the results
 * out; any number of machines do the jobs. Redis holds what is under way, the file what is done: an empty Redis loses no job, because what
 * has no result is put in again, and a result that comes twice finds its place taken.
 *
 * BullMQ and its driver are optional packages: nothing here is loaded before it is needed.
 */
import { hostname } from 'node:os';
import type { Job as BullJob, Queue, Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import type { ExploreReport } from '../explore/report.ts';
import { InputError } from '../input-error.ts';
import type { Job } from './jobs.ts';
import type { ResultsFile } from './results-file.ts';

const QUEUE = 'softkvm-campaign';
/** Jobs that are put in or looked at in one go. */
const BATCH = 500;

export interface QueueOptions {
  readonly url: string;
  /** Milliseconds that Redis may be away before that is an error. */
  readonly patience: number;
  /** Milliseconds after which the job of a worker that no longer answers is given to another. */
  readonly stalled: number;
  readonly interrupted?: () => boolean;
}

export const QUEUE_DEFAULTS = { patience: 10_000, stalled: 30_000 };

interface QueueJob {
  readonly campaign: string;
  readonly job: Job;
}

interface QueueResult {
  readonly report: ExploreReport;
  readonly doneBy: string;
}

/** A connection that says when it has been without its server for too long. */
class Link {
  readonly redis: Redis;
  private readonly patience: number;
  private readonly url: string;
  private away: number | null = null;
  private reason = 'closed';

  private constructor(url: string, patience: number, redis: Redis) {
    this.url = url;
    this.patience = patience;
    this.redis = redis;
    redis.on('close', () => {
      this.away ??= Date.now();
    });
    redis.on('ready', () => {
      this.away = null;
    });
    redis.on('error', (error: NodeJS.ErrnoException) => {
      this.reason = error.code ?? error.message;
    });
  }

  /** @throws InputError when nobody answers, or with something else than Redis */
  static async to(url: string, patience: number): Promise<Link> {
    if (!/^rediss?:\/\/[^/]/.test(url) || !URL.canParse(url))
      throw new InputError(`--redis ${url}: expected an address, as redis://127.0.0.1:6379`);
    const { Redis } = await optional(() => import('ioredis'), 'ioredis');
    let started = false;
    const redis = new Redis(url, {
      lazyConnect: true,
      maxRetriesPerRequest: null,
      retryStrategy: (times) => (started ? Math.min(100 * times, 1000) : null),
    });
    const link = new Link(url, patience, redis);
    try {
      await redis.connect();
      await redis.ping();
    } catch (error) {
      redis.disconnect();
      const why = link.reason === 'closed' ? (error as Error).message : link.reason;
      throw new InputError(`${url}: Redis cannot be reached (${why})`);
    }
    started = true;
    return link;
  }

  /** @throws InputError once Redis has been away for too long */
  check(left: string): void {
    if (this.away === null || Date.now() - this.away < this.patience) return;
    throw new InputError(`${this.url}: Redis is gone (${this.reason}); ${left}`);
  }

  close(): void {
    this.redis.disconnect();
  }
}

async function optional<T>(load: () => Promise<T>, name: string): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
    throw new InputError(`--redis: the optional package ${name} is not installed: \`npm install bullmq ioredis\``);
  }
}

/** Puts the pending jobs into the queue and takes their results out until none is pending. @throws InputError when Redis is not there */
export async function collectFromQueue(
  results: ResultsFile,
  options: QueueOptions,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<void> {
  const link = await Link.to(options.url, options.patience).catch((error: unknown) => {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(
      `${error.message}; the jobs are in ${results.file}: \`softkvm campaign resume ${results.file}\``,
    );
  });
  const bullmq = await optional(() => import('bullmq'), 'bullmq');
  const queue: Queue<QueueJob, QueueResult> = new bullmq.Queue(QUEUE, { connection: link.redis });
  queue.on('error', () => {});
  const collector = new Collector(results, queue);
  let refill = true;
  link.redis.on('ready', () => {
    refill = true;
  });
  try {
    for (let round = 0; ; round++) {
      const left = `${results.done} of ${results.total} results are in ${results.file}, \`softkvm campaign resume ${results.file}\` goes on`;
      link.check(left);
      if (link.redis.status === 'ready') {
        const again = refill;
        refill = false;
        await within(options.patience, async () => {
          // what a Redis that was restarted has forgotten goes in again
          if (again || round % 50 === 49) await collector.putIn();
          await collector.takeOut();
        });
      }
      onProgress(results.done, results.total);
      if (collector.open === 0 || options.interrupted?.() === true) return;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } finally {
    link.close();
  }
}

/** Waits for `work` for a while; a command to a server that has gone may never be answered. */
async function within(milliseconds: number, work: () => Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  const working = work().catch((error: unknown) => {
    // the connection went away in the middle: the next round sees to it
    if (!/closed|ended|ECONN|EPIPE/i.test((error as Error).message)) throw error;
  });
  await Promise.race([working, late]);
  clearTimeout(timer);
}

class Collector {
  private readonly results: ResultsFile;
  private readonly queue: Queue<QueueJob, QueueResult>;
  private readonly name: string;
  /** Jobs that failed here and now: they are pending for the next `resume`. */
  private readonly failed = new Set<string>();

  constructor(results: ResultsFile, queue: Queue<QueueJob, QueueResult>) {
    this.results = results;
    this.queue = queue;
    this.name = results.name;
  }

  /** Jobs that are waited for. */
  get open(): number {
    return this.results.total - this.results.done - this.failed.size;
  }

  /** A job that is in the queue already stays as it is. */
  async putIn(): Promise<void> {
    const jobs = this.results.pending().filter((job) => !this.failed.has(job.id));
    for (let i = 0; i < jobs.length; i += BATCH)
      await this.queue.addBulk(
        jobs.slice(i, i + BATCH).map((job) => ({
          name: 'explore',
          data: { campaign: this.name, job },
          opts: { jobId: `${this.name}-${job.id}` },
        })),
      );
  }

  async takeOut(): Promise<void> {
    await this.takeAll('completed', async (job) => {
      const { report, doneBy } = job.returnvalue;
      this.results.record(job.data.job.id, report, doneBy);
      await job.remove();
    });
    await this.takeAll('failed', async (job) => {
      this.results.fail(job.data.job.id, job.failedReason);
      this.failed.add(job.data.job.id);
      await job.remove();
    });
  }

  /** Those of this campaign. What others have left, whose collector may never come back, is passed over. */
  private async takeAll(
    kind: 'completed' | 'failed',
    take: (job: BullJob<QueueJob, QueueResult>) => Promise<void>,
  ): Promise<void> {
    for (let passed = 0; ; ) {
      const jobs = await this.queue.getJobs([kind], passed, passed + BATCH - 1, true);
      for (const job of jobs) {
        if (job?.data?.campaign === this.name) await take(job);
        else passed++;
      }
      if (jobs.length < BATCH) return;
    }
  }
}

/** Does jobs from the queue, `concurrency` at a time, until interrupted. @throws InputError when Redis is not there, or goes */
export async function serveQueue(
  options: QueueOptions,
  concurrency: number,
  run: (job: Job) => Promise<ExploreReport>,
  onDone: (job: Job) => void = () => {},
  onFinishing: () => void = () => {},
): Promise<void> {
  const link = await Link.to(options.url, options.patience);
  const bullmq = await optional(() => import('bullmq'), 'bullmq');
  const doneBy = `${hostname()} ${process.pid}`;
  let underWay = 0;
  const worker: Worker<QueueJob, QueueResult> = new bullmq.Worker<QueueJob, QueueResult>(
    QUEUE,
    async ({ data }) => {
      underWay++;
      try {
        const report = await run(data.job);
        onDone(data.job);
        return { report, doneBy };
      } finally {
        underWay--;
      }
    },
    {
      connection: link.redis,
      concurrency,
      lockDuration: options.stalled,
      stalledInterval: options.stalled,
      maxStalledCount: 1000,
    },
  );
  worker.on('error', () => {});
  try {
    while (options.interrupted?.() !== true) {
      link.check('the jobs that were under way are done again by others');
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    if (underWay > 0) onFinishing();
    let closed = false;
    const closing = worker.close().then(() => {
      closed = true;
    });
    closing.catch(() => {});
    // what is under way is finished, unless there is nowhere to put it any more
    while (!closed) {
      link.check('the jobs that were under way are done again by others');
      await Promise.race([closing, new Promise((resolve) => setTimeout(resolve, 200))]);
    }
  } finally {
    void worker.close(true).catch(() => {});
    link.close();
  }
}
