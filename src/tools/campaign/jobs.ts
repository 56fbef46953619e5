/** The jobs of a campaign: scenes by revisions, searched, and by seeds, with schedules by chance. */
import { createHash } from 'node:crypto';
import { exploreScene } from '../explore/explore-scene.ts';
import type { ModelSpec } from '../explore/model.ts';
import type { ExploreReport } from '../explore/report.ts';

/** Plain JSON. Two jobs that ask for the same have the same id, wherever they were made. */
export interface Job {
  readonly id: string;
  readonly spec: ModelSpec;
  readonly reduce: boolean;
  readonly depth?: number;
  readonly maxStates?: number;
  readonly random?: { readonly runs: number; readonly seed: number };
  /** What a scene of a file is expected to give, which is not known once the file has gone. No part of what is asked for. */
  readonly expects?: ExploreReport['verdict'];
}

/** What a campaign consists of. */
export interface Plan {
  readonly scenes: readonly string[];
  /** null: each scene's own. */
  readonly revisions: readonly (string | null)[];
  readonly params: Readonly<Record<string, string>>;
  readonly reduce: boolean;
  readonly depth?: number;
  readonly maxStates?: number;
  /** Besides the search of each scene: schedules by chance, this many for each seed. */
  readonly seeds: readonly number[];
  readonly runs: number;
}

export function jobsOf(plan: Plan): Job[] {
  const jobs = plan.scenes.flatMap((scene) =>
    plan.revisions.flatMap((revision) => {
      const spec: ModelSpec = {
        scene,
        ...(revision === null ? {} : { revision }),
        ...(Object.keys(plan.params).length === 0 ? {} : { params: plan.params }),
      };
      const bounds = plan.depth === undefined ? {} : { depth: plan.depth };
      const most = plan.maxStates === undefined ? {} : { maxStates: plan.maxStates };
      return [
        withId({ spec, reduce: plan.reduce, ...bounds, ...most }),
        ...plan.seeds.map((seed) => withId({ spec, reduce: false, ...bounds, random: { runs: plan.runs, seed } })),
      ];
    }),
  );
  return [...new Map(jobs.map((job) => [job.id, job])).values()];
}

function withId(job: Omit<Job, 'id'>): Job {
  return { id: createHash('sha256').update(JSON.stringify(job)).digest('hex').slice(0, 24), ...job };
}

/** Does a job, in this thread. @throws InputError when the scene does not exist here */
export async function runJob(job: Job): Promise<ExploreReport> {
  return await exploreScene(job.spec, {
    reduce: job.reduce,
    workers: 1,
    check: false,
    ...(job.depth === undefined ? {} : { depth: job.depth }),
    ...(job.maxStates === undefined ? {} : { maxStates: job.maxStates }),
    ...(job.random === undefined ? {} : { random: job.random }),
  });
}

/** How a job is named in messages. */
export function jobText(job: Job): string {
  const { scene, revision } = job.spec;
  const how = job.random === undefined ? '' : `, seed ${job.random.seed}`;
  return `${scene}${revision === undefined ? '' : ` on ${revision}`}${how}`;
}
