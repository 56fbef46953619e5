import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { conform } from './conform.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** What is known not to pass, by path. `softkvm conform conformance/npt conformance/npt-mmio-caching-off --list docs/conformance-known.json` accepts a new list. */
const known = JSON.parse(readFileSync(`${root}docs/conformance-known.json`, 'utf8')) as {
  readonly [path: string]: { readonly contract: boolean; readonly cause: string };
};

describe('the recordings of the real KVM', () => {
  it('pass, but for those that docs/conformance-known.json lists with their causes', async () => {
    const report = await conform([`${root}conformance/npt`, `${root}conformance/npt-mmio-caching-off`], {
      contractOnly: false,
      params: {},
    });
    const failing = report.scenarios.filter((s) => !s.full);
    const list = failing.map((s) => [s.path.slice(root.length), { contract: s.contract, cause: s.cause }]);
    expect(Object.fromEntries(list)).toEqual(known);
    expect(report.total.scenarios).toBe(457);
    expect(report.total.passed / report.total.scenarios).toBeGreaterThan(0.85);
    expect(report.total.contractPassed / report.total.scenarios).toBeGreaterThan(0.95);
  });

  it('of the permission check are all equal', async () => {
    const report = await conform([`${root}conformance/permission-fault.txt`], { contractOnly: false, params: {} });
    expect(report.permissionFault).toEqual({ answers: 33792, equal: 33792 });
  });
});
