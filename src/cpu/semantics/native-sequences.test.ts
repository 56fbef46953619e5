import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { COMPILED_AT_ONCE, INTERPRETER } from '../compiler/engine.ts';
import { FlatMachine } from '../interpreter/flat-machine.testing.ts';
import { ANSWER_SIZE, caseBytes, counted, differences, IMAGE_SIZE, runHere } from './native-float-cases.testing.ts';
import { ALL_ROWS, INTEGER_ROWS, sequenceCase, sequenceState, VEX_ROWS } from './native-sequences.testing.ts';

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

/** [code, instructions, seed of the state, 8-byte words of the image that a processor changed] */
type Vector = readonly [code: string, count: number, seed: number, changed: string];

test.each([0, 1])('recorded sequences do what a processor did, engine %i', (engine) => {
  const vectors = JSON.parse(
    readFileSync(new URL('./native-sequence-vectors.json', import.meta.url), 'utf8'),
  ) as Vector[];
  expect(vectors.length).toBeGreaterThan(300);
  const m = machine(engines[engine]!);
  for (const [hex, count, seed, changed] of vectors) {
    const { image } = sequenceState(seed);
    const code = Uint8Array.from(Buffer.from(hex, 'hex'));
    const ours = runHere(m, { code, names: new Array<string>(count).fill(''), image }, freshPage());
    const wanted = image.slice();
    const view = new DataView(wanted.buffer);
    view.setInt32(IMAGE_SIZE, -1, true);
    for (const change of changed === '' ? [] : changed.split(' ')) {
      const [at, value] = change.split('=') as [string, string];
      view.setBigUint64(Number(at) * 8, BigInt(`0x${value}`), true);
    }
    expect(differences(counted(ours), counted(wanted)), `${hex} seed ${seed}`).toEqual([]);
  }
});

/** What an answer changed in an image: see Vector. */
function changesOf(image: Uint8Array, answer: Uint8Array): string {
  const before = counted(image);
  const after = counted(answer);
  const [a, b] = [new DataView(before.buffer), new DataView(after.buffer)];
  a.setInt32(IMAGE_SIZE, -1, true);
  const changes: string[] = [];
  for (let at = 0; at < ANSWER_SIZE; at += 8) {
    if (a.getBigUint64(at, true) !== b.getBigUint64(at, true))
      changes.push(`${at / 8}=${b.getBigUint64(at, true).toString(16)}`);
  }
  return changes.join(' ');
}

/** SOFTKVM_NATIVE=n: n sequences of each kind on this x86 processor, by the harness, in both engines; needs gcc and Linux. SOFTKVM_NATIVE_RECORD=path: they become vectors. */
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
  const recorded: Vector[] = [];
  const recordTo = process.env['SOFTKVM_NATIVE_RECORD'];
  for (const [rows, most] of [
    [VEX_ROWS, 1],
    [VEX_ROWS, 6],
    [INTEGER_ROWS, 12],
    [ALL_ROWS, 16],
  ] as const) {
    for (let done = 0; done < live; done += 5000) {
      const cases = Array.from({ length: Math.min(5000, live - done) }, (_, i) =>
        sequenceCase(first + done + i, rows, most),
      );
      const { stdout } = spawnSync(harness, { input: Buffer.concat(cases.map(caseBytes)), maxBuffer: 2 ** 31 });
      expect(stdout.length).toBe(cases.length * ANSWER_SIZE);
      cases.forEach((one, i) => {
        const host = Uint8Array.from(stdout.subarray(i * ANSWER_SIZE, (i + 1) * ANSWER_SIZE));
        const at = freshPage();
        if (recordTo !== undefined) {
          const { code, names, image } = one;
          recorded.push([Buffer.from(code).toString('hex'), names.length, first + done + i, changesOf(image, host)]);
        }
        machines.forEach((m, engine) => {
          const found = differences(runHere(m, one, at), host);
          if (found.length === 0) return;
          differing++;
          const what = `${engine === 0 ? '' : 'compiled '}${one.names.length > 3 ? 'sequence' : one.names.join()}`;
          if (!wrong.has(what))
            wrong.set(
              what,
              `seed ${first + done + i} ${one.names.join()} ${Buffer.from(one.code).toString('hex')}: ${found.join('; ')}`,
            );
        });
      });
    }
  }
  if (recordTo !== undefined) {
    writeFileSync(recordTo, `[\n${recorded.map((v) => JSON.stringify(v)).join(',\n')}\n]\n`);
  }
  if (differing > 0) console.log(`${differing} differ`);
  expect([...wrong].slice(0, 25)).toEqual([]);
});
