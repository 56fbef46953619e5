/**
 * The one file that a campaign is: its jobs and what came out of them, in SQLite. A result is in it or not, whenever the process that
 * writes it is killed, and there is room for one a job, so that none counts twice.
 *
 * node-sqlite3-wasm: nothing to compile, and it writes the file in place with SQLite's journal (sql.js keeps all in memory and writes it as a whole;
 * better-sqlite3 has to be compiled or downloaded; node:sqlite needs Node 22). It locks with a folder beside the file and not with fcntl, so that another
 * SQLite cannot see that a transaction is under way, and would take it back: while a campaign runs, others may read the file but not open it for writing.
 */
import { existsSync, linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Database, JSValue } from 'node-sqlite3-wasm';
import type { ExploreReport } from '../explore/report.ts';
import { InputError } from '../input-error.ts';
import type { Job } from './jobs.ts';

const SCHEMA_VERSION = 1;
const SCHEMA = `
  CREATE TABLE campaign (schema INTEGER NOT NULL, name TEXT NOT NULL, created TEXT NOT NULL);
  CREATE TABLE jobs (id TEXT PRIMARY KEY, ordinal INTEGER NOT NULL, job TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE results (
    id TEXT PRIMARY KEY REFERENCES jobs (id), verdict TEXT NOT NULL, complete INTEGER NOT NULL, states INTEGER NOT NULL,
    seconds REAL NOT NULL, done_by TEXT NOT NULL, finished TEXT NOT NULL, report TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE failures (id TEXT NOT NULL REFERENCES jobs (id), message TEXT NOT NULL, at TEXT NOT NULL);
  CREATE VIEW found AS SELECT
    json_extract(job, '$.spec.scene') AS scene, json_extract(job, '$.spec.revision') AS revision,
    json_extract(job, '$.random.seed') AS seed, verdict, complete, states, seconds, done_by, finished,
    json_extract(report, '$.counterexample.text') AS text, json_extract(report, '$.counterexample.replay') AS replay
    FROM results JOIN jobs USING (id) ORDER BY ordinal;
`;

export interface ResultRow {
  readonly job: Job;
  readonly report: ExploreReport;
  readonly doneBy: string;
}

export class ResultsFile {
  readonly file: string;
  private readonly db: Database;
  private readonly mine: boolean;

  private constructor(file: string, db: Database, mine: boolean) {
    this.file = file;
    this.db = db;
    this.mine = mine;
  }

  /** Makes the file for these jobs. @throws InputError when there is such a file */
  static async create(file: string, jobs: readonly Job[]): Promise<ResultsFile> {
    if (existsSync(file))
      throw new InputError(`${file}: there is such a file: \`softkvm campaign resume ${file}\` goes on with it`);
    const results = await ResultsFile.open(file, true);
    results.transaction(() => {
      results.db.exec(SCHEMA);
      const name = `${Date.now().toString(36)}-${process.pid.toString(36)}`;
      results.db.run('INSERT INTO campaign VALUES (?, ?, ?)', [SCHEMA_VERSION, name, now()]);
      for (const [i, job] of jobs.entries())
        results.db.run('INSERT INTO jobs VALUES (?, ?, ?)', [job.id, i, JSON.stringify(job)]);
    });
    return results;
  }

  /** @throws InputError when it is no such file, or somebody else's at the moment */
  static async resume(file: string): Promise<ResultsFile> {
    return await ResultsFile.known(file, true);
  }

  /** To read what is there so far, though somebody may be at work on it. @throws InputError when it is no such file */
  static async read(file: string): Promise<ResultsFile> {
    // what was left in the middle of a transaction can only be read once it is taken back
    return await ResultsFile.known(file, !isOwned(file));
  }

  private static async known(file: string, mine: boolean): Promise<ResultsFile> {
    if (!existsSync(file)) throw new InputError(`${file}: no such file`);
    const results = await ResultsFile.open(file, mine);
    try {
      const row = results.db.get('SELECT schema FROM campaign');
      if (row?.['schema'] !== SCHEMA_VERSION) throw new Error('another schema');
    } catch (error) {
      results.close();
      throw new InputError(`${file}: is no campaign of this version (${(error as Error).message})`);
    }
    return results;
  }

  private static async open(file: string, mine: boolean): Promise<ResultsFile> {
    if (mine) takeOver(file);
    try {
      const { default: sqlite } = await import('node-sqlite3-wasm');
      const db = new sqlite.Database(file, { readOnly: !mine });
      // `read` and its like may be looking
      db.exec('PRAGMA busy_timeout = 10000');
      return new ResultsFile(file, db, mine);
    } catch (error) {
      if (mine) rmSync(ownerFile(file), { force: true });
      throw new InputError(`${file}: cannot be opened (${(error as Error).message})`);
    }
  }

