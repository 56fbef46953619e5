import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { campaignReport, runJobs } from './campaign.ts';
import { type Job, jobsOf, runJob } from './jobs.ts';
import { ResultsFile } from './results-file.ts';

let folder: string;
let file: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softkvm-'));
  file = join(folder, 'c.sqlite');
});

afterEach(() => rmSync(folder, { recursive: true }));

const plan = {
  scenes: ['fault-protocol', 'fault-protocol-unguarded'],
  revisions: [null],
  params: {},
  reduce: true,
  seeds: [1, 2],
  runs: 10,
};

describe('the jobs of a campaign', () => {
  it('are one a scene and revision, and one more a seed', () => {
    const jobs = jobsOf(plan);
    expect(jobs).toHaveLength(6);
    expect(new Set(jobs.map((j) => j.id)).size).toBe(6);
    expect(jobsOf(plan).map((j) => j.id)).toEqual(jobs.map((j) => j.id));
    expect(jobsOf({ ...plan, scenes: ['fault-protocol', 'fault-protocol'] })).toHaveLength(3);
    expect(jobsOf({ ...plan, revisions: ['a', 'b'] })).toHaveLength(12);
  });
});

describe('the results file', () => {
  it('keeps one result a job, and says what is pending', async () => {
    const jobs = jobsOf(plan);
    const results = await ResultsFile.create(file, jobs);
    expect(results.pending().map((j) => j.id)).toEqual(jobs.map((j) => j.id));
    const report = await runJob(jobs[1]!);
    expect(results.record(jobs[1]!.id, report, 'x')).toBe(true);
    expect(results.record(jobs[1]!.id, report, 'y')).toBe(false);
    expect(results.record('another', report, 'y')).toBe(false);
    expect(results.done).toBe(1);
    expect(results.pending()).toHaveLength(5);
    expect(results.results()).toEqual([{ job: jobs[1], report, doneBy: 'x' }]);
    results.close();
    expect(existsSync(`${file}.owner`)).toBe(false);

    const again = await ResultsFile.resume(file);
    expect(again.name).not.toBe('');
    expect(again.done).toBe(1);
    await runJobs(again, 2, runJob);
    const summary = campaignReport(again);
    expect(summary).toMatchObject({ jobs: 6, done: 6, asExpected: true, failures: [] });
    expect(summary.results.map((r) => r.verdict)).toContain('violation');
    again.close();
  });

  it('is read while somebody is at work on it, by others and by plain SQL', async () => {
    const results = await ResultsFile.create(file, jobsOf(plan));
    results.record(results.pending()[1]!.id, await runJob(results.pending()[1]!), 'x');
    const reader = await ResultsFile.read(file);
    expect(reader.done).toBe(1);
    expect(() => reader.fail('x', 'y')).toThrow();
    reader.close();
    expect(existsSync(`${file}.owner`)).toBe(true);
    results.close();
    const script = `const { Database } = require('node-sqlite3-wasm');
      console.log(JSON.stringify(new Database(process.argv[1], { readOnly: true }).get('SELECT * FROM found')));`;
    const { stdout } = spawnSync(process.execPath, ['-e', script, file], { encoding: 'utf8' });
    expect(JSON.parse(stdout)).toMatchObject({ scene: 'fault-protocol', revision: null, seed: 1, verdict: 'holds' });
  });

  it('expects of a scene of a file what the file said', async () => {
    const [job] = jobsOf({ ...plan, scenes: ['fault-protocol'], seeds: [] });
    const own: Job = { ...job!, id: 'own', expects: 'violation' };
    const results = await ResultsFile.create(file, [own]);
    results.record('own', await runJob(own), 'x');
    expect(campaignReport(results)).toMatchObject({ done: 1, asExpected: false });
    results.close();
  });

  it('keeps why a job failed; the job stays pending', async () => {
    const results = await ResultsFile.create(file, jobsOf(plan));
    const broken = async (job: Job) => {
      if (job.random !== undefined) throw new Error('out of luck');
      return await runJob(job);
    };
    await runJobs(results, 1, broken);
    expect(campaignReport(results)).toMatchObject({ jobs: 6, done: 2, asExpected: false });
    expect(results.failures()).toHaveLength(4);
    expect(results.failures()[0]).toMatchObject({ message: 'out of luck' });
    await runJobs(results, 1, runJob);
    expect(campaignReport(results)).toMatchObject({ done: 6, failures: [] });
    results.close();
  });

  it('refuses a file that is there, is none, or belongs to a process that lives', async () => {
    const results = await ResultsFile.create(file, jobsOf(plan));
    await expect(ResultsFile.create(file, [])).rejects.toThrow('there is such a file');
    await expect(ResultsFile.resume(file)).rejects.toThrow(`process ${process.pid} is at work on it`);
    results.close();
    writeFileSync(`${file}.owner`, '1 another.machine');
    await expect(ResultsFile.resume(file)).rejects.toThrow('process 1 of another.machine');
    rmSync(`${file}.owner`);
    await expect(ResultsFile.resume(join(folder, 'none'))).rejects.toThrow('no such file');
    writeFileSync(join(folder, 'text'), 'hello, this is no database, however long it may be');
    await expect(ResultsFile.resume(join(folder, 'text'))).rejects.toThrow('is no campaign of this version');
    await expect(ResultsFile.create(join(folder, 'no', 'where'), [])).rejects.toThrow('cannot be written (ENOENT)');
  });

  it('takes over from a process that was killed in the middle of a transaction', async () => {
    (await ResultsFile.create(file, jobsOf(plan))).close();
    const script = `
      const { Database } = require(${JSON.stringify(join(process.cwd(), 'node_modules/node-sqlite3-wasm'))});
      const db = new Database(${JSON.stringify(file)});
      require('fs').writeFileSync(${JSON.stringify(`${file}.owner`)}, process.pid + ' ' + require('os').hostname());
      db.exec('PRAGMA cache_size = 1');
      db.exec('BEGIN IMMEDIATE');
      db.run('DELETE FROM jobs');
      process.kill(process.pid, 'SIGKILL');`;
    expect(spawnSync(process.execPath, ['-e', script]).signal).toBe('SIGKILL');
    expect(existsSync(`${file}.lock`)).toBe(true);
    const results = await ResultsFile.resume(file);
    expect(results.pending()).toHaveLength(6);
    results.close();
    mkdirSync(`${file}.lock`);
    (await ResultsFile.resume(file)).close();
  });
});
