import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { kvmSceneInfos } from './kvm-scenes.ts';
import { racesOf, withRaceTables } from './race-tables.ts';
import { kvmScenes } from './scenes/index.ts';

const file = path.resolve(import.meta.dirname, '../../../docs/locking.md');
const document = fs.readFileSync(file, 'utf8');

/** The rules of the page: scenes that each holds in, and those without it. */
const rules = document
  .slice(0, document.indexOf('<!-- race:'))
  .split('\n')
  .filter((line) => /^\| .* \| `.*` \|/.test(line) && line.split('|').length === 5)
  .map((line) => line.split('|').slice(1, 4))
  .map(([rule, holds, without]) => ({ rule: rule!.trim(), holds: codes(holds!), without: codes(without!) }));

function codes(cell: string): string[] {
  return [...cell.matchAll(/`([a-z0-9-]+)`/g)].map((m) => m[1]!);
}

describe('docs/locking.md', () => {
  it('has a scene for each rule, and one without it that finds the race, and shows a schedule of that', () => {
    expect(rules.length).toBeGreaterThan(15);
    const races = racesOf(document);
    const scene = (name: string) => kvmSceneInfos.find((s) => s.name === name);
    for (const { rule, holds, without } of rules) {
      expect(
        holds.map((name) => scene(name)?.expects),
        rule,
      ).toEqual(holds.map(() => 'holds'));
      expect(without.length, rule).toBeGreaterThan(0);
      for (const name of without) expect(['violation', 'livelock'], name).toContain(scene(name)?.expects);
      expect(
        without.some((name) => races.includes(name)),
        `${rule}: no table`,
      ).toBe(true);
    }
    for (const name of races)
      expect(
        rules.some((r) => r.without.includes(name)),
        name,
      ).toBe(true);
  });

  it('has every twin that comes with the project', () => {
    const named = rules.flatMap((r) => r.without);
    const twins = kvmScenes.filter((s) => s.guardOf !== undefined && s.expect !== 'safe').map((s) => s.name);
    expect(twins.filter((name) => !named.includes(name))).toEqual([]);
  });

  // To write the page: vitest run src/tools/explore/race-tables.test.ts --update
  it('shows the schedules that explore finds', async () => {
    await expect(await withRaceTables(document)).toMatchFileSnapshot(file);
  }, 120_000);
});
