/** Linux 6.9: before the series (@kvm mmu.c direct_page_fault, kvm_faultin_pfn, __kvm_faultin_pfn of that release). */
import { internalSlotsHidden } from '../stages/apic-access-page.ts';
import { errorPfn } from '../stages/error-pfn.ts';
import { fastPath } from '../stages/fast-path.ts';
import { faultInPrivate } from '../stages/fault-in-private.ts';
import { faultInShared } from '../stages/fault-in-shared.ts';
import { guestWalk } from '../stages/guest-walk.ts';
import { invalidSlot } from '../stages/invalid-slot.ts';
import { invalidationPrecheck } from '../stages/invalidation-precheck.ts';
import { invalidationRecheck } from '../stages/invalidation-recheck.ts';
import { map } from '../stages/map.ts';
import { noSlot } from '../stages/no-slot.ts';
import { privateMismatchOfSlots } from '../stages/private-mismatch.ts';
import { snapshotSequence } from '../stages/snapshot-sequence.ts';
import { staleCheck } from '../stages/stale-check.ts';
import { writeTracking } from '../stages/write-tracking.ts';
import { inner } from './edit.ts';
import type { Revision } from './revision.ts';

export const linux69: Revision = {
  name: 'linux-6.9',
  title: 'Linux 6.9, before the series',
  stages: [
    guestWalk,
    writeTracking,
    fastPath,
    snapshotSequence,
    invalidationPrecheck,
    inner(invalidSlot),
    inner(internalSlotsHidden),
    privateMismatchOfSlots,
    faultInPrivate,
    faultInShared,
    errorPfn,
    noSlot,
    invalidationRecheck,
    staleCheck,
    map,
  ],
  rules: {
    privateEmulationExits: false,
    privateEmulationWarns: false,
    namesSevErrorBits: false,
    npfDropsSynthetic: false,
    fullErrorCode: false,
    pfDropsUpperBits: false,
    privateInErrorCode: false,
    snpEncIsPrivate: false,
    privateRsvd: 'mmio',
    pageReadyKeepsErrorCode: false,
    noSlotPrivateExits: false,
    noSlotSetsHva: false,
    faultStartsWithErrors: false,
    fastPathChecksPrivacy: false,
    hasPreFault: false,
    eptPageBits: 'always',
    writeProtectedVerdict: false,
    walkRetryNeedsZap: false,
    retryNeedsZap: false,
    retryGuardInFault: false,
    reinjectionOnlyOnWrite: false,
    failedRetryNeedsPage: true,
    ownTableFailsFirst: false,
    failedRetryRemembers: 'never',
    writeProtectedMmioWarns: false,
    attributesHoldHugePages: false,
    mmioDropsPresent: false,
    childMatchesGfn: false,
    childMatchesRole: false,
    roomBeforeStale: false,
    tracksBothSpaces: false,
  },
};
