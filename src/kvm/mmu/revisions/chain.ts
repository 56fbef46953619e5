/** A revision as another one with patches on top. */
import type { Patch, Revision, RevisionBody } from './revision.ts';

/** `base` with `patches` applied in order. */
export function applyPatches(base: Revision, patches: readonly Patch[], name: string, title: string): Revision {
  let body: RevisionBody = base;
  for (const patch of patches) body = patch.apply(body);
  return { name, title, stages: body.stages, rules: body.rules };
}
