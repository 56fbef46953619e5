/** Linux 6.12 (@kvm mmu.c kvm_tdp_mmu_page_fault, kvm_faultin_pfn). */
import { apicAccessPage } from '../stages/apic-access-page.ts';
import { errorPfn } from '../stages/error-pfn.ts';
import { fastPath } from '../stages/fast-path.ts';
import { faultInPrivate } from '../stages/fault-in-private.ts';
import { faultInShared } from '../stages/fault-in-shared.ts';
import { invalidSlot } from '../stages/invalid-slot.ts';
import { invalidationPrecheck } from '../stages/invalidation-precheck.ts';
import { invalidationRecheck } from '../stages/invalidation-recheck.ts';
import { map } from '../stages/map.ts';
import { noSlot } from '../stages/no-slot.ts';
import { noslotPfn } from '../stages/noslot-pfn.ts';
import { privateMismatch } from '../stages/private-mismatch.ts';
import { snapshotSequence } from '../stages/snapshot-sequence.ts';
import { staleCheck } from '../stages/stale-check.ts';
import { writeTracking } from '../stages/write-tracking.ts';
import type { Revision } from './revision.ts';

export const linux612: Revision = {
  name: 'linux-6.12',
  title: 'Linux 6.12',
  stages: [
    writeTracking,
    fastPath,
    snapshotSequence,
    privateMismatch,
    noSlot,
    invalidSlot,
    apicAccessPage,
    invalidationPrecheck,
    faultInPrivate,
    faultInShared,
    errorPfn,
    noslotPfn,
    invalidationRecheck,
    staleCheck,
    map,
  ],
  rules: {
    privateEmulationExits: true,
    privateEmulationWarns: true,
    npfDropsSynthetic: true,
    fullErrorCode: true,
    pfDropsUpperBits: true,
    privateInErrorCode: true,
    snpEncIsPrivate: true,
    privateRsvd: 'fail',
    pageReadyKeepsErrorCode: true,
    noSlotPrivateExits: true,
    noSlotSetsHva: true,
    faultStartsWithErrors: true,
  },
};
