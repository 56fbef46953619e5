/** The command line as it is built, for tests that need processes and threads, which cannot run TypeScript. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type OutputOptions, type RolldownOptions, rolldown } from 'rolldown';
import { loadConfig } from 'rolldown/config';

const root = fileURLToPath(new URL('../../../', import.meta.url));

export interface Finished {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class BuiltCli {
  readonly folder: string;
  private readonly bin: string;
  private readonly children = new Set<ChildProcess>();

  private constructor(folder: string) {
    this.folder = folder;
    this.bin = join(folder, 'run.mjs');
  }

  /** Next to the packages that it imports. */
  static async make(): Promise<BuiltCli> {
    const cli = new BuiltCli(mkdtempSync(join(root, 'node_modules', '.softkvm-cli-')));
    const config = (await loadConfig(join(root, 'rolldown.config.js'))) as RolldownOptions;
    const { output, ...input } = config;
    const bundle = await rolldown({ ...input, cwd: root, logLevel: 'silent' });
    await bundle.write({ ...(output as OutputOptions), dir: join(cli.folder, 'dist'), sourcemap: false });
    await bundle.close();
    copyFileSync(join(root, 'package.json'), join(cli.folder, 'package.json'));
    symlinkSync(join(root, 'src'), join(cli.folder, 'src'));
    mkdirSync(join(cli.folder, 'work'));
    writeFileSync(
      cli.bin,
      "import { runCommandLine } from './dist/cli/main.js';\nawait runCommandLine(process.argv.slice(2));\n",
    );
    return cli;
  }

  file(name: string): string {
    return join(this.folder, 'work', name);
  }

  /** Starts a command. */
  start(...args: string[]): { readonly child: ChildProcess; readonly finished: Promise<Finished> } {
    const child = spawn(process.execPath, [this.bin, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.children.add(child);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text) => {
      stdout += text;
    });
    child.stderr.on('data', (text) => {
      stderr += text;
    });
    const finished = once(child, 'close').then(([status]) => {
      this.children.delete(child);
      return { status: status as number | null, stdout, stderr };
    });
    return { child, finished };
  }

  run(...args: string[]): Promise<Finished> {
    return this.start(...args).finished;
  }

  remove(): void {
    for (const child of this.children) child.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Waits until `check` holds. @throws Error after a while */
export async function until(
  check: () => boolean | Promise<boolean>,
  what: string,
  milliseconds = 40_000,
): Promise<void> {
  for (const end = Date.now() + milliseconds; !(await check()); ) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
