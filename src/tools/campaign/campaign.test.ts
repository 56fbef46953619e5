import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { BuiltCli, until } from './built-cli.testing.ts';
import type { CampaignReport } from './campaign.ts';
import { ResultsFile } from './results-file.ts';

let cli: BuiltCli;

beforeAll(async () => {
  cli = await BuiltCli.make();
});

afterAll(() => cli.remove());

/** Jobs that take a moment each. */
const SEEDS = 12;
const RUNS = 40_000;
const PLAN = ['fault-protocol', '--seeds', String(SEEDS), '--runs', String(RUNS)];
const JOBS = SEEDS + 1;

const SCENE = `import { migratePage, scene, vcpu, write } from 'softkvm/scenes';
export default scene({
  name: 'mine',
  title: 'a fault on a page that moves',
  claim: 'mine',
  slots: [{ id: 0, gfn: 0x100, pages: 1 }],
  actors: [vcpu([write(0x100)]), migratePage(0x100)],
  expect: 'safe',
});
`;

function parsed(stdout: string): CampaignReport {
  return JSON.parse(stdout) as CampaignReport;
}

/** Every job has one result, which all agree on with what a campaign in one go finds. */
async function expectWhole(file: string): Promise<void> {
  const results = await ResultsFile.resume(file);
  const rows = results.results();
  results.close();
  expect(rows).toHaveLength(JOBS);
  expect(new Set(rows.map((r) => r.job.id)).size).toBe(JOBS);
  expect(rows[0]!.report).toMatchObject({ verdict: 'holds', complete: true, states: 15_769 });
  for (const [i, row] of rows.slice(1).entries()) expect(row.report.random).toMatchObject({ seed: i + 1, runs: RUNS });
}

describe('a campaign on one machine', () => {
  it('goes on after it was killed, and counts nothing twice', async () => {
    const file = cli.file('killed.sqlite');
    const { child, finished } = cli.start('campaign', 'run', ...PLAN, '--workers', '2', '--results', file);
    await until(async () => (await doneIn(file)) >= 3, 'some jobs are done');
    child.kill('SIGKILL');
    await finished;
    const before = await doneIn(file);
    expect(before).toBeGreaterThanOrEqual(3);
    const resumed = await cli.run('campaign', 'resume', file, '--workers', '2', '--json');
    expect(resumed.status, resumed.stderr).toBe(0);
    expect(parsed(resumed.stdout)).toMatchObject({ jobs: JOBS, done: JOBS, asExpected: true });
    await expectWhole(file);
    const nothing = await cli.run('campaign', 'resume', file, '--json');
    expect(parsed(nothing.stdout)).toEqual(parsed(resumed.stdout));
  });

  it('searches with threads from the command line', async () => {
    const alone = await cli.run('explore', 'fault-protocol-unguarded', '--json');
    const both = await cli.run('explore', 'fault-protocol-unguarded', '--json', '--workers', '2');
    expect(both.status, both.stderr).toBe(1);
    const { counterexample, states } = JSON.parse(alone.stdout);
    expect(JSON.parse(both.stdout)).toMatchObject({ workers: 2, counterexample, states });
  });

  it('searches a scene of a file with threads', async () => {
    const file = cli.file('mine.ts');
    writeFileSync(file, SCENE);
    const { status, stdout, stderr } = await cli.run('explore', file, '--json', '--workers', '2');
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ workers: 2, verdict: 'holds', complete: true });
  });
});

/** Results so far, without becoming the file's owner: somebody else is. */
async function doneIn(file: string): Promise<number> {
  if (!existsSync(file)) return 0;
  try {
    const results = await ResultsFile.read(file);
    const { done } = results;
    results.close();
    return done;
  } catch {
    // its tables are not made yet
    return 0;
  }
}

const redisServer = spawnSync('redis-server', ['--version']).status === 0;
if (!redisServer)
  process.stderr.write('campaign: no redis-server here (apt-get install redis-server): skipped what needs one\n');

