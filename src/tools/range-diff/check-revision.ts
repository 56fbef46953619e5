/** Whether what a user's file exports is a revision that can run: the reason why not, in one line that names the stage. */

import { RET_PF_CONTINUE, RET_PF_SPURIOUS } from '../../kvm/mmu/ret-pf.ts';
import { revisions } from '../../kvm/mmu/revisions/index.ts';
import { linux612 } from '../../kvm/mmu/revisions/linux-6.12.ts';
import type { FaultStage, Revision } from '../../kvm/mmu/revisions/revision.ts';

/** Stages without which the path has no answer, or a wrong one that says nothing about the patch to try. */
const needed: readonly (readonly [name: string, why: string])[] = [
  ['guest-walk', 'where KVM shadows page tables, the gfn would not be known'],
  ['snapshot-sequence', 'every later check of an invalidation would compare with 0'],
  ['fault-in-private', 'a private access would never get its page'],
  ['fault-in-shared', 'a shared access would never get its page'],
  ['error-pfn', 'an error value would be mapped as if it were a frame'],
  ['map', 'nothing would decide the fault'],
];

const inOrder: readonly (readonly [before: string, after: string, why: string])[] = [
  ['guest-walk', 'no-slot', 'the gfn is not known before'],
  ['guest-walk', 'private-mismatch', 'the gfn is not known before'],
  ['snapshot-sequence', 'fault-in-private', 'an invalidation before the snapshot would go unnoticed'],
  ['snapshot-sequence', 'fault-in-shared', 'an invalidation before the snapshot would go unnoticed'],
  ['fault-in-private', 'error-pfn', 'the frame is not known before'],
  ['fault-in-shared', 'error-pfn', 'the frame is not known before'],
  ['error-pfn', 'map', 'an error value would be mapped as if it were a frame'],
];

/** Null when `value` is a revision that can run, else why it is not. */
export function revisionProblem(value: unknown): string | null {
  if (value === undefined) return 'has no default export; expected `export default defineRevision({ ... })`';
  if (!isObject(value))
    return `its default export is ${kindOf(value)}; expected a revision, from defineRevision({ ... })`;
  for (const field of ['name', 'title'] as const)
    if (typeof value[field] !== 'string' || value[field].trim() === '')
      return `"${field}" is ${kindOf(value[field])}; expected a text`;
  const taken = revisions.find((r) => r.name === value['name']);
  if (taken !== undefined) return `"name" is ${taken.name}, which is a revision of softkvm's; expected one of its own`;
  return stagesProblem(value['stages']) ?? rulesProblem(value['rules']);
}

function stagesProblem(list: unknown): string | null {
  if (!Array.isArray(list)) return `"stages" is ${kindOf(list)}; expected a list of stages`;
  for (const [i, stage] of list.entries()) {
    const problem = stageProblem(stage);
    if (problem !== null)
      return `stage ${isObject(stage) && typeof stage['name'] === 'string' ? `"${stage['name']}"` : i + 1}: ${problem}`;
  }
  const stages = list as readonly FaultStage[];
  const at = new Map<string, number>();
  for (const [i, { name }] of stages.entries()) {
    if (at.has(name)) return `stage "${name}": is in the list twice, as stage ${at.get(name)! + 1} and ${i + 1}`;
    at.set(name, i);
  }
  for (const [name, why] of needed) if (!at.has(name)) return `stage "${name}": is missing: without it, ${why}`;
  for (const [before, after, why] of inOrder)
    if (at.get(before)! > at.get(after)!) return `stage "${before}": comes after "${after}": ${why}`;
  return lockProblem(stages);
}

function stageProblem(stage: unknown): string | null {
  if (!isObject(stage))
    return `is ${kindOf(stage)}; expected an object with name, kvmFunction, underMmuLock, run and explain`;
  const fields: readonly (readonly [string, string])[] = [
    ['name', 'string'],
    ['kvmFunction', 'string'],
    ['underMmuLock', 'boolean'],
    ['run', 'function'],
    ['explain', 'function'],
  ];
  for (const [field, type] of fields)
    if (typeof stage[field] !== type) return `"${field}" is ${kindOf(stage[field])}; expected a ${type}`;
  if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(stage['name'] as string))
    return 'expected a name of small letters, digits and single hyphens';
  return null;
}

