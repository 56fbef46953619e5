import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import { FaultMachine } from '../fault-machine/fault-machine.ts';
import type { FaultContext } from '../fault-machine/machine-vm.ts';
import { outcomeDifferences } from '../fault-machine/outcome.ts';
import { loadRevision } from './load-revision.ts';
import { rangeDiff } from './range-diff.ts';
import type { RangeDiffReport } from './report.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'softkvm-range-diff-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A part of the space in which most rows show. */
const some = (c: FaultContext): boolean =>
  c.hardware === 'npt' && c.vmType === 'sw-protected' && c.mmioCaching && !c.nested;

async function compare(a: string, b: string, sequential = false): Promise<RangeDiffReport> {
  return rangeDiff(await loadRevision(a), await loadRevision(b), { level: 'field', sequential, only: some });
}

describe('range-diff', () => {
  it('blames rows of the series for everything between 6.9 and v2, and its witnesses show what it says', async () => {
    const report = await compare('linux-6.9', 'series-v2');
    expect(report.different.unattributed).toBe(0);
    expect(report.changes.map((c) => c.label)).toEqual(
      [1, 2, 3, 6, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17].map((row) => `row ${row}`),
    );
    let witnesses = 0;
    for (const change of report.changes) {
      for (const d of change.differences) {
        const machine = new FaultMachine(d.witness.input);
        const before = machine.run(d.witness.input, revisionByName(change.from), true);
        const after = machine.run(d.witness.input, revisionByName(change.to), true);
        machine.close();
        expect(outcomeDifferences(before, after)[0]?.level, d.witness.compare).toBe(d.level);
        expect(d.witness.compare).toContain(`--revision ${change.from} --compare ${change.to}`);
        witnesses++;
      }
    }
    expect(witnesses).toBeGreaterThan(15);
  });

  it('finds nothing between v2 and 6.10: what that repairs is a race, and a fault that lost one comes again', async () => {
    expect((await compare('series-v2', 'linux-6.10')).different.inputs).toBe(0);
    expect((await compare('series-v2', 'linux-6.10', true)).different.inputs).toBe(0);
  });

  it("shows row 10's difference the other way round when a user moves its stage back", async () => {
    const report = await compare('linux-6.12', './examples/my-revision.ts');
    const exits = report.changes.flatMap((c) => c.differences.filter((d) => d.level === 'exit').map((d) => d.leaves));
    expect(exits).toContainEqual({
      before: 'memory-fault exit (shared), EFAULT',
      after: 'the instruction is emulated',
    });
    expect(report.changes.map((c) => c.label)).toContain('stage apic-access-page');
    expect(report.changes[0]!.differences[0]!.witness.compare).toContain('--compare ./examples/my-revision.ts');
  });

  it("ends with the file and the stage when a user's stage throws in the middle", async () => {
    const own = (stages: string): string => {
      const path = join(folder, 'my-revision.mjs');
      writeFileSync(
        path,
        `import { linux612, remove, replace, stages } from 'softkvm';
export default { ...linux612, name: 'mine', stages: ${stages} };
`,
      );
      return path;
    };
    const throwing = '{ ...stages.invalidSlot, run(vcpu, fault) { return fault.slot.nothing.of.this; } }';
    await expect(compare('linux-6.12', own(`replace(linux612.stages, 'invalid-slot', ${throwing})`))).rejects.toThrow(
      /^my-revision\.mjs: stage "invalid-slot": threw TypeError: Cannot read properties of .* \(line 2:\d+\)$/,
    );
  });
});
