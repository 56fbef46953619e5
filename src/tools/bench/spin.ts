/** The fault protocol under spin, compiled and exhaustive: a second opinion of how many states there are, and a speed to compare with. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FaultProtocolSize } from '../explore/textbook/fault-protocol.ts';
import { FAULT_PROTOCOL_PROMELA } from '../explore/textbook/fault-protocol-promela.ts';

export interface SpinResult {
  readonly states: number;
  readonly transitions: number;
  readonly errors: number;
  readonly seconds: number;
}

/** null when spin or a C compiler is not there. `reduce`: with spin's own partial-order reduction. @throws Error when they fail */
export function runSpin(size: FaultProtocolSize, reduce: boolean): SpinResult | null {
  if (!exists('spin', '-V') || !exists('cc', '--version')) return null;
  const folder = mkdtempSync(join(tmpdir(), 'softkvm-spin-'));
  const run = (command: string, ...args: string[]): string => {
    const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, encoding: 'utf8', maxBuffer: 1 << 26 });
    if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr || stdout}`);
    return stdout;
  };
  try {
    writeFileSync(join(folder, 'protocol.pml'), FAULT_PROTOCOL_PROMELA);
    const { vcpus, invalidators, pages, rounds, guard } = size;
    const sizes = [`-DVCPUS=${vcpus}`, `-DHOSTS=${invalidators}`, `-DPAGES=${pages}`, `-DROUNDS=${rounds}`];
    run('spin', '-a', ...sizes, ...(guard ? [] : ['-DUNGUARDED']), 'protocol.pml');
    run('cc', '-O2', '-DSAFETY', ...(reduce ? [] : ['-DNOREDUCE']), '-w', '-o', 'pan', 'pan.c');
    const start = performance.now();
    const text = run(join(folder, 'pan'), '-m1000000', '-w24');
    const seconds = (performance.now() - start) / 1000;
    const number = (pattern: RegExp): number => Number(pattern.exec(text)?.[1]);
    return {
      states: number(/(\d+) states, stored/),
      // it counts the way into the first state
      transitions: number(/(\d+) transitions/) - 1,
      errors: number(/errors: (\d+)/),
      seconds,
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function exists(command: string, argument: string): boolean {
  return spawnSync(command, [argument]).status === 0;
}