/** mmu_lock is taken once and kept: what may sleep cannot come after. */
function lockProblem(stages: readonly FaultStage[]): string | null {
  const locked = stages.findIndex((s) => s.underMmuLock);
  const late = stages.find((s, i) => locked >= 0 && i > locked && !s.underMmuLock);
  if (late !== undefined)
    return `stage "${late.name}": comes after "${stages[locked]!.name}", which takes mmu_lock, and is not one to run under it`;
  const map = stages.find((s) => s.name === 'map')!;
  return map.underMmuLock ? null : 'stage "map": runs without mmu_lock';
}

function rulesProblem(rules: unknown): string | null {
  if (!isObject(rules)) return `"rules" is ${kindOf(rules)}; expected all rules, as { ...linux612.rules, ... }`;
  for (const [name, ours] of Object.entries(linux612.rules)) {
    const known = [...new Set(revisions.map((r) => (r.rules as unknown as Record<string, unknown>)[name]))];
    if (typeof ours === 'string' ? !known.includes(rules[name]) : typeof rules[name] !== typeof ours)
      return `rule "${name}": is ${typeof rules[name] === 'string' ? `"${rules[name]}"` : kindOf(rules[name])}; expected ${typeof ours === 'string' ? known.map((k) => `"${k}"`).join(', ') : `a ${typeof ours}`}`;
  }
  const unknown = Object.keys(rules).find((name) => !(name in linux612.rules));
  return unknown === undefined
    ? null
    : `rule "${unknown}": there is no such rule; known: ${Object.keys(linux612.rules).join(', ')}`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'string') return value.trim() === '' ? 'an empty text' : `the text "${value}"`;
  if (typeof value === 'number' || typeof value === 'boolean') return `${value}`;
  return typeof value === 'function' ? 'a function' : 'an object';
}

/** The revision, with stages that check themselves as they run: what a stage of the user's throws or answers is an error of the file. */
export function guarded(revision: Revision, fail: (problem: string, thrown: unknown) => Error): Revision {
  const ours = new Set(revisions.flatMap((r) => r.stages.map((s) => s.run)));
  const last = revision.stages.length - 1;
  return {
    ...revision,
    stages: revision.stages.map((stage, i) =>
      ours.has(stage.run) && (i < last || stage.name === 'map') ? stage : guardedStage(stage, i === last, fail),
    ),
  };
}

function guardedStage(stage: FaultStage, last: boolean, fail: (problem: string, thrown: unknown) => Error): FaultStage {
  const { run, explain } = stage;
  return {
    ...stage,
    run(vcpu, fault) {
      let verdict: unknown;
      try {
        verdict = run(vcpu, fault);
      } catch (error) {
        throw fail(`stage "${stage.name}": threw ${thrownText(error)}`, error);
      }
      if (typeof verdict !== 'number' || !Number.isInteger(verdict) || verdict < -4095 || verdict > RET_PF_SPURIOUS)
        throw fail(
          `stage "${stage.name}": answered ${verdict === undefined ? 'undefined' : kindOf(verdict)}; expected RET_PF_* or a negative errno`,
          null,
        );
      if (last && verdict === RET_PF_CONTINUE)
        throw fail(
          `stage "${stage.name}": is the last one and answered RET_PF_CONTINUE: nothing decides the fault`,
          null,
        );
      return verdict;
    },
    explain(vcpu, fault, verdict) {
      try {
        return explain(vcpu, fault, verdict);
      } catch (error) {
        throw fail(`stage "${stage.name}": its explain threw ${thrownText(error)}`, error);
      }
    },
  };
}

function thrownText(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message.split('\n')[0]}` : String(error);
}
