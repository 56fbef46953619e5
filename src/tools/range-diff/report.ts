/** What `softkvm range-diff` says: the blocks of differences and the numbers around them, as plain data (`--json`). */
import type { FaultInput } from '../fault-machine/fault-input.ts';
import type { DifferenceLevel, Outcome } from '../fault-machine/outcome.ts';
import { Conditions, type Part } from './condition.ts';
import { partText } from './condition-text.ts';
import { type Change, countClasses, type DifferenceGroup, groupClasses, LEVELS } from './group.ts';
import { type Dimension, EQUAL, INVALID_INPUT, type SpaceResult } from './space-result.ts';

/** How many inputs differ, by the strongest level at which they do. */
export interface LevelCounts {
  readonly inputs: number;
  readonly exit: number;
  readonly state: number;
  readonly field: number;
}

export interface ReportSide {
  /** The name of the revision, or the file it came from. */
  readonly argument: string;
  readonly name: string;
  readonly title: string;
}

/** One change on the way from one revision to the other. */
export interface ReportChange {
  /** `row 10`, a commit, or `stage X` of a user's revision. */
  readonly label: string;
  readonly commit: string | null;
  readonly title: string | null;
  /** The way goes back over it: it is in the first revision and not in the second. */
  readonly undone: boolean;
  /** Inputs in whose difference it has a part. */
  readonly different: LevelCounts;
}

export interface ReportCondition {
  readonly text: string;
  /** Inputs that it holds; conditions of one difference may overlap. */
  readonly inputs: number;
  /** For each dimension that matters, the values that occur. */
  readonly values: Readonly<Record<string, readonly string[]>>;
}

export interface ReportDifference {
  readonly level: DifferenceLevel;
  readonly inputs: number;
  /** What differs at this level. */
  readonly changes: readonly Change[];
  /** How both sides leave, when that is one way for all inputs. */
  readonly leaves: string | null;
  /** What else differs, at weaker levels, with how many of the inputs. */
  readonly also: readonly (Change & { readonly inputs: number })[];
  /** The inputs are the union of these; most inputs first. */
  readonly conditions: readonly ReportCondition[];
  readonly witness: {
    readonly input: FaultInput;
    /** Command lines that open it on the two sides. */
    readonly before: string;
    readonly after: string;
  };
}

export interface ReportBlock {
  /** Labels of the changes that have a part in it, or the stage of a user's revision. */
  readonly cause: string;
  readonly changes: readonly string[];
  readonly inputs: number;
  readonly differences: readonly ReportDifference[];
}

/** The `--json` object. */
export interface RangeDiffReport {
  readonly version: 1;
  readonly before: ReportSide;
  readonly after: ReportSide;
  /** The weakest level of differences that is reported. */
  readonly level: DifferenceLevel;
  readonly space: {
    readonly dimensions: readonly Dimension[];
    /** Every one of them was run on both sides. */
    readonly inputs: number;
    readonly runs: number;
    readonly sampled: false;
    /** What is not an input, and why. */
    readonly excluded: readonly string[];
    readonly seconds: number;
    readonly inputsPerSecond: number;
  };
  readonly different: LevelCounts & {
    /** Inputs that differ at weaker levels only, which --level leaves out. */
    readonly leftOut: number;
    /** Inputs whose difference no change accounts for, although the history between the two is known. */
    readonly unattributed: number;
  };
  /** The changes between the two, in order; empty when there is no history between them. */
  readonly changes: readonly ReportChange[];
  readonly blocks: readonly ReportBlock[];
}

export interface HistoryStepWords {
  readonly label: string;
  readonly patch: { readonly commit: string; readonly title: string };
  readonly undone: boolean;
}

export interface ReportOptions {
  readonly before: ReportSide;
  readonly after: ReportSide;
  readonly history: readonly HistoryStepWords[] | null;
  readonly level: DifferenceLevel;
  /** The flags of `softkvm explain` that describe an input. */
  readonly flagsOf: (input: FaultInput) => readonly string[];
}

