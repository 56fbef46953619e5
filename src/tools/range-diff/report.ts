/** What `softkvm range-diff` says: the blocks of differences and the numbers around them, as plain data (`--json`). */
import { type FaultInput, ordinaryFault } from '../fault-machine/fault-input.ts';
import type { DifferenceLevel, Outcome } from '../fault-machine/outcome.ts';
import { Conditions, type Part, type Within } from './condition.ts';
import { partText } from './condition-text.ts';
import { type Change, countClasses, type DifferenceGroup, groupClasses, LEVELS, levelOf } from './group.ts';
import { type Dimension, INVALID_INPUT, type SpaceResult } from './space-result.ts';

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

/** One change on the way from one revision to the other, and what it does at its place in the history. */
export interface ReportChange {
  /** `row 10`, a commit, or `stage X` of a user's revision; empty for inputs that no change accounts for. */
  readonly label: string;
  readonly commit: string | null;
  readonly title: string | null;
  readonly symptom: string | null;
  /** The way goes back over it: it is in the first revision and not in the second. */
  readonly undone: boolean;
  /** Names of the revisions on its two sides. */
  readonly from: string;
  readonly to: string;
  /** Inputs on which it has an effect, and that differ between the two revisions that are compared. */
  readonly different: LevelCounts;
  /** Its inputs are the union of these; most inputs first. */
  readonly conditions: readonly ReportCondition[];
  /** By effect: the strongest level first, then those with most inputs. */
  readonly differences: readonly ReportDifference[];
}

export interface ReportCondition {
  /** Inputs without an invalidation, inputs with one, or both. */
  readonly invalidation: 'none' | 'some' | 'any';
  readonly text: string;
  /** Inputs that it holds, of those that it is about. Conditions may overlap. */
  readonly inputs: number;
  /** For each dimension that matters, the values that occur. */
  readonly values: Readonly<Record<string, readonly string[]>>;
}

export interface ReportDifference {
  /** The strongest level at which the outcomes differ. */
  readonly level: DifferenceLevel;
  readonly inputs: number;
  /** Of those, without an invalidation. */
  readonly undisturbed: number;
  /** Hardware can produce the error code of some of them. KVM checks for others, too. */
  readonly possible: boolean;
  /** How the fault leaves, before and after: all ways, `; ` between them. */
  readonly leaves: { readonly before: string; readonly after: string };
  /** What else differs, the strongest level first, and for how many of the inputs. */
  readonly changes: readonly (Change & { readonly level: DifferenceLevel })[];
  /** Which of the change's inputs it is: those that no difference before this one in the list has, and one of these holds. */
  readonly conditions: readonly ReportCondition[];
  readonly witness: {
    readonly input: FaultInput;
    /** Command lines that open it before, after, and on both sides. */
    readonly before: string;
    readonly after: string;
    readonly compare: string;
  };
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
    /** Of `inputs`, those with an invalidation in the middle of the fault. */
    readonly racing: number;
    /** Inputs that differ at weaker levels only, which --level leaves out. */
    readonly leftOut: number;
    /** Inputs whose difference no change accounts for. */
    readonly unattributed: number;
  };
  /** The changes between the two, in order. Without a history between them, the stages at which they part. */
  readonly changes: readonly ReportChange[];
}

/** What the report needs of a HistoryStep. */
export interface HistoryStepWords {
  readonly label: string;
  readonly patch: { readonly commit: string; readonly title: string; readonly symptom: string };
  readonly undone: boolean;
  /** The name by which the revision after the step can be asked for; null when it has none. */
  readonly revision: string | null;
}

export interface ReportOptions {
  readonly before: ReportSide;
  readonly after: ReportSide;
  readonly history: readonly HistoryStepWords[] | null;
  readonly level: DifferenceLevel;
  /** The flags of `softkvm explain` that describe an input. */
  readonly flagsOf: (input: FaultInput) => readonly string[];
  /**
   * Only of so many effects of a change the conditions are wanted, and not the one with an invalidation where there is one without: what
   * a reader of the text is shown. The rest takes longer.
   */
  readonly most?: number;
}