describe.skipIf(!redisServer)('a campaign through Redis', () => {
  let server: ChildProcess | null = null;
  let port = 0;
  let url = '';

  const startServer = async (): Promise<void> => {
    const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
    server = spawn('redis-server', args, { stdio: ['ignore', 'pipe', 'ignore'] });
    let output = '';
    server.stdout!.on('data', (text) => {
      output += text;
    });
    await until(() => output.includes('Ready to accept'), 'Redis is ready');
  };
  const stopServer = async (): Promise<void> => {
    if (server === null) return;
    const closed = once(server, 'close');
    server.kill('SIGKILL');
    await closed;
    server = null;
  };

  beforeAll(async () => {
    port = await freePort();
    url = `redis://127.0.0.1:${port}`;
  });
  afterEach(stopServer);

  it('hands the jobs to workers; one that is killed loses none', async () => {
    await startServer();
    const file = cli.file('queue.sqlite');
    const first = cli.start('campaign', 'worker', '--redis', url, '--workers', '1', '--stalled', '2');
    const run = cli.start('campaign', 'run', ...PLAN, '--redis', url, '--results', file, '--json');
    await until(async () => (await doneIn(file)) >= 2, 'some jobs are done');
    first.child.kill('SIGKILL');
    const second = cli.start('campaign', 'worker', '--redis', url, '--workers', '1', '--stalled', '2');
    const finished = await run.finished;
    expect(finished.status, finished.stderr).toBe(0);
    expect(parsed(finished.stdout)).toMatchObject({ jobs: JOBS, done: JOBS, asExpected: true });
    await expectWhole(file);
    const results = await ResultsFile.resume(file);
    expect(new Set(results.results().map((r) => r.doneBy)).size).toBe(2);
    results.close();
    second.child.kill('SIGINT');
    expect((await second.finished).status).toBe(0);
  });

  it('says that Redis is gone, keeps what is done, and goes on with an empty one', async () => {
    await startServer();
    const file = cli.file('gone.sqlite');
    const patience = ['--redis', url, '--redis-patience', '1'];
    const worker = cli.start('campaign', 'worker', ...patience, '--workers', '1');
    const run = cli.start('campaign', 'run', ...PLAN, ...patience, '--results', file);
    await until(async () => (await doneIn(file)) >= 2, 'some jobs are done');
    await stopServer();
    const [ran, worked] = await Promise.all([run.finished, worker.finished]);
    expect(ran.status).toBe(2);
    expect(ran.stderr).toMatch(/^softkvm: redis:.*: Redis is gone \(.*\); \d+ of 13 results are in .*campaign resume/);
    expect(worked.status).toBe(2);
    expect(worked.stderr).toMatch(/Redis is gone/);
    const kept = await doneIn(file);
    expect(kept).toBeGreaterThanOrEqual(2);
    await startServer();
    const resumed = await cli.run('campaign', 'resume', file, '--redis', url, '--workers', '1', '--json');
    expect(resumed.status, resumed.stderr).toBe(0);
    await expectWhole(file);
  });

  it('says that Redis is not there', async () => {
    for (const args of [
      ['campaign', 'worker', '--redis', url],
      ['campaign', 'run', ...PLAN, '--redis', url, '--results', cli.file('absent.sqlite')],
    ]) {
      const { status, stderr } = await cli.run(...args);
      expect(status).toBe(2);
      expect(stderr).toMatch(/^softkvm: redis:\/\/127\.0\.0\.1:\d+: Redis cannot be reached \(ECONNREFUSED\)/);
      expect(stderr.trimEnd()).not.toContain('\n');
    }
    const { status, stderr } = await cli.run('campaign', 'worker', '--redis', 'localhost');
    expect([status, stderr]).toEqual([
      2,
      'softkvm: --redis localhost: expected an address, as redis://127.0.0.1:6379\n',
    ]);
  });
});

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, 'close');
  return port;
}
