/** What the steps of a vCPU under shadow paging read and change. */
import {
  RES_ALL,
  RES_DIRTY_LOG,
  RES_HOST,
  RES_REQUESTS,
  RES_ROOTS,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
} from '../../../kvm/actors/actor.ts';
import type { ShadowVcpu } from './vcpu.ts';
import { PHASE_BEGIN, PHASE_CODE, PHASE_GUEST, PHASE_STAGE } from './vcpu-phase.ts';

/** Of a step that may hold mmu_lock for write. */
const LOCKED_WRITES = RES_TABLES | RES_ROOTS | RES_REQUESTS | RES_HOST | RES_DIRTY_LOG | RES_SRCU;

/** What stages read and change before mmu_lock, by name; unknown ones count as everything. */
const STAGE_RESOURCES: Readonly<Record<string, readonly [number, number]>> = {
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

/** Sets `state.reads` and `state.writes` for the next step. */
export function shadowVcpuResources(v: ShadowVcpu): void {
  const { phase, state } = v;
  let reads = RES_ALL | state.guestBits;
  let writes = LOCKED_WRITES | state.guestBits;
  if (phase >= PHASE_STAGE && phase - PHASE_STAGE < v.lockAt) {
    const { name } = v.stages[phase - PHASE_STAGE]!;
    const known = STAGE_RESOURCES[name];
    if (known === undefined) {
      writes |= RES_ALL;
    } else if (name !== 'guest-walk' || v.takes() === 0) {
      reads = known[0];
      writes = known[1] | RES_SRCU;
    }
  } else if (phase === PHASE_BEGIN) {
    reads = 0;
    writes = 0;
  } else if (phase === PHASE_CODE) {
    reads = RES_TABLES | RES_SLOTS;
    writes = RES_SRCU;
  } else if (phase === PHASE_GUEST) {
    reads = RES_TABLES | RES_REQUESTS | RES_HOST | state.guestBits;
    writes = RES_TABLES | RES_HOST | RES_REQUESTS | RES_DIRTY_LOG | RES_SRCU | state.guestBits;
  }
  state.reads = reads;
  state.writes = writes;
}

/** The same for everything that is still to come. */
export function shadowVcpuRest(v: ShadowVcpu): void {
  const { state } = v;
  state.reads = v.finished ? 0 : RES_ALL | state.guestBits;
  state.writes = v.finished ? 0 : (RES_ALL & ~(RES_SLOTS | RES_SEQUENCE)) | state.guestBits;
}
