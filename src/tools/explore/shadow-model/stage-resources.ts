/** What the stages of a fault under shadow paging touch. */
import { RES_DIRTY_LOG, RES_HOST, RES_SEQUENCE, RES_SLOTS, RES_TABLES } from '../../../kvm/actors/actor.ts';

/** What stages read and change before mmu_lock, by name; unknown ones count as everything. */
export const STAGE_RESOURCES: Readonly<Record<string, readonly [number, number]>> = {
  'guest-walk': [RES_HOST | RES_SLOTS, RES_HOST | RES_DIRTY_LOG],
  'write-tracking': [RES_TABLES | RES_SLOTS, RES_TABLES],
  'fast-path': [0, 0],
  'snapshot-sequence': [RES_SEQUENCE, 0],
  'snapshot-sequence-again': [RES_SEQUENCE, 0],
  'private-mismatch': [0, 0],
  'no-slot': [RES_SLOTS, 0],
  'invalid-slot': [0, 0],
  'apic-access-page': [RES_SLOTS, 0],
  'internal-slots': [RES_SLOTS, 0],
  'invalidation-precheck': [RES_SEQUENCE, 0],
  'invalidation-recheck': [RES_SEQUENCE, 0],
  'fault-in-private': [0, 0],
  'fault-in-shared': [RES_HOST, RES_HOST],
  'error-pfn': [0, 0],
  'noslot-pfn': [RES_SLOTS, 0],
};
