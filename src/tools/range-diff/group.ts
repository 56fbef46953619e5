/** Differences by cause, and within a cause by what is different: one group for each pair of outcomes in words. */
import {
  type DifferenceLevel,
  type Outcome,
  type OutcomeDifference,
  outcomeDifferences,
} from '../fault-machine/outcome.ts';
import { leavingText } from './leaving.ts';
import type { DifferenceClass } from './space-result.ts';

export const LEVELS: readonly DifferenceLevel[] = ['exit', 'state', 'field'];

/** One thing that is said differently on the two sides. */
export interface Change {
  readonly field: string;
  readonly before: string;
  readonly after: string;
}

/** Inputs with one cause that differ in the same way at the strongest level at which they differ. */
export interface DifferenceGroup {
  readonly cause: string;
  readonly level: DifferenceLevel;
  readonly changes: readonly Change[];
  /** How the fault leaves, when it leaves alike on both sides and for all inputs of the group. */
  readonly leaves: string | null;
  /** What else differs, at weaker levels, and for how many of the inputs. */
  readonly also: readonly (Change & { readonly inputs: number })[];
  readonly classes: ReadonlySet<number>;
  readonly inputs: number;
}

/** Inputs of each class, and the first input of each. */
export interface ClassCounts {
  readonly counts: Uint32Array;
  readonly first: Int32Array;
}

/** HOT */
export function countClasses(classOf: Uint16Array): ClassCounts {
  const counts = new Uint32Array(0x10000);
  const first = new Int32Array(0x10000).fill(-1);
  for (let i = 0; i < classOf.length; i++) {
    const c = classOf[i]!;
    if (counts[c]!++ === 0) first[c] = i;
  }
  return { counts, first };
}

interface Building {
  readonly cause: string;
  readonly level: DifferenceLevel;
  readonly changes: readonly Change[];
  readonly leaves: Set<string>;
  readonly also: Map<string, Change & { inputs: number }>;
  readonly classes: Set<number>;
  inputs: number;
}

/** The groups of all classes that differ at `weakest` or a stronger level, those with most inputs first within a cause and level. */
export function groupClasses(
  classes: readonly DifferenceClass<Outcome>[],
  counts: Uint32Array,
  weakest: DifferenceLevel,
): DifferenceGroup[] {
  const groups = new Map<string, Building>();
  for (const [n, { cause, before, after }] of classes.entries()) {
    if (n === 0 || counts[n] === 0) continue;
    const differences = outcomeDifferences(before, after);
    const level = LEVELS.find((l) => differences.some((d) => d.level === l));
    if (level === undefined || LEVELS.indexOf(level) > LEVELS.indexOf(weakest)) continue;
    const changes = changesAt(level, differences, before, after);
    const key = JSON.stringify([cause, level, changes]);
    let group = groups.get(key);
    if (group === undefined) {
      group = { cause, level, changes, leaves: new Set(), also: new Map(), classes: new Set(), inputs: 0 };
      groups.set(key, group);
    }
    group.classes.add(n);
    group.inputs += counts[n]!;
    group.leaves.add(leavingText(before));
    group.leaves.add(leavingText(after));
    for (const d of differences) {
      if (LEVELS.indexOf(d.level) <= LEVELS.indexOf(level)) continue;
      const change = changeOf(d, before, after);
      const same = JSON.stringify(change);
      const known = group.also.get(same);
      if (known === undefined) group.also.set(same, { ...change, inputs: counts[n]! });
      else known.inputs += counts[n]!;
    }
  }
  return [...groups.values()].map(finish).sort(byLevelAndSize);
}

function finish(g: Building): DifferenceGroup {
  return {
    cause: g.cause,
    level: g.level,
    changes: g.changes,
    leaves: g.leaves.size === 1 && g.level !== 'exit' ? [...g.leaves][0]! : null,
    also: [...g.also.values()].sort((a, b) => b.inputs - a.inputs || (a.field < b.field ? -1 : 1)),
    classes: g.classes,
    inputs: g.inputs,
  };
}

function byLevelAndSize(a: DifferenceGroup, b: DifferenceGroup): number {
  return LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level) || b.inputs - a.inputs;
}

/** Differences of one level. At the level of exits it is one phrase: how the fault leaves. */
function changesAt(
  level: DifferenceLevel,
  differences: readonly OutcomeDifference[],
  before: Outcome,
  after: Outcome,
): Change[] {
  if (level === 'exit') {
    const [a, b] = [leavingText(before), leavingText(after)];
    if (a !== b) return [{ field: 'leaves', before: a, after: b }];
  }
  return differences.filter((d) => d.level === level).map((d) => changeOf(d, before, after));
}

/** Of lists, only what the other side does not have. */
function changeOf(d: OutcomeDifference, before: Outcome, after: Outcome): Change {
  const field = FIELD_NAMES.get(d.field) ?? d.field;
  if (d.field !== 'stats' && d.field !== 'log') return { field, before: d.before, after: d.after };
  const [a, b] = [entries(before[d.field]), entries(after[d.field])];
  const only = (these: readonly string[], others: readonly string[]): string =>
    these.filter((e) => !others.includes(e)).join(', ') || 'none';
  return { field, before: only(a, b), after: only(b, a) };
}

function entries(value: readonly string[] | Readonly<Record<string, number>>): string[] {
  return Array.isArray(value) ? [...value] : Object.entries(value).map(([name, n]) => `${name} +${n}`);
}

const FIELD_NAMES: ReadonlyMap<string, string> = new Map([
  ['emulated', 'emulation type'],
  ['asyncPf', 'async work'],
  ['spteAfter', 'SPTE after'],
  ['mmioCache', 'MMIO cache'],
  ['dirty', 'page dirty'],
  ['stats', 'statistics'],
  ['log', 'kernel log'],
  ['ret', 'verdict'],
  ['fields', 'fault object'],
  ['fields.isPrivate', 'fault.is_private'],
  ['fields.errorCode', 'fault.error_code'],
  ['fields.pfn', 'fault.pfn'],
  ['fields.hva', 'fault.hva'],
  ['fields.mapWritable', 'fault.map_writable'],
  ['fields.hasSlot', 'fault.slot set'],
]);