export function reportOf(space: SpaceResult<Outcome>, options: ReportOptions): RangeDiffReport {
  const { counts, racing, first } = countClasses(space.classOf, middles(space.dims));
  const groups = groupClasses(space.classes, counts, options.level);
  const writer = new DifferenceWriter(space, first, counts, options);
  const changes = changesOf(groups, options).map((change): ReportChange => {
    const own = groups.filter((g) => g.label === change.label).sort((a, b) => writer.compare(a, b));
    return {
      ...change,
      different: countLevels(own.map((g) => [g.level, g.inputs])),
      conditions: writer.conditionsOf(new Set(own.flatMap((g) => [...g.classes]))),
      differences: own.map((g, i) => {
        const later = new Set(own.slice(i + 1).flatMap((after) => [...after.classes]));
        return writer.difference(g, later, change, i);
      }),
    };
  });
  const differing = levelsOfClasses(space.classes, counts, racing);
  const shown = LEVELS.indexOf(options.level);
  const known = new Set((options.history ?? []).map((s) => s.label));
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
      ...countLevels(differing.filter(([level]) => LEVELS.indexOf(level) <= shown)),
      racing: differing.reduce((n, [level, , r]) => (LEVELS.indexOf(level) <= shown ? n + r : n), 0),
      leftOut: countLevels(differing.filter(([level]) => LEVELS.indexOf(level) > shown)).inputs,
      unattributed:
        options.history === null ? 0 : groups.filter((g) => !known.has(g.label)).reduce((sum, g) => sum + g.inputs, 0),
    },
    changes,
  };
}

type ChangeHead = Omit<ReportChange, 'different' | 'conditions' | 'differences'>;

/** The changes of the history in order, then whatever else there is a difference for. */
function changesOf(groups: readonly DifferenceGroup[], options: ReportOptions): ChangeHead[] {
  const { before, after, history } = options;
  const heads: ChangeHead[] = [];
  let from: string | null = before.argument;
  for (const { label, patch, undone, revision } of history ?? []) {
    const sides = from === null || revision === null ? [before.argument, after.argument] : [from, revision];
    const { commit, title, symptom } = patch;
    if (!heads.some((h) => h.label === label))
      heads.push({ label, commit, title, symptom, undone, from: sides[0]!, to: sides[1]! });
    from = revision;
  }
  const known = new Set(heads.map((h) => h.label));
  for (const label of new Set(groups.map((g) => g.label).filter((l) => !known.has(l)))) {
    const nothing = { commit: null, title: null, symptom: null, undone: false };
    heads.push({ label, ...nothing, from: before.argument, to: after.argument });
  }
  return heads;
}

/** The level at which the two revisions differ, for how many inputs, and how many of them are racing: by class. */
function levelsOfClasses(
  classes: SpaceResult<Outcome>['classes'],
  counts: Uint32Array,
  racing: Uint32Array,
): (readonly [DifferenceLevel, number, number])[] {
  return classes.flatMap(({ before, after }, n) => {
    const level = n === 0 || counts[n] === 0 ? null : levelOf(before, after);
    return level === null ? [] : [[level, counts[n]!, racing[n]!] as const];
  });
}

function countLevels(parts: readonly (readonly [DifferenceLevel, number, ...unknown[]])[]): LevelCounts {
  const counts = { inputs: 0, exit: 0, state: 0, field: 0 };
  for (const [level, inputs] of parts) {
    counts[level] += inputs;
    counts.inputs += inputs;
  }
  return counts;
}

/** By value of the last dimension, whether it is an invalidation in the middle of the fault: at a stage. */
function middles(dims: readonly Dimension[]): boolean[] {
  const last = dims.at(-1);
  return last?.name === 'invalidation' ? last.values.map((v) => v.includes('=')) : [false];
}

/** The space without the inputs during which something else happens: an invalidation in the middle of the fault. */
export function sequential(space: SpaceResult<Outcome>): SpaceResult<Outcome> {
  const moments = middles(space.dims);
  const classOf = space.classOf.map((c, i) => (moments[i % moments.length] === true ? INVALID_INPUT : c));
  return {
    ...space,
    classOf,
    inputs: classOf.reduce((n, c) => (c === INVALID_INPUT ? n : n + 1), 0),
    excluded: [...space.excluded, 'an invalidation in the middle of the fault: --sequential'],
  };
}

/** Words for groups of one space. */
class DifferenceWriter {
  private readonly space: SpaceResult<Outcome>;
  private readonly conditions: Conditions;
  private readonly first: Int32Array;
  private readonly counts: Uint32Array;
  private readonly flagsOf: ReportOptions['flagsOf'];
  private readonly most: number | undefined;
  /** The dimension of invalidations, the last one, whose first value is none at all; -1 where there is no such dimension. */
  private readonly moments: number;

  constructor(
    space: SpaceResult<Outcome>,
    first: Int32Array,
    counts: Uint32Array,
    { flagsOf, most }: Pick<ReportOptions, 'flagsOf' | 'most'>,
  ) {
    this.space = space;
    this.conditions = new Conditions(space, (part) => partText(part, space.dims).length);
    this.first = first;
    this.counts = counts;
    this.flagsOf = flagsOf;
    this.most = most;
    this.moments = space.dims.findIndex((d) => d.name === 'invalidation');
  }

