/** Linux 6.12: what the recordings were made on. Linux 6.10 and the fixes to the fault path since. */
import { applyPatches } from './chain.ts';
import { setRules } from './edit.ts';
import { linux610 } from './linux-6.10.ts';
import type { Patch, Revision } from './revision.ts';

/** In the order in which they landed. */
export const linux612Patches: readonly Patch[] = [
  {
    commit: '9b54e248d264',
    title: 'Add support for handling private page faults of SNP guests',
    symptom: 'ENC in an #NPF of an SNP guest makes the fault private; before, there were no SNP guests',
    carriedBy: 'rule snpEncIsPrivate (svm/npf.ts)',
    apply: setRules({ snpEncIsPrivate: true }),
  },
];

export const linux612: Revision = applyPatches(linux610, linux612Patches, 'linux-6.12', 'Linux 6.12');
