/** The seventeen patches of the series: the table of them, and each one's demonstration on both sides of the change. */

import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import { linux69 } from '../../kvm/mmu/revisions/linux-6.9.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { type SeriesRow, seriesRows } from '../../kvm/mmu/revisions/rows.ts';
import { inputFlags } from '../fault-machine/input-text.ts';
import { InputError } from '../input-error.ts';
import type { Demonstration, DemonstrationCase, EqualityResult, Side, SpaceOptions } from './demonstration.ts';
import { entryRows } from './entry-rows.ts';
import { interceptedPfRow } from './intercepted-pf-row.ts';
import { namedBitsRow } from './named-bits-row.ts';
import { pageReadyRow } from './page-ready-row.ts';
import { permissionIndexRow } from './permission-index-row.ts';
import { anyDifference } from './side-differences.ts';
import { slotRows } from './slot-rows.ts';

/** By row. */
export const demonstrations: readonly Demonstration[] = [
  ...entryRows,
  permissionIndexRow,
  namedBitsRow,
  interceptedPfRow,
  pageReadyRow,
  ...slotRows,
].sort((a, b) => a.row - b.row);

/** One row of the table; `softkvm series --json` is a list of these. */
export interface SeriesTableRow {
  readonly row: number;
  /** Numbers of the mails; `v1` is null for the patch that is new in version 2. */
  readonly v2: number;
  readonly v1: number | null;
  readonly commit: string;
  readonly title: string;
  readonly differs: string;
  readonly carriedBy: string;
  /** `test`: of the difference; `equality`: over every input; or both. */
  readonly held: string;
  readonly difference: SeriesRow['difference'];
}

export function seriesTable(): SeriesTableRow[] {
  return demonstrations.map((demonstration) => tableRow(demonstration));
}

function tableRow({ row, differs, cases, equality }: Demonstration): SeriesTableRow {
  const { v2, v1, patch, difference } = seriesRows[row - 1]!;
  const held = [cases.length > 0 ? 'test' : '', equality === null ? '' : 'equality'].filter((h) => h !== '').join(', ');
  const { commit, title, carriedBy } = patch;
  return { row, v2, v1, commit, title, differs, carriedBy, held, difference };
}

export interface CaseReport {
  readonly setting: string;
  readonly input: string;
  /** Opens the same fault: `softkvm explain` and these. Null for what a described fault cannot say. */
  readonly explain: string | null;
  readonly before: Side;
  readonly after: Side;
  /** The commit that repaired it, where what the patch brings is a bug. */
  readonly fixedBy: string | null;
  /** What the patch brings is there after it and was not before. */
  readonly shown: boolean;
}

/** One row's demonstration; with `--json`, `softkvm series N` prints this. */
export interface RowReport extends SeriesTableRow {
  readonly before: string;
  readonly after: string;
  readonly cases: readonly CaseReport[];
  readonly equality: EqualityResult | null;
  readonly purpose: string;
  /** Every difference is there, and nothing else differs. */
  readonly shown: boolean;
}

/** Revisions just before and just after the row's patch. */
export function sidesOfRow(row: number): { before: Revision; after: Revision } {
  const { v2 } = seriesRows[row - 1]!;
  return {
    before: v2 === 1 ? linux69 : revisionByName(`series-v2@${v2 - 1}`),
    after: revisionByName(`series-v2@${v2}`),
  };
}

/** @throws InputError for what is no row */
export function rowNumber(text: string): number {
  const row = /^\d{1,2}$/.test(text) ? Number(text) : 0;
  if (row < 1 || row > demonstrations.length)
    throw new InputError(`series ${text}: expected a row, 1 to ${demonstrations.length}, or all`);
  return row;
}

/** Runs row `row` (1 to 17) on both sides. */
export function demonstrateRow(row: number, options?: SpaceOptions): RowReport {
  const { before, after } = sidesOfRow(row);
  return demonstrate(demonstrations[row - 1]!, before, after, options);
}

/** Runs a demonstration between two revisions of the caller's choice. */
export function demonstrate(
  demonstration: Demonstration,
  before: Revision,
  after: Revision,
  options?: SpaceOptions,
): RowReport {
  const cases = demonstration.cases.map((c) => caseReport(c, before, after));
  const equality = demonstration.equality?.(before, after, options) ?? null;
  return {
    ...tableRow(demonstration),
    before: before.name,
    after: after.name,
    cases,
    equality,
    purpose: demonstration.purpose,
    shown: cases.every((c) => c.shown) && equality?.equal !== false,
  };
}

function caseReport(c: DemonstrationCase, before: Revision, after: Revision): CaseReport {
  const sides = { before: c.run(before), after: c.run(after) };
  return {
    setting: c.setting,
    input: c.input,
    explain: c.faultInput === null ? null : inputFlags(c.faultInput).join(' '),
    ...sides,
    fixedBy: c.fixedBy ?? null,
    shown: !c.holds(sides.before) && c.holds(sides.after) && anyDifference(sides.before, sides.after),
  };
}
