/** Equality over the whole input space, for the patches that change no answer, or only the one that their message announces. */
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import type { FaultInput } from '../fault-machine/fault-input.ts';
import { outcomeDifferences } from '../fault-machine/outcome.ts';
import { enumerate } from '../range-diff/enumerate.ts';
import { countClasses } from '../range-diff/group.ts';
import { EQUAL, INVALID_INPUT } from '../range-diff/space-result.ts';
import type { EqualityResult } from './demonstration.ts';

/** Compares exits and KVM's state for every input; `announced` says which differences the patch's message speaks of. */
function compareSpace(
  before: Revision,
  after: Revision,
  announced: (input: FaultInput) => boolean,
  progress?: (done: number) => void,
): Omit<EqualityResult, 'words'> & { readonly fields: number } {
  const space = enumerate(before, after, progress === undefined ? {} : { onProgress: progress });
  const { counts } = countClasses(space.classOf);
  const visible = new Set<number>();
  let fields = 0;
  space.classes.forEach((found, c) => {
    if (c === EQUAL || found === undefined) return;
    const differs = outcomeDifferences(found.before, found.after);
    if (differs.some(({ level }) => level === 'exit' || level === 'state')) visible.add(c);
    else if (differs.some(({ level }) => level === 'field')) fields += counts[c]!;
  });
  let different = 0;
  let asAnnounced = 0;
  space.classOf.forEach((c, index) => {
    if (c === EQUAL || c === INVALID_INPUT || !visible.has(c)) return;
    different++;
    if (announced(space.inputAt(index))) asAnnounced++;
  });
  return { inputs: space.inputs, different, announced: asAnnounced, equal: different === asAnnounced, fields };
}

/** Row 14: every input leaves the same way and leaves the same state behind. */
export function onlyFieldsDiffer(before: Revision, after: Revision, progress?: (done: number) => void): EqualityResult {
  const { fields, ...result } = compareSpace(before, after, () => false, progress);
  return {
    ...result,
    words: `the whole input space of the fault path, nothing sampled: exits and state are equal; fields of the fault object that nothing reads differ for ${fields} inputs`,
  };
}

/** KVM's APIC access page while something of its range is being invalidated, where no page of the host is needed. */
function isApicPageUnderInvalidation(input: FaultInput): boolean {
  const hidden = input.slot === 'apic-inhibited' || (input.slot === 'apic' && input.nested);
  return hidden && input.invalidation.kind !== 'none';
}

/** Row 13: the only difference is the one that its message announces. */
export function onlyTheApicPageDiffers(
  before: Revision,
  after: Revision,
  progress?: (done: number) => void,
): EqualityResult {
  const { fields: _fields, ...result } = compareSpace(before, after, isApicPageUnderInvalidation, progress);
  return {
    ...result,
    words:
      'the whole input space of the fault path, nothing sampled: what differs is the APIC access page during an invalidation of its range, which the message of the patch announces',
  };
}
