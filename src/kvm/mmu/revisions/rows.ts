/** The seventeen changes of the series, as the rows of one table: what each changes, and whether anything can be observed of it. */
import type { Patch } from './revision.ts';
import { seriesV2Patches } from './series-v2.ts';

export interface SeriesRow {
  readonly row: number;
  readonly patch: Patch;
  /** Number of the mail in version 2: 1 to 17. */
  readonly v2: number;
  /** Number of the mail in version 1: 1 to 16; null for the patch that is new in version 2. */
  readonly v1: number | null;
  /** What kind of difference there is: none at all, one of fields that nothing reads, or one of behaviour. */
  readonly difference: 'none' | 'field' | 'behaviour';
}

type RowSource = readonly [v2: number, v1: number | null, difference: SeriesRow['difference']];

/** By row: the rows keep the order of effect, the mails of version 2 moved one patch (row 6) in front of two others. */
const sources: readonly RowSource[] = [
  [1, 1, 'behaviour'],
  [2, 2, 'none'],
  [3, 3, 'field'],
  [5, 4, 'field'],
  [6, 6, 'behaviour'],
  [4, 7, 'behaviour'],
  [7, 5, 'behaviour'],
  [8, null, 'behaviour'],
  [9, 8, 'behaviour'],
  [10, 9, 'behaviour'],
  [11, 10, 'behaviour'],
  [12, 11, 'behaviour'],
  [13, 12, 'behaviour'],
  [14, 13, 'field'],
  [15, 14, 'field'],
  [16, 15, 'field'],
  [17, 16, 'behaviour'],
];

export const seriesRows: readonly SeriesRow[] = sources.map(([v2, v1, difference], i) => ({
  row: i + 1,
  patch: seriesV2Patches[v2 - 1]!,
  v2,
  v1,
  difference,
}));

/** The row of a patch of the series, by its number in version 2. */
export function rowOfV2Patch(v2: number): number {
  return seriesRows.find((r) => r.v2 === v2)!.row;
}
