import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { FlatMachine } from '../interpreter/flat-machine.testing.ts';
import {
  ANSWER_SIZE,
  caseBytes,
  counted,
  differences,
  floatCase,
  floatState,
  IMAGE_SIZE,
  runHere,
  SSE_ROWS,
  X87_ROWS,
} from './native-float-cases.testing.ts';

/** [code, instructions, seed of the state, 8-byte words of the image that a processor changed] */
type Vector = readonly [code: string, count: number, seed: number, changed: string];

test('x87, MMX and SSE sequences do what a processor did', () => {
  const vectors = JSON.parse(readFileSync(new URL('./native-float-vectors.json', import.meta.url), 'utf8')) as Vector[];
  expect(vectors.length).toBeGreaterThan(300);
  const machine = new FlatMachine();
  for (const [hex, count, seed, changed] of vectors) {
    const { image } = floatState(seed);
    const code = Uint8Array.from(Buffer.from(hex, 'hex'));
    const ours = runHere(machine, { code, names: new Array<string>(count).fill(''), image });
    const wanted = counted(image);
    const view = new DataView(wanted.buffer);
    view.setInt32(IMAGE_SIZE, -1, true);
    for (const change of changed === '' ? [] : changed.split(' ')) {
      const [at, value] = change.split('=') as [string, string];
      view.setBigUint64(Number(at) * 8, BigInt(`0x${value}`), true);
    }
    expect(differences(counted(ours), wanted), `${hex} seed ${seed}`).toEqual([]);
  }
});

/** SOFTKVM_NATIVE=n: n sequences of each kind on this x86 processor, by the harness; needs gcc and Linux. */
const live = Number(process.env['SOFTKVM_NATIVE'] ?? 0);
test.runIf(live > 0)('random sequences do what this processor does', { timeout: 600_000 }, () => {
  const harness = path.join(mkdtempSync(path.join(tmpdir(), 'softkvm-')), 'harness');
  const source = path.join(import.meta.dirname, 'native-harness.c');
  const flags = ['-O1', '-mavx', '-static', '-no-pie', '-Wl,-Ttext-segment=0x10000000', '-o', harness, source];
  expect(spawnSync('gcc', flags).status).toBe(0);
  const machine = new FlatMachine();
  const size = ANSWER_SIZE;
  const first = Number(process.env['SOFTKVM_NATIVE_SEED'] ?? 1);
  for (const rows of [X87_ROWS, SSE_ROWS, [...X87_ROWS, ...SSE_ROWS]]) {
    const cases = Array.from({ length: live }, (_, i) => floatCase(first + i, rows, 4));
    const { stdout } = spawnSync(harness, { input: Buffer.concat(cases.map(caseBytes)), maxBuffer: 2 ** 31 });
    expect(stdout.length).toBe(live * size);
    const wrong: string[] = [];
    cases.forEach((one, i) => {
      const host = Uint8Array.from(stdout.subarray(i * size, (i + 1) * size));
      const found = differences(runHere(machine, one), host);
      if (found.length > 0)
        wrong.push(`${one.names.join()} ${Buffer.from(one.code).toString('hex')}: ${found.join('; ')}`);
    });
    expect(wrong).toEqual([]);
  }
});
