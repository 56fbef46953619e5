/** What a campaign says of itself, and the way through its jobs on this machine. */

import type { ExploreReport } from '../explore/report.ts';
import { scenes } from '../explore/scene-library.ts';
import { type Job, jobText } from './jobs.ts';
import type { ResultsFile } from './results-file.ts';

/** What `softkvm campaign ... --json` prints. */
export interface CampaignReport {
  readonly version: 1;
  readonly file: string;
  readonly jobs: number;
  readonly done: number;
  readonly states: number;
  /** Of all jobs together, wherever they ran. */
  readonly seconds: number;
  readonly results: readonly CampaignResult[];
  readonly failures: readonly { readonly job: string; readonly message: string }[];
  /** Nothing is missing and every scene gave what it expects on its own revision. */
  readonly asExpected: boolean;
}

export interface CampaignResult {
  readonly job: string;
  readonly verdict: ExploreReport['verdict'];
  readonly complete: boolean;
  readonly states: number;
  readonly seconds: number;
  readonly text: string | null;
  readonly replay: string | null;
  /** null: the scene expects nothing of this revision, or chance need not find it. */
  readonly asExpected: boolean | null;
}

/**
 * Does the pending jobs, `concurrency` at a time. A job that fails is kept with its reason; the others go on. What `run` gives up because of an
 * interruption says nothing of the job.
 */
export async function runJobs(
  results: ResultsFile,
  concurrency: number,
  run: (job: Job) => Promise<ExploreReport>,
  options: { readonly interrupted?: () => boolean; readonly onDone?: (job: Job) => void } = {},
): Promise<void> {
  const pending = results.pending();
  let next = 0;
  const one = async (): Promise<void> => {
    while (next < pending.length && options.interrupted?.() !== true) {
      const job = pending[next++]!;
      try {
        const report = await run(job);
        results.record(job.id, report, `local ${process.pid}`);
      } catch (error) {
        if (options.interrupted?.() !== true) results.fail(job.id, (error as Error).message);
      }
      options.onDone?.(job);
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, pending.length) }, one));
}

export function campaignReport(results: ResultsFile): CampaignReport {
  const rows = results.results().map(({ job, report }): CampaignResult => {
    return {
      job: jobText(job),
      verdict: report.verdict,
      complete: report.complete,
      states: report.states,
      seconds: report.seconds,
      text: report.counterexample?.text ?? null,
      replay: report.counterexample?.replay ?? null,
      asExpected: expectation(job, report),
    };
  });
  const failures = results.failures().map(({ job, message }) => ({ job: jobText(job), message }));
  const { total } = results;
  return {
    version: 1,
    file: results.file,
    jobs: total,
    done: rows.length,
    states: rows.reduce((sum, r) => sum + r.states, 0),
    seconds: rows.reduce((sum, r) => sum + r.seconds, 0),
    results: rows,
    failures,
    asExpected: rows.length === total && rows.every((r) => r.asExpected !== false),
  };
}

function expectation(job: Job, report: ExploreReport): boolean | null {
  if (job.spec.revision !== undefined || job.spec.params !== undefined) return null;
  const expects = job.expects ?? scenes().find((s) => s.name === job.spec.scene)?.expects;
  if (expects === undefined) return null;
  if (report.verdict !== 'holds') return report.verdict === expects;
  return report.complete ? expects === 'holds' : null;
}

export function campaignLines(r: CampaignReport): string[] {
  const width = Math.max(0, ...r.results.map((x) => x.job.length));
  const lines = r.results.map((x) => {
    const mark = x.asExpected === false ? '!' : ' ';
    const verdict = x.verdict === 'holds' ? (x.complete ? 'complete' : 'nothing') : x.verdict;
    const found = x.text === null ? '' : `  ${x.text}  (--replay ${x.replay})`;
    return `${mark} ${x.job.padEnd(width)}  ${verdict.padEnd(9)} ${x.states.toLocaleString('en-US').padStart(13)} states${found}`;
  });
  for (const f of r.failures) lines.push(`! ${f.job}: ${f.message}`);
  lines.push(
    `${r.done} of ${r.jobs} jobs done, ${r.states.toLocaleString('en-US')} states, ${r.seconds.toFixed(1)} s of searching; ${r.file}`,
  );
  if (r.results.some((x) => x.asExpected === false)) lines.push('! not what the scene expects');
  if (r.done < r.jobs) lines.push(`\`softkvm campaign resume ${r.file}\` goes on`);
  return lines;
}
