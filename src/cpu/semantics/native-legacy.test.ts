import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { COMPILED_AT_ONCE, INTERPRETER } from '../compiler/engine.ts';
import { FlatMachine } from '../interpreter/flat-machine.testing.ts';
import { ANSWER_SIZE, caseBytes, differences, IMAGE_SIZE } from './native-float-cases.testing.ts';
import {
  LEGACY_INTEGER_ROWS,
  LEGACY_ROWS,
  type LegacyBits,
  legacyCase,
  legacyCounted,
  legacyState,
  runLegacy,
} from './native-legacy-cases.testing.ts';

const engines = [INTERPRETER, COMPILED_AT_ONCE];
function machine(engine: (typeof engines)[number], bits: LegacyBits): FlatMachine {
  const made = new FlatMachine(bits === 16 ? 'protected16' : 'protected32', engine);
  // The harness has two pages of data.
  for (let page = 0x202; page < 0x220; page++) made.absent.add(page);
  return made;
}
let page = 0;
/** A page for each sequence: one that is written again and again is not compiled. */
const freshPage = (): number => 0x400000 + (page++ % 3000) * 4096;

/** [bits, code, instructions, seed of the state, 8-byte words of the image that a processor changed] */
type Vector = readonly [bits: LegacyBits, code: string, count: number, seed: number, changed: string];

test.each([0, 1])('recorded sequences of 16 and 32 bits do what a processor did, engine %i', (engine) => {
  const file = readFileSync(new URL('./native-legacy-vectors.json', import.meta.url), 'utf8');
  const vectors = JSON.parse(file) as Vector[];
  expect(vectors.length).toBeGreaterThan(200);
  const machines = { 16: machine(engines[engine]!, 16), 32: machine(engines[engine]!, 32) };
  for (const [bits, hex, count, seed, changed] of vectors) {
    const { image } = legacyState(seed, bits);
    const code = Uint8Array.from(Buffer.from(hex, 'hex'));
    const one = { code, names: new Array<string>(count).fill(''), image };
    const ours = runLegacy(machines[bits], one, freshPage(), bits);
    const wanted = image.slice();
    const view = new DataView(wanted.buffer);
    view.setInt32(IMAGE_SIZE, -1, true);
    for (const change of changed === '' ? [] : changed.split(' ')) {
      const [at, value] = change.split('=') as [string, string];
      view.setBigUint64(Number(at) * 8, BigInt(`0x${value}`), true);
    }
    expect(differences(legacyCounted(ours), legacyCounted(wanted)), `${bits} ${hex} seed ${seed}`).toEqual([]);
  }
});

/** What an answer changed in an image: see Vector. */
function changesOf(image: Uint8Array, answer: Uint8Array): string {
  const [a, b] = [image, answer].map((bytes) => new DataView(legacyCounted(bytes).buffer)) as [DataView, DataView];
  a.setInt32(IMAGE_SIZE, -1, true);
  const changes: string[] = [];
  for (let at = 0; at < ANSWER_SIZE; at += 8) {
    const now = b.getBigUint64(at, true);
    if (a.getBigUint64(at, true) !== now) changes.push(`${at / 8}=${now.toString(16)}`);
  }
  return changes.join(' ');
}

/** SOFTKVM_NATIVE=n: n sequences of each kind on this x86 processor, by the harness, in both engines; needs gcc and Linux. SOFTKVM_NATIVE_RECORD=path: they become vectors. */
const live = Number(process.env['SOFTKVM_NATIVE'] ?? 0);
const first = Number(process.env['SOFTKVM_NATIVE_SEED'] ?? 1);
test.runIf(live > 0)('random sequences of 16 and 32 bits do what this processor does', { timeout: 3_600_000 }, () => {
  const harness = path.join(mkdtempSync(path.join(tmpdir(), 'softkvm-')), 'harness');
  const source = path.join(import.meta.dirname, 'native-legacy-harness.c');
  const flags = ['-O1', '-mavx', '-static', '-no-pie', '-Wl,-Ttext-segment=0x10000000', '-o', harness, source];
  expect(spawnSync('gcc', flags).status).toBe(0);
  const wrong = new Map<string, string>();
  let differing = 0;
  const recorded: Vector[] = [];
  const recordTo = process.env['SOFTKVM_NATIVE_RECORD'];
  for (const bits of [32, 16] as const) {
    const machines = engines.map((engine) => machine(engine, bits));
    for (const [rows, most] of [
      [LEGACY_INTEGER_ROWS, 1],
      [LEGACY_INTEGER_ROWS, 12],
      [LEGACY_ROWS, 16],
    ] as const) {
      for (let done = 0; done < live; done += 5000) {
        const cases = Array.from({ length: Math.min(5000, live - done) }, (_, i) =>
          legacyCase(first + done + i, rows, most, bits),
        );
        const input = Buffer.concat(cases.map(caseBytes));
        const { stdout } = spawnSync(harness, [String(bits)], { input, maxBuffer: 2 ** 31 });
        expect(stdout.length).toBe(cases.length * ANSWER_SIZE);
        cases.forEach((one, i) => {
          const host = legacyCounted(Uint8Array.from(stdout.subarray(i * ANSWER_SIZE, (i + 1) * ANSWER_SIZE)));
          const { code, names, image } = one;
          const hex = Buffer.from(code).toString('hex');
          if (recordTo !== undefined)
            recorded.push([bits, hex, names.length, first + done + i, changesOf(image, host)]);
          const at = freshPage();
          machines.forEach((m, engine) => {
            const found = differences(legacyCounted(runLegacy(m, one, at, bits)), host);
            if (found.length === 0) return;
            differing++;
            const what = `${engine === 0 ? '' : 'compiled '}${bits} ${names.length > 3 ? 'sequence' : names.join()}`;
            if (!wrong.has(what))
              wrong.set(what, `seed ${first + done + i} ${names.join()} ${hex}: ${found.join('; ')}`);
          });
        });
      }
    }
  }
  if (recordTo !== undefined) {
    writeFileSync(recordTo, `[\n${recorded.map((v) => JSON.stringify(v)).join(',\n')}\n]\n`);
  }
  if (differing > 0) console.log(`${differing} differ`);
  expect([...wrong].slice(0, 25)).toEqual([]);
});