  /** Tells this campaign from all others. */
  get name(): string {
    return String(this.db.get('SELECT name FROM campaign')!['name']);
  }

  get total(): number {
    return Number(this.db.get('SELECT count(*) AS n FROM jobs')!['n']);
  }

  get done(): number {
    return Number(this.db.get('SELECT count(*) AS n FROM results')!['n']);
  }

  /** The jobs without a result, in order. */
  pending(): Job[] {
    return this.jobs('SELECT job FROM jobs WHERE id NOT IN (SELECT id FROM results) ORDER BY ordinal');
  }

  private jobs(sql: string): Job[] {
    return this.db.all(sql).map((row) => JSON.parse(String(row['job'])) as Job);
  }

  /** Keeps a result; false when the job had one, or is none of ours. */
  record(id: string, report: ExploreReport, doneBy: string): boolean {
    const values: JSValue[] = [id, report.verdict, report.complete ? 1 : 0, report.states, report.seconds, doneBy];
    return this.transaction(
      () =>
        this.db.run(
          'INSERT OR IGNORE INTO results SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?)',
          [...values, now(), JSON.stringify(report), id],
        ).changes === 1,
    );
  }

  /** Keeps why a job could not be done. It stays pending. */
  fail(id: string, message: string): void {
    this.transaction(() => this.db.run('INSERT INTO failures VALUES (?, ?, ?)', [id, message, now()]));
  }

  /** The last failure of each job that has no result. */
  failures(): { readonly job: Job; readonly message: string }[] {
    const rows = this.db.all(
      'SELECT job, message, max(at) FROM failures JOIN jobs USING (id) WHERE id NOT IN (SELECT id FROM results) GROUP BY id',
    );
    return rows.map((row) => ({ job: JSON.parse(String(row['job'])) as Job, message: String(row['message']) }));
  }

  results(): ResultRow[] {
    return this.db.all('SELECT job, report, done_by FROM results JOIN jobs USING (id) ORDER BY ordinal').map((row) => ({
      job: JSON.parse(String(row['job'])) as Job,
      report: JSON.parse(String(row['report'])) as ExploreReport,
      doneBy: String(row['done_by']),
    }));
  }

  private transaction<T>(work: () => T): T {
    this.db.exec('BEGIN IMMEDIATE');
    try {
      const value = work();
      this.db.exec('COMMIT');
      return value;
    } catch (error) {
      if (this.db.inTransaction) this.db.exec('ROLLBACK');
      throw error;
    }
  }

  close(): void {
    this.db.close();
    if (this.mine) rmSync(ownerFile(this.file), { force: true });
  }
}

function ownerFile(file: string): string {
  return `${file}.owner`;
}

/**
 * One process at a time has the file, and says so beside it. What a killed one left behind is removed: its name, and the lock of its last
 * transaction, which SQLite then takes back with the journal.
 */
function takeOver(file: string): void {
  const owner = ownerFile(file);
  const mine = `${owner}.${process.pid}`;
  try {
    // made whole and then put in its place, which is there already or not: nobody reads half a name
    writeFileSync(mine, `${process.pid} ${hostname()}\n`);
    for (let attempt = 0; ; attempt++) {
      try {
        linkSync(mine, owner);
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        if (attempt > 1 || isOwned(file)) throw new InputError(`${file}: ${ownerText(file)} is at work on it`);
        rmSync(owner, { force: true });
      }
    }
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`${file}: cannot be written (${(error as NodeJS.ErrnoException).code})`);
  } finally {
    rmSync(mine, { force: true });
  }
  rmSync(`${file}.lock`, { recursive: true, force: true });
}

/** Whether somebody has the file. Of another machine's process nobody here can say whether it lives. */
function isOwned(file: string): boolean {
  const { pid, host } = ownerOf(file);
  return pid !== 0 && (host !== hostname() || isAlive(pid));
}

function ownerText(file: string): string {
  const { pid, host } = ownerOf(file);
  return host === hostname() ? `process ${pid}` : `process ${pid} of ${host} (or ${ownerFile(file)} is left of it)`;
}

/** Who says that the file is theirs; process 0: nobody. */
function ownerOf(file: string): { readonly pid: number; readonly host: string } {
  try {
    const [pid = '', host = ''] = readFileSync(ownerFile(file), 'utf8').trim().split(' ');
    return { pid: Number(pid), host };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return { pid: 0, host: '' };
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function now(): string {
  return new Date().toISOString();
}
