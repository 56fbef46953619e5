import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { COMPILED_AT_ONCE, INTERPRETER } from '../compiler/engine.ts';
import { FlatMachine } from '../interpreter/flat-machine.testing.ts';
import { ANSWER_SIZE, caseBytes, differences, runHere } from './native-float-cases.testing.ts';
import { ALL_ROWS, INTEGER_ROWS, sequenceCase, VEX_ROWS } from './native-sequences.testing.ts';

const engines = [INTERPRETER, COMPILED_AT_ONCE];
function machine(engine: (typeof engines)[number]): FlatMachine {
  const made = new FlatMachine('long64', engine);
  // The harness has two pages of data.
  for (let page = 0x202; page < 0x220; page++) made.absent.add(page);
  return made;
}
let page = 0;
/** A page for each sequence: one that is written again and again is not compiled. */
const freshPage = (): number => 0x400000 + (page++ % 3000) * 4096;

/** SOFTKVM_NATIVE=n: n sequences of each kind on this x86 processor, by the harness, in both engines; needs gcc and Linux. */
const live = Number(process.env['SOFTKVM_NATIVE'] ?? 0);
test.runIf(live > 0)('random sequences do what this processor does', { timeout: 3_600_000 }, () => {
  const harness = path.join(mkdtempSync(path.join(tmpdir(), 'softkvm-')), 'harness');
  const source = path.join(import.meta.dirname, 'native-harness.c');
  const flags = ['-O1', '-mavx', '-static', '-no-pie', '-Wl,-Ttext-segment=0x10000000', '-o', harness, source];
  expect(spawnSync('gcc', flags).status).toBe(0);
  const machines = engines.map(machine);
  const first = Number(process.env['SOFTKVM_NATIVE_SEED'] ?? 1);
  const wrong = new Map<string, string>();
  let differing = 0;
  for (const [rows, most] of [
    [VEX_ROWS, 1],
    [VEX_ROWS, 6],
    [INTEGER_ROWS, 12],
    [ALL_ROWS, 16],
  ] as const) {
    for (let done = 0; done < live; done += 5000) {
      const cases = Array.from({ length: Math.min(5000, live - done) }, (_, i) => sequenceCase(first + done + i, rows, most));
      const { stdout } = spawnSync(harness, { input: Buffer.concat(cases.map(caseBytes)), maxBuffer: 2 ** 31 });
      expect(stdout.length).toBe(cases.length * ANSWER_SIZE);
      cases.forEach((one, i) => {
        const host = Uint8Array.from(stdout.subarray(i * ANSWER_SIZE, (i + 1) * ANSWER_SIZE));
        const at = freshPage();
        machines.forEach((m, engine) => {
          const found = differences(runHere(m, one, at), host);
          if (found.length === 0) return;
          differing++;
          const what = `${engine === 0 ? '' : 'compiled '}${one.names.length > 3 ? 'sequence' : one.names.join()}`;
          if (!wrong.has(what))
            wrong.set(what, `seed ${first + done + i} ${one.names.join()} ${Buffer.from(one.code).toString('hex')}: ${found.join('; ')}`);
        });
      });
    }
  }
  if (differing > 0) console.log(`${differing} differ`);
  expect([...wrong].slice(0, 25)).toEqual([]);
});
