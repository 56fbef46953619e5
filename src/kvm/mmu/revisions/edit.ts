/** How patches edit a list of stages. An edit that does not find its place is our own bug: it throws. */
import type { FaultStage, RevisionBody, RevisionRules } from './revision.ts';

function indexOf(stages: readonly FaultStage[], name: string): number {
  const at = stages.findIndex((s) => s.name === name);
  if (at < 0) throw new Error(`no stage ${name} to edit`);
  return at;
}

/** `stage` in front of the stage named `name`. */
export function insertBefore(stages: readonly FaultStage[], name: string, stage: FaultStage): FaultStage[] {
  return stages.toSpliced(indexOf(stages, name), 0, stage);
}

/** Without the stage named `name`. */
export function remove(stages: readonly FaultStage[], name: string): FaultStage[] {
  return stages.toSpliced(indexOf(stages, name), 1);
}

/** `stage` in the place of the one named `name`. */
export function replace(stages: readonly FaultStage[], name: string, stage: FaultStage): FaultStage[] {
  return stages.toSpliced(indexOf(stages, name), 1, stage);
}

/** The stage named `name`, in front of the one named `before` from now on. */
export function move(stages: readonly FaultStage[], name: string, before: string): FaultStage[] {
  return insertBefore(remove(stages, name), before, stages[indexOf(stages, name)]!);
}

/** A patch that changes only rules. */
export function setRules(changes: Partial<RevisionRules>): (body: RevisionBody) => RevisionBody {
  return ({ stages, rules }) => ({ stages, rules: { ...rules, ...changes } });
}

/** A patch that changes only the list. */
export function editStages(edit: (stages: readonly FaultStage[]) => readonly FaultStage[]) {
  return ({ stages, rules }: RevisionBody): RevisionBody => ({ stages: edit(stages), rules });
}

/** The same stage where it still was part of the inner function, __kvm_faultin_pfn. */
export function inner(stage: FaultStage): FaultStage {
  return { ...stage, kvmFunction: '__kvm_faultin_pfn' };
}
