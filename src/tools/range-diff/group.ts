/** Differences by change, and within a change by what it does: one group for each pair of outcomes in words. */
import {
  type DifferenceLevel,
  type Outcome,
  type OutcomeDifference,
  outcomeDifferences,
} from '../fault-machine/outcome.ts';
import { leavingText } from './leaving.ts';
import { type DifferenceClass, INVALID_INPUT } from './space-result.ts';

export const LEVELS: readonly DifferenceLevel[] = ['exit', 'state', 'field'];

/** One thing that is said differently on the two sides, and for how many inputs. */
export interface Change {
  readonly field: string;
  readonly before: string;
  readonly after: string;
  readonly inputs: number;
}

/** Inputs for which one change has the same effect, at the strongest level at which it has any. */
export interface DifferenceGroup {
  /** The label of the change, or the stage of a user's revision; empty when no change accounts for it. */
  readonly label: string;
  readonly level: DifferenceLevel;
  /** How the fault leaves, before and after: all ways, `; ` between them. */
  readonly leaves: { readonly before: string; readonly after: string };
  /** What else differs, the strongest level first. */
  readonly changes: readonly (Change & { readonly level: DifferenceLevel })[];
  readonly classes: ReadonlySet<number>;
  readonly inputs: number;
}

/** Of each class: its inputs, those with an invalidation in the middle of the fault among them, and the first of them. */
export interface ClassCounts {
  readonly counts: Uint32Array;
  readonly racing: Uint32Array;
  readonly first: Int32Array;
}

/** `middles`: by value of the last dimension, whether it is such an invalidation. HOT */
export function countClasses(classOf: Uint16Array, middles: readonly boolean[]): ClassCounts {
  const counts = new Uint32Array(0x10000);
  const racing = new Uint32Array(0x10000);
  const first = new Int32Array(0x10000).fill(-1);
  const period = middles.length;
  const isMiddle = Uint8Array.from(middles, Number);
  for (let base = 0; base < classOf.length; base += period) {
    for (let v = 0; v < period; v++) {
      const c = classOf[base + v]!;
      if (c === INVALID_INPUT) continue;
      if (counts[c]!++ === 0) first[c] = base + v;
      racing[c]! += isMiddle[v]!;
    }
  }
  return { counts, racing, first };
}

/** The strongest level at which two outcomes differ; null for equal ones. */
export function levelOf(before: Outcome, after: Outcome): DifferenceLevel | null {
  const differences = outcomeDifferences(before, after);
  return LEVELS.find((l) => differences.some((d) => d.level === l)) ?? null;
}

interface Building {
  readonly label: string;
  readonly level: DifferenceLevel;
  readonly leaves: { readonly before: Set<string>; readonly after: Set<string> };
  readonly changes: Map<string, Omit<Change, 'inputs'> & { inputs: number; readonly level: DifferenceLevel }>;
  readonly classes: Set<number>;
  inputs: number;
}

/**
 * The groups of all steps that change something at `weakest` or a stronger level: by level, those with most inputs first. A class without
 * steps is one step of its cause.
 */
export function groupClasses(
  classes: readonly DifferenceClass<Outcome>[],
  counts: Uint32Array,
  weakest: DifferenceLevel,
): DifferenceGroup[] {
  const groups = new Map<string, Building>();
  for (const [n, { cause, steps, before, after }] of classes.entries()) {
    if (n === 0 || counts[n] === 0) continue;
    for (const step of steps.length > 0 ? steps : [{ label: cause, before, after }])
      addStep(groups, n, counts[n]!, step, weakest);
  }
  return [...groups.values()]
    .map((g) => ({
      ...g,
      leaves: { before: [...g.leaves.before].sort().join('; '), after: [...g.leaves.after].sort().join('; ') },
      changes: [...g.changes.values()].sort(byLevelAndSize),
    }))
    .sort(byLevelAndSize);
}

function addStep(
  groups: Map<string, Building>,
  classNumber: number,
  inputs: number,
  step: { readonly label: string; readonly before: Outcome; readonly after: Outcome },
  weakest: DifferenceLevel,
): void {
  const { label, before, after } = step;
  const differences = outcomeDifferences(before, after);
  const level = LEVELS.find((l) => differences.some((d) => d.level === l));
  if (level === undefined || LEVELS.indexOf(level) > LEVELS.indexOf(weakest)) return;
  const leaves = { before: leavingText(before), after: leavingText(after) };
  const key = JSON.stringify([label, level, level === 'exit' ? leaves : '']);
  let group = groups.get(key);
  if (group === undefined) {
    const none = { before: new Set<string>(), after: new Set<string>() };
    group = { label, level, leaves: none, changes: new Map(), classes: new Set(), inputs: 0 };
    groups.set(key, group);
  }
  if (group.classes.has(classNumber)) return;
  group.classes.add(classNumber);
  group.leaves.before.add(leaves.before);
  group.leaves.after.add(leaves.after);
  group.inputs += inputs;
  for (const d of differences) {
    if (level === 'exit' && LEAVING.has(d.field) && leaves.before !== leaves.after) continue;
    const change = changeOf(d, before, after);
    const same = JSON.stringify(change);
    const known = group.changes.get(same);
    if (known === undefined) group.changes.set(same, { ...change, inputs, level: d.level });
    else known.inputs += inputs;
  }
}

/** What the words for leaving say already. */
const LEAVING: ReadonlySet<string> = new Set(['verdict', 'exit', 'signals', 'emulated']);

interface Ranked {
  readonly level: DifferenceLevel;
  readonly inputs: number;
}

function byLevelAndSize(a: Ranked, b: Ranked): number {
  return LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level) || b.inputs - a.inputs;
}

/** Of lists, only what the other side does not have. */
function changeOf(d: OutcomeDifference, before: Outcome, after: Outcome): Omit<Change, 'inputs'> {
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
  ['exit', 'prepared exit'],
  ['asyncPf', 'async work'],
  ['spteAfter', 'SPTE after'],
  ['mmioCache', 'MMIO cache'],
  ['dirty', 'page dirty'],
  ['stats', 'statistics'],
  ['log', 'kernel log'],
  ['ret', 'verdict'],
  ['fields', 'fault object'],
  ['fields.isPrivate', 'is_private'],
  ['fields.errorCode', 'error_code'],
  ['fields.pfn', 'pfn'],
  ['fields.hva', 'hva'],
  ['fields.mapWritable', 'map_writable'],
  ['fields.hasSlot', 'has slot'],
]);
