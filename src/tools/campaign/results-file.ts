/**
 * The one file that a campaign is: its jobs and what came out of them, in SQLite. A result is in it or not, whenever the process that
 * writes it is killed, and there is room for one a job, so that none counts twice.
 *
 * node-sqlite3-wasm: nothing to compile, and it writes the file in place with SQLite's journal (sql.js keeps all in memory and writes it as a whole;
 * better-sqlite3 has to be compiled or downloaded; node:sqlite needs Node 22).
 */
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
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
`;

export interface ResultRow {
  readonly job: Job;
  readonly report: ExploreReport;
  readonly doneBy: string;
}

export class ResultsFile {
  readonly file: string;
  private readonly db: Database;

  private constructor(file: string, db: Database) {
    this.file = file;
    this.db = db;
  }

  /** Makes the file for these jobs. @throws InputError when there is such a file */
  static async create(file: string, jobs: readonly Job[]): Promise<ResultsFile> {
    if (existsSync(file))
      throw new InputError(`${file}: there is such a file: \`softkvm campaign resume ${file}\` goes on with it`);
    const results = await open(file);
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
    if (!existsSync(file)) throw new InputError(`${file}: no such file`);
    const results = await open(file);
    try {
      const row = results.db.get('SELECT schema FROM campaign');
      if (row?.['schema'] !== SCHEMA_VERSION) throw new Error('another schema');
    } catch (error) {
      results.close();
      throw new InputError(`${file}: is no campaign of this version (${(error as Error).message})`);
    }
    return results;
  }

  static of(file: string, db: Database): ResultsFile {
    return new ResultsFile(file, db);
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
    rmSync(ownerFile(this.file), { force: true });
  }
}

async function open(file: string): Promise<ResultsFile> {
  takeOver(file);
  try {
    const { default: sqlite } = await import('node-sqlite3-wasm');
    const db = new sqlite.Database(file);
    // somebody may be reading with a tool of their own
    db.exec('PRAGMA busy_timeout = 10000');
    return ResultsFile.of(file, db);
  } catch (error) {
    rmSync(ownerFile(file), { force: true });
    throw new InputError(`${file}: cannot be opened (${(error as Error).message})`);
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
  for (let attempt = 0; ; attempt++) {
    try {
      const fd = openSync(owner, 'wx');
      writeSync(fd, String(process.pid));
      closeSync(fd);
      break;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EEXIST') throw new InputError(`${file}: cannot be written (${code})`);
      const pid = Number(readFileSync(owner, 'utf8'));
      if (isAlive(pid) || attempt > 1) throw new InputError(`${file}: process ${pid} is at work on it`);
      rmSync(owner, { force: true });
    }
  }
  rmSync(`${file}.lock`, { recursive: true, force: true });
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
