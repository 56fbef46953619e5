/**
 * "KVM: x86/mmu: Page fault and MMIO cleanups", version 1 as posted (message id 20240228024147.41573-1-seanjc@google.com, February 2024):
 * sixteen patches. Two behave otherwise than in version 2, one is missing, some come in another order (see docs/revisions.md).
 */
import { applyPatches } from './chain.ts';
import { setRules } from './edit.ts';
import { linux69 } from './linux-6.9.ts';
import type { Patch, Revision } from './revision.ts';
import {
  errorValuesFirst,
  fullErrorCode,
  noBitMacros,
  noPrivateMmio,
  noSlotFirst,
  noSlotHva,
  noslotPfnCheck,
  onlyApicPage,
  pfUpperBits,
  privacyFirst,
  privateInCode,
  seriesV2Changes,
  sevErrorBits,
  slotChecksOut,
  syntheticInNpf,
} from './series-v2.ts';

/** Patch 1 without the warning in the kernel log. */
const privateEmulationSilent: Patch = {
  ...seriesV2Changes.privateEmulation,
  commit: '20240228024147.41573-2-seanjc@google.com',
  carriedBy: 'rule privateEmulationExits (do-page-fault.ts)',
  apply: setRules({ privateEmulationExits: true }),
};

/** Patch 8 went on with the ordinary path. */
const privateRsvdSkipsMmio: Patch = {
  ...seriesV2Changes.privateRsvd,
  commit: '20240228024147.41573-9-seanjc@google.com',
  symptom: 'a reserved-bit fault whose code is private warns and takes the ordinary path; before, it was MMIO',
  carriedBy: "rule privateRsvd 'skip' (page-fault.ts)",
  apply: setRules({ privateRsvd: 'skip' }),
};

/** In the order of the mails: patch n of 16 is at n - 1. */
export const seriesV1Patches: readonly Patch[] = [
  privateEmulationSilent,
  noBitMacros,
  sevErrorBits,
  fullErrorCode,
  privateInCode,
  pfUpperBits,
  syntheticInNpf,
  privateRsvdSkipsMmio,
  privacyFirst,
  onlyApicPage,
  noPrivateMmio,
  slotChecksOut,
  noSlotFirst,
  noSlotHva,
  errorValuesFirst,
  noslotPfnCheck,
];

export const seriesV1: Revision = applyPatches(
  linux69,
  seriesV1Patches,
  'series-v1',
  'the series, version 1 as posted (February 2024)',
);

/** What version 2 changed, as if it were patches on version 1. */
export const v1ToV2Patches: readonly Patch[] = [
  {
    ...seriesV2Changes.privateEmulation,
    symptom: 'the kernel log says it, too',
  },
  seriesV2Changes.pageReady,
  {
    ...seriesV2Changes.privateRsvd,
    symptom:
      'a reserved-bit fault whose code is private fails with a bare EFAULT; version 1 warned and took the ordinary path',
  },
];
