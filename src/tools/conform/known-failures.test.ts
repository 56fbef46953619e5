import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { conform } from './conform.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** The folders that are replayed, and how many scenarios they hold. Of `nested/` every third; .ci/run replays all. */
const folders = [
  ['npt', 417],
  ['npt-mmio-caching-off', 40],
  ['npt-legacy-mmu', 40],
  ['shadow', 351],
  ['more', 90],
  ['nested', 143],
  ['nested-npt0', 22],
  ['ept', 416],
  ['ept-nopml', 26],
  ['ept-noapicv', 6],
] as const;

/** What is known not to pass, by path. `softkvm conform` of these folders with `--list docs/conformance-known.json` accepts a new list. */
const known = JSON.parse(readFileSync(`${root}docs/conformance-known.json`, 'utf8')) as {
  readonly [path: string]: { readonly contract: boolean; readonly cause: string };
};

describe('the recordings of the real KVM', () => {
  it.each(folders)(
    'in %s pass, but for those that docs/conformance-known.json lists with their causes',
    async (folder, scenarios) => {
      const path = `conformance/${folder}/`;
      const files = readdirSync(`${root}${path}`).filter((name) => name.endsWith('.json'));
      expect(files.length).toBe(scenarios);
      const paths = files.filter((_, i) => folder !== 'nested' || i % 3 === 0).map((name) => `${root}${path}${name}`);
      const report = await conform(paths, { contractOnly: false, params: {} });
      const failing = report.scenarios.filter((s) => !s.full);
      const list = failing.map((s) => [s.path.slice(root.length), { contract: s.contract, cause: s.cause }]);
      expect(Object.fromEntries(list)).toEqual(
        Object.fromEntries(Object.entries(known).filter(([name]) => name.startsWith(path))),
      );
      expect(report.total.scenarios).toBe(paths.length);
      expect(report.total.passed / paths.length).toBeGreaterThan(0.85);
      expect(report.total.contractPassed / paths.length).toBeGreaterThan(0.95);
    },
    180_000,
  );

  it('of the permission check are all equal', async () => {
    const report = await conform([`${root}conformance/permission-fault.txt`], { contractOnly: false, params: {} });
    expect(report.permissionFault).toEqual({ answers: 33792, equal: 33792 });
  });
});
