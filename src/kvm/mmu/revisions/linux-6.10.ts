/** Linux 6.10: the series, and the fix that took its second snapshot of mmu_invalidate_seq out again. */
import { applyPatches } from './chain.ts';
import { editStages, remove } from './edit.ts';
import type { Patch, Revision } from './revision.ts';
import { seriesV2 } from './series-v2.ts';

const oneSnapshot: Patch = {
  commit: 'db574f2f96d0',
  title: "Don't save mmu_invalidate_seq after checking private attr",
  symptom:
    'an attribute change between the private/shared check and the second snapshot is no longer lost (a race: one fault alone shows nothing)',
  carriedBy: 'stage snapshot-sequence-again is gone',
  apply: editStages((s) => remove(s, 'snapshot-sequence-again')),
};

export const linux610Patches: readonly Patch[] = [oneSnapshot];

export const linux610: Revision = applyPatches(seriesV2, linux610Patches, 'linux-6.10', 'Linux 6.10');