export function reportOf(space: SpaceResult<Outcome>, options: ReportOptions): RangeDiffReport {
  const { counts, first } = countClasses(space.classOf);
  const groups = groupClasses(space.classes, counts, options.level);
  const conditions = new Conditions(space);
  const byCause = new Map<string, DifferenceGroup[]>();
  for (const group of groups) byCause.set(group.cause, [...(byCause.get(group.cause) ?? []), group]);
  const labels = options.history === null ? [...byCause.keys()] : options.history.map((s) => s.label);
  const blocks = [...byCause.entries()].map(([cause, members]): ReportBlock => {
    return {
      cause,
      changes: labelsOf(cause),
      inputs: total(members),
      differences: members.map((g) => differenceOf(g, space, conditions, first, counts, options)),
    };
  });
  blocks.sort((a, b) => compareCauses(a, b, labels));
  const differing = counts.reduce((sum, n, c) => (c === EQUAL || c === INVALID_INPUT ? sum : sum + n), 0);
  const known = new Set(labels);
  return {
    version: 1,
    before: options.before,
    after: options.after,
    level: options.level,
    space: {
      dimensions: space.dims,
      inputs: space.inputs,
      runs: space.runs,
      sampled: false,
      excluded: space.excluded,
      seconds: space.seconds,
      inputsPerSecond: Math.round(space.inputs / Math.max(space.seconds, 1e-6)),
    },
    different: {
      ...levelCounts(groups),
      leftOut: differing - total(groups),
      unattributed: total(groups.filter((g) => !labelsOf(g.cause).every((l) => known.has(l)))),
    },
    changes: (options.history ?? []).map((step) => ({
      label: step.label,
      commit: step.patch.commit,
      title: step.patch.title,
      undone: step.undone,
      different: levelCounts(groups.filter((g) => labelsOf(g.cause).includes(step.label))),
    })),
    blocks,
  };
}

function labelsOf(cause: string): string[] {
  return cause.split(', ').filter((l) => l !== '');
}

/** In the order of the changes; what several changes have a part in comes after what its last one does alone. */
function compareCauses(a: ReportBlock, b: ReportBlock, labels: readonly string[]): number {
  const key = (block: ReportBlock): number[] => block.changes.map((l) => labels.indexOf(l)).sort((x, y) => y - x);
  const [ka, kb] = [key(a), key(b)];
  for (let i = 0; i < Math.max(ka.length, kb.length); i++) {
    const difference = (ka[i] ?? -1) - (kb[i] ?? -1);
    if (difference !== 0) return difference;
  }
  return 0;
}

function total(groups: readonly DifferenceGroup[]): number {
  return groups.reduce((sum, g) => sum + g.inputs, 0);
}

function levelCounts(groups: readonly DifferenceGroup[]): LevelCounts {
  const at = (level: DifferenceLevel): number => total(groups.filter((g) => g.level === level));
  const [exit, state, field] = LEVELS.map(at) as [number, number, number];
  return { inputs: exit + state + field, exit, state, field };
}

function differenceOf(
  group: DifferenceGroup,
  space: SpaceResult<Outcome>,
  conditions: Conditions,
  first: Int32Array,
  counts: Uint32Array,
  options: ReportOptions,
): ReportDifference {
  const common = [...group.classes].reduce((a, b) => (counts[b]! > counts[a]! ? b : a));
  const input = space.inputAt(first[common]!);
  const command = (side: ReportSide): string =>
    ['softkvm', 'explain', ...options.flagsOf(input), '--revision', side.argument].map(quoted).join(' ');
  return {
    level: group.level,
    inputs: group.inputs,
    changes: group.changes,
    leaves: group.leaves,
    also: group.also,
    conditions: conditions.of(group.classes).map((part) => conditionOf(part, space.dims)),
    witness: { input, before: command(options.before), after: command(options.after) },
  };
}

/** As an argument of a shell. */
function quoted(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", "'\\''")}'`;
}

function conditionOf(part: Part, dims: readonly Dimension[]): ReportCondition {
  const values: Record<string, readonly string[]> = {};
  for (const [d, dim] of dims.entries()) {
    if (part.most[d]!.every((v) => v === 1)) continue;
    values[dim.name] = dim.values.filter((_, v) => part.least[d]![v] === 1);
  }
  return { text: partText(part, dims), inputs: part.inputs, values };
}
