/** The revisions of the fault path by name, and how one leads to another. */
import { applyPatches } from './chain.ts';
import { linux69 } from './linux-6.9.ts';
import { linux610, linux610Patches } from './linux-6.10.ts';
import { linux612, linux612Patches } from './linux-6.12.ts';
import type { Patch, Revision } from './revision.ts';
import { rowOfV2Patch, seriesRows } from './rows.ts';
import { seriesV1, seriesV1Patches, v1ToV2Patches } from './series-v1.ts';
import { seriesV2, seriesV2Patches } from './series-v2.ts';

/** Those with names of their own, oldest first. */
export const revisions: readonly Revision[] = [linux69, seriesV1, seriesV2, linux610, linux612];

/** One change on the way from one revision to another. */
export interface HistoryStep {
  readonly patch: Patch;
  /** `row 10` for a patch of the series, the commit for a later fix. */
  readonly label: string;
  /** The change is taken back: the way leads from a later revision to an earlier one. */
  readonly undone: boolean;
  /** The revision after the step. */
  readonly revision: Revision;
}

interface Point {
  readonly revision: Revision;
  /** What led here from the point before; null at the start. */
  readonly patch: Patch | null;
  readonly label: string;
}

/** The points after each patch; the last one is `end` itself. */
function line(base: Revision, patches: readonly Patch[], end: Revision, label: (n: number) => string): Point[] {
  return patches.map((patch, i) => {
    const n = i + 1;
    const last = n === patches.length;
    const name = `${end.name}@${n}`;
    const revision = last
      ? end
      : applyPatches(base, patches.slice(0, n), name, `${end.title}, after patch ${n} of ${patches.length}`);
    return { revision, patch, label: label(n) };
  });
}

const start: Point = { revision: linux69, patch: null, label: '' };
const v2Line = line(linux69, seriesV2Patches, seriesV2, (n) => `row ${rowOfV2Patch(n)}`);
const v1Label = (n: number): string => `row ${seriesRows.find((r) => r.v1 === n)!.row}`;
const commitLabel =
  (patches: readonly Patch[]) =>
  (n: number): string =>
    patches[n - 1]!.commit;

/** Linux 6.9 to Linux 6.12, patch by patch. */
const mainLine: readonly Point[] = [
  start,
  ...v2Line,
  ...line(seriesV2, linux610Patches, linux610, commitLabel(linux610Patches)),
  ...line(linux610, linux612Patches, linux612, commitLabel(linux612Patches)),
];
const v1Line: readonly Point[] = [start, ...line(linux69, seriesV1Patches, seriesV1, v1Label)];
const v2AsPatchesOnV1: readonly Point[] = [
  { revision: seriesV1, patch: null, label: '' },
  ...line(
    seriesV1,
    v1ToV2Patches,
    seriesV2,
    (n) => `row ${seriesRows.find((r) => r.patch.title === v1ToV2Patches[n - 1]!.title)!.row}`,
  ),
];

/** @throws RangeError for a name that is unknown, with the known ones. */
export function revisionByName(name: string): Revision {
  const found = revisions.find((r) => r.name === name);
  if (found !== undefined) return found;
  const between = /^(.+)@(\d+)$/.exec(name);
  if (between !== null) {
    const points = [...mainLine, ...v1Line];
    const n = Number(between[2]);
    const end = revisions.find((r) => r.name === between[1]);
    const size = end === undefined ? 0 : patchCount(end);
    if (end !== undefined && n === size && size > 0) return end;
    const point = points.find((p) => p.revision.name === name);
    if (point !== undefined) return point.revision;
    if (end !== undefined && size > 0) throw new RangeError(`${end.name} has patches 1 to ${size}`);
  }
  throw new RangeError(
    `unknown revision ${name}; known: ${revisions.map((r) => r.name).join(', ')}, and NAME@N after patch N of one of them`,
  );
}

/** How many patches lead to `revision` from the named one before it; 0 for the first. */
export function patchCount(revision: Revision): number {
  if (revision === seriesV1) return seriesV1Patches.length;
  if (revision === seriesV2) return seriesV2Patches.length;
  if (revision === linux610) return linux610Patches.length;
  return revision === linux612 ? linux612Patches.length : 0;
}

function between(points: readonly Point[], a: number, b: number): HistoryStep[] {
  const steps: HistoryStep[] = [];
  for (let i = a; i < b; i++) {
    const { patch, label, revision } = points[i + 1]!;
    steps.push({ patch: patch!, label, undone: false, revision });
  }
  for (let i = a; i > b; i--) {
    const { patch, label } = points[i]!;
    steps.push({ patch: patch!, label, undone: true, revision: points[i - 1]!.revision });
  }
  return steps;
}

/** The changes that lead from `a` to `b`, in order; null when one of them is not part of this history (a user's own). */
export function historyBetween(a: Revision, b: Revision): readonly HistoryStep[] | null {
  const at = (points: readonly Point[], r: Revision): number => points.findIndex((p) => p.revision === r);
  const [mainA, mainB] = [at(mainLine, a), at(mainLine, b)];
  const [branchA, branchB] = [at(v1Line, a), at(v1Line, b)];
  if (mainA >= 0 && mainB >= 0) return between(mainLine, mainA, mainB);
  if (branchA >= 0 && branchB >= 0) return between(v1Line, branchA, branchB);
  const v2At = v2Line.length;
  if (a === seriesV1 && mainB >= v2At) {
    return [...between(v2AsPatchesOnV1, 0, v1ToV2Patches.length), ...between(mainLine, v2At, mainB)];
  }
  if (b === seriesV1 && mainA >= v2At) {
    return [...between(mainLine, mainA, v2At), ...between(v2AsPatchesOnV1, v1ToV2Patches.length, 0)];
  }
  if (branchA >= 0 && mainB >= 0) return [...between(v1Line, branchA, 0), ...between(mainLine, 0, mainB)];
  if (mainA >= 0 && branchB >= 0) return [...between(mainLine, mainA, 0), ...between(v1Line, 0, branchB)];
  return null;
}
