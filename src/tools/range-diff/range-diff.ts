/** Two revisions compared over the whole input space: what `softkvm range-diff` reports. */
import { historyBetween, revisionByName } from '../../kvm/mmu/revisions/index.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { StageError } from '../fault-machine/fault-machine.ts';
import { inputFlags } from '../fault-machine/input-text.ts';
import type { DifferenceLevel } from '../fault-machine/outcome.ts';
import { InputError } from '../input-error.ts';
import { type EnumerateOptions, enumerate } from './enumerate.ts';
import type { LoadedRevision } from './load-revision.ts';
import { type RangeDiffReport, type ReportSide, reportOf, sequential } from './report.ts';

export interface RangeDiffOptions extends EnumerateOptions {
  /** The weakest level of differences to report. */
  readonly level: DifferenceLevel;
  /** Leave out inputs with an invalidation in the middle of the fault. */
  readonly sequential: boolean;
  /** Conditions of so many effects of a change are enough (ReportOptions). */
  readonly most?: number;
}

/** @throws InputError when a stage of a user's revision fails */
export function rangeDiff(before: LoadedRevision, after: LoadedRevision, options: RangeDiffOptions): RangeDiffReport {
  const [a, b] = [before.revision, after.revision];
  try {
    const space = enumerate(a, b, options);
    const history = historyBetween(a, b)?.map((step) => ({ ...step, revision: nameOf(step.revision) })) ?? null;
    return reportOf(options.sequential ? sequential(space) : space, {
      before: sideOf(before),
      after: sideOf(after),
      history,
      level: options.level,
      flagsOf: inputFlags,
      ...(options.most === undefined ? {} : { most: options.most }),
    });
  } catch (error) {
    throw stageFailure(error, [before, after]);
  }
}

/** The name that finds the revision again; null for one on a way that has no names of its own. */
function nameOf(revision: Revision): string | null {
  try {
    return revisionByName(revision.name) === revision ? revision.name : null;
  } catch {
    return null;
  }
}

function sideOf({ revision, argument }: LoadedRevision): ReportSide {
  return { argument, name: revision.name, title: revision.title };
}

/** What a stage of a user's revision throws is an error of its file; what one of ours throws is a bug. */
function stageFailure(error: unknown, sides: readonly LoadedRevision[]): unknown {
  if (!(error instanceof StageError)) return error;
  if (error.cause instanceof InputError) return error.cause;
  const side = sides.find((s) => s.revision.name === error.revision && s.file !== null);
  if (side === undefined) return error;
  const why = error.cause instanceof Error ? error.cause.message : String(error.cause);
  return new InputError(`${side.file}: stage "${error.stage}": threw ${why}`);
}
