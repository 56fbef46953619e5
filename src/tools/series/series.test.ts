import { describe, expect, it } from 'vitest';
import { move, replace } from '../../kvm/mmu/revisions/edit.ts';
import { historyBetween, revisionByName } from '../../kvm/mmu/revisions/index.ts';
import { linux610 } from '../../kvm/mmu/revisions/linux-6.10.ts';
import { linux612 } from '../../kvm/mmu/revisions/linux-6.12.ts';
import type { FaultStage, Revision } from '../../kvm/mmu/revisions/revision.ts';
import { seriesRows } from '../../kvm/mmu/revisions/rows.ts';
import { seriesV1 } from '../../kvm/mmu/revisions/series-v1.ts';
import { seriesV2 } from '../../kvm/mmu/revisions/series-v2.ts';
import { privateMismatchOfSlots } from '../../kvm/mmu/stages/private-mismatch.ts';
import { flagsOf, inputFlags, parseInput } from '../fault-machine/input-text.ts';
import type { Demonstration } from './demonstration.ts';
import { demonstrate, demonstrations, rowNumber, seriesTable, sidesOfRow } from './series.ts';

/** Without what takes seconds. */
const shown = demonstrations.filter((d) => d.cases.length > 0).map((d): Demonstration => ({ ...d, equality: null }));

function holds(demonstration: Demonstration, revision: Revision): boolean[] {
  return demonstration.cases.map((c) => c.holds(c.run(revision)));
}

/** Revisions that have the row's patch: those of the series after it, and what came later. */
function later(row: number): Revision[] {
  const { after } = sidesOfRow(row);
  return [after, ...historyBetween(after, seriesV2)!.map((step) => step.revision), linux610, linux612];
}

function positionOf(stages: readonly FaultStage[], name: string): number {
  return stages.findIndex((stage) => stage.name === name);
}

/** `commit` is part of the way from the series to the revision. */
function isFixed(revision: Revision, commit: string): boolean {
  const steps = historyBetween(seriesV2, revision)!;
  return steps.some((step) => !step.undone && step.patch.commit === commit);
}

describe('the rows of the series', () => {
  it('are seventeen, each with a mail, a commit, a title, what differs, and what holds it', () => {
    const rows = seriesTable();
    expect(rows.map((r) => r.row)).toEqual(seriesRows.map((r) => r.row));
    for (const r of rows) {
      expect(r.held).toMatch(/^(test|equality|test, equality)$/);
      expect(r.commit).toMatch(/^[0-9a-f]{12}$/);
      for (const text of [r.title, r.differs, r.carriedBy]) expect(text.length).toBeGreaterThan(5);
    }
    expect(rows.filter((r) => r.held !== 'test').map((r) => r.row)).toEqual([2, 13, 14]);
  });

  it.each(shown)('row $row: the difference is there between the two sides of the patch', (demonstration) => {
    const { before, after } = sidesOfRow(demonstration.row);
    const report = demonstrate(demonstration, before, after);
    expect(report.cases.map((c) => c.shown)).toEqual(report.cases.map(() => true));
    expect([report.before, report.after]).toEqual([before.name, after.name]);
  });

  it.each(shown)('row $row: holds under the patch and every later revision', (demonstration) => {
    for (const revision of later(demonstration.row)) {
      const expected = demonstration.cases.map((c) => c.fixedBy === undefined || !isFixed(revision, c.fixedBy));
      expect(holds(demonstration, revision), revision.name).toEqual(expected);
    }
  });

  it.each(shown)('row $row: does not hold under the revision before the patch', (demonstration) => {
    const { before, after } = sidesOfRow(demonstration.row);
    expect(holds(demonstration, before)).not.toContain(true);
    expect(demonstrate(demonstration, before, before).shown).toBe(false);
    expect(demonstrate(demonstration, after, after).shown).toBe(false);
  });

  it('row 10 does not hold when its stage is moved back behind the slot checks, under any revision', () => {
    const row10 = demonstrations[9]!;
    for (const revision of [revisionByName('series-v2@10'), seriesV2, linux610, linux612]) {
      const moved = move(revision.stages, 'private-mismatch', 'fault-in-private');
      expect(positionOf(moved, 'private-mismatch')).toBeGreaterThan(positionOf(moved, 'invalid-slot'));
      const asIn69 = replace(moved, 'private-mismatch', privateMismatchOfSlots);
      expect(holds(row10, revision), revision.name).toEqual([true, true]);
      // A dying slot is answered before the privacy; as Linux 6.9 had it, so is no slot.
      expect(holds(row10, { ...revision, stages: moved })[0], revision.name).toBe(false);
      expect(holds(row10, { ...revision, stages: asIn69 }), revision.name).toEqual([false, false]);
    }
  });

  it('hold under version 1 as well, but for what version 2 changed', () => {
    const missing = shown.filter((d) => holds(d, seriesV1).includes(false)).map((d) => d.row);
    expect(missing).toEqual([8, 9]);
  });

  it('are asked for by number', () => {
    expect(rowNumber('10')).toBe(10);
    for (const text of ['0', '18', 'x', '', '1.5']) expect(() => rowNumber(text)).toThrow(/expected a row, 1 to 17/);
  });

  it('say how an input is opened by explain', () => {
    expect(demonstrate(shown[9]!, seriesV2, seriesV2).cases[0]!.explain).toBe(
      '--cpu intel --nested --error-code 0x100000006 --slot internal',
    );
    for (const c of shown.flatMap((d) => d.cases)) {
      if (c.faultInput !== null) expect(parseInput(flagsOf(inputFlags(c.faultInput)))).toEqual(c.faultInput);
    }
  });
});
