import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { folderMachine } from './folders.ts';
import { replayScenario } from './replay.ts';
import type { Scenario, Step } from './scenario.ts';

const folder = fileURLToPath(new URL('../../../conformance/nested/', import.meta.url));

/** The recording with `steps` put in after its first one, an exit to userspace that L2 made. */
function replayWith(...steps: Step[]): ReturnType<typeof replayScenario> {
  const scenario = JSON.parse(readFileSync(`${folder}nsvm-int-io-clear.json`, 'utf8')) as Scenario;
  const [first, ...rest] = scenario.steps;
  return replayScenario(
    { ...scenario, steps: [first!, ...steps, ...rest] },
    { machine: folderMachine(folder, 'npt'), contractOnly: true },
  );
}

const step = (op: string): Step => ({ do: { op }, expect: { ret: 0, errno: null, trace: [], stats: {} } }) as Step;

it('L2 goes on after its state was saved, guest mode left, and everything put back', () => {
  expect(replayWith(step('saverestore'))).toMatchObject({ contract: true });
});

it('leaving guest mode is seen', () => {
  expect(replayWith(step('leavenested')).contract).toBe(false);
});