  /** The stronger level first, then what hardware can cause, then most inputs. */
  compare(a: DifferenceGroup, b: DifferenceGroup): number {
    return (
      LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level) ||
      Number(this.isPossible(b)) - Number(this.isPossible(a)) ||
      b.inputs - a.inputs
    );
  }

  /** Some of the inputs have an error code that hardware can produce: none of KVM's own bits. */
  private isPossible(group: DifferenceGroup): boolean {
    const { dims } = this.space;
    const within = (dim: string, belongs: (value: string) => boolean): Within | null => {
      const d = dims.findIndex(({ name }) => name === dim);
      return d < 0 ? null : { dim: d, values: Uint8Array.from(dims[d]!.values, (v) => Number(belongs(v))) };
    };
    const fault = within('entry', (v) => v === 'fault');
    const synthetic = within('error code', (v) => Number(v) >= 2 ** 48);
    if (fault === null || synthetic === null) return true;
    return this.conditions.inputsOf(group.classes, fault, synthetic) < group.inputs;
  }

  difference(
    group: DifferenceGroup,
    later: ReadonlySet<number>,
    sides: { readonly from: string; readonly to: string },
    position: number,
  ): ReportDifference {
    const input = this.space.inputAt(this.witness(group.classes));
    const command = (...revisions: string[]): string =>
      ['softkvm', 'explain', ...this.flagsOf(input), ...revisions].map(quoted).join(' ');
    const { from, to } = sides;
    const wanted = this.most === undefined || position < this.most;
    const conditions = wanted ? this.conditionsOf(group.classes, later) : [];
    return {
      level: group.level,
      inputs: group.inputs,
      undisturbed: this.undisturbed(group.classes),
      leaves: group.leaves,
      changes: group.changes,
      conditions,
      possible: this.isPossible(group),
      witness: {
        input,
        before: command('--revision', from),
        after: command('--revision', to),
        compare: command('--revision', from, '--compare', to),
      },
    };
  }

  /** Of the first inputs of the classes, the one that is most ordinary, and of those the one of the class with most inputs. */
  private witness(classes: ReadonlySet<number>): number {
    const best = [...classes]
      .map((c) => ({ c, unusual: unusual(this.space.inputAt(this.first[c]!)) }))
      .reduce((a, b) =>
        b.unusual < a.unusual || (b.unusual === a.unusual && this.counts[b.c]! > this.counts[a.c]!) ? b : a,
      );
    return this.first[best.c]!;
  }

  private undisturbed(classes: ReadonlySet<number>): number {
    return this.moments < 0 ? this.conditions.inputsOf(classes) : this.conditions.inputsOf(classes, this.none());
  }

  /**
   * When an input is in these classes: in one, where the invalidation does not matter, else apart for inputs without and with an
   * invalidation. With `outside`, as opposed to those classes only.
   */
  conditionsOf(classes: ReadonlySet<number>, outside?: ReadonlySet<number>): ReportCondition[] {
    if (this.moments < 0) return this.conditions.of(classes, outside).map((p) => this.condition(p, 'any'));
    const { both, first, others } = this.conditions.split(classes, outside, this.moments, this.most === undefined);
    if (both !== null) return both.map((p) => this.condition(p, 'any'));
    return [...first.map((p) => this.condition(p, 'none')), ...(others ?? []).map((p) => this.condition(p, 'some'))];
  }

  private none(): Within {
    return {
      dim: this.moments,
      values: Uint8Array.from(this.space.dims[this.moments]!.values, (_, v) => (v === 0 ? 1 : 0)),
    };
  }

  private condition(part: Part, invalidation: ReportCondition['invalidation']): ReportCondition {
    const values: Record<string, readonly string[]> = {};
    for (const [d, dim] of this.space.dims.entries()) {
      if (part.most[d]!.every((v) => v === 1)) continue;
      values[dim.name] = dim.values.filter((_, v) => part.least[d]![v] === 1);
    }
    return { invalidation, text: partText(part, this.space.dims), inputs: part.inputs, values };
  }
}

/** The smaller, the likelier is the input: an error code of KVM's own, an invalidation, what else is not as in an ordinary fault. */
function unusual(input: FaultInput): number {
  const synthetic = input.errorHi >>> 16 !== 0 ? 200 : 0;
  const others = (Object.keys(ordinaryFault) as (keyof FaultInput)[]).filter(
    (key) => !key.startsWith('error') && key !== 'invalidation' && input[key] !== ordinaryFault[key],
  );
  return synthetic + (input.invalidation.kind === 'none' ? 0 : 100) + others.length;
}

/** As an argument of a shell. */
function quoted(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", "'\\''")}'`;
}
