/** What a revision of one's own is made of: the stages and revisions that there are, edits of a list, and what a stage may call. */

import type { Revision } from '../mmu/revisions/revision.ts';
import { apicAccessPage } from '../mmu/stages/apic-access-page.ts';
import { errorPfn } from '../mmu/stages/error-pfn.ts';
import { fastPath } from '../mmu/stages/fast-path.ts';
import { faultInPrivate } from '../mmu/stages/fault-in-private.ts';
import { faultInShared } from '../mmu/stages/fault-in-shared.ts';
import { guestWalk } from '../mmu/stages/guest-walk.ts';
import { invalidSlot } from '../mmu/stages/invalid-slot.ts';
import { invalidationPrecheck } from '../mmu/stages/invalidation-precheck.ts';
import { invalidationRecheck } from '../mmu/stages/invalidation-recheck.ts';
import { map } from '../mmu/stages/map.ts';
import { noSlot } from '../mmu/stages/no-slot.ts';
import { noslotPfn } from '../mmu/stages/noslot-pfn.ts';
import { privateMismatch } from '../mmu/stages/private-mismatch.ts';
import { snapshotSequence } from '../mmu/stages/snapshot-sequence.ts';
import { staleCheck } from '../mmu/stages/stale-check.ts';
import { writeTracking } from '../mmu/stages/write-tracking.ts';

export { EFAULT, EHWPOISON, EINTR, EINVAL, ENOENT, ENOMEM } from '../../host/errno.ts';
export { memIsPrivate } from '../attributes.ts';
export type { Memslot } from '../memslots/memslots.ts';
export type { PageFault } from '../mmu/fault.ts';
export { prepareMmuMemoryFaultExit } from '../mmu/memory-fault.ts';
export { handleNoslotFault } from '../mmu/noslot-fault.ts';
export {
  RET_PF_CONTINUE,
  RET_PF_EMULATE,
  RET_PF_FIXED,
  RET_PF_INVALID,
  RET_PF_RETRY,
  RET_PF_SPURIOUS,
  RET_PF_WRITE_PROTECTED,
} from '../mmu/ret-pf.ts';
export { insertBefore, move, remove, replace } from '../mmu/revisions/edit.ts';
export { linux69 } from '../mmu/revisions/linux-6.9.ts';
export { linux610 } from '../mmu/revisions/linux-6.10.ts';
export { linux612 } from '../mmu/revisions/linux-6.12.ts';
export type { FaultStage, Revision, RevisionRules } from '../mmu/revisions/revision.ts';
export { seriesV1 } from '../mmu/revisions/series-v1.ts';
export { seriesV2 } from '../mmu/revisions/series-v2.ts';
export { mmuInvalidateRetryGfn, mmuInvalidateRetryGfnUnsafe } from '../notifier.ts';
export type { VcpuState } from '../vcpu-state.ts';

/** The stages of the newest revision, by name. Those that only earlier revisions have are in their lists. */
export const stages = {
  guestWalk,
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
} as const;

/** A revision of one's own, for `softkvm range-diff linux-6.12 ./my-revision.ts`: the file's default export. */
export function defineRevision(revision: Revision): Revision {
  return revision;
}
