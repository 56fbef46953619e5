/** What a vCPU's next step reads and changes, by where it stands. */
import {
  RES_ALL,
  RES_ATTRIBUTES,
  RES_DIRTY_LOG,
  RES_GMEM,
  RES_HOST,
  RES_NOTIFIER_COUNT,
  RES_REQUESTS,
  RES_ROOTS,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
} from '../../../kvm/actors/actor.ts';
import type { FaultStage } from '../../../kvm/mmu/revisions/revision.ts';
import { RES_GUESTS } from './state.ts';
import type { SceneVcpu } from './vcpu.ts';
import {
  isFaulting,
  PHASE_BEGIN,
  PHASE_CODE,
  PHASE_DONE,
  PHASE_EMULATE,
  PHASE_ENTER,
  PHASE_FAST_DIRTY,
  PHASE_FAST_EXCHANGE,
  PHASE_GUEST,
  PHASE_INSTALL,
  PHASE_STAGE,
  PHASE_WALK,
} from './vcpu-phase.ts';

/** What the stages of any revision read and change, by name; unknown ones count as everything. */
const STAGE_RESOURCES: Readonly<Record<string, readonly [number, number]>> = {
  // Under two-dimensional paging: the guest's own tables are the processor's business.
  'guest-walk': [0, 0],
  'write-tracking': [0, 0],
  'fast-path': [RES_TABLES | RES_ATTRIBUTES | RES_ROOTS, 0],
  'snapshot-sequence': [RES_SEQUENCE, 0],
  'snapshot-sequence-again': [RES_SEQUENCE, 0],
  'private-mismatch': [RES_ATTRIBUTES, 0],
  'no-slot': [RES_SLOTS, 0],
  'invalid-slot': [0, 0],
  'apic-access-page': [RES_SLOTS, 0],
  'internal-slots': [RES_SLOTS, 0],
  'invalidation-precheck': [RES_SEQUENCE, 0],
  'invalidation-recheck': [RES_SEQUENCE, 0],
  'fault-in-private': [RES_GMEM, RES_GMEM],
  'fault-in-shared': [RES_HOST, RES_HOST],
  'error-pfn': [0, 0],
  'noslot-pfn': [RES_SLOTS, 0],
  'stale-check': [RES_SEQUENCE | RES_ROOTS, 0],
};
const ENTER_READS = RES_REQUESTS | RES_ROOTS;
const ENTER_WRITES = RES_REQUESTS | RES_ROOTS | RES_SRCU | RES_TABLES;
const MAP_READS = RES_TABLES | RES_SLOTS | RES_HOST | RES_ATTRIBUTES | RES_ROOTS | RES_DIRTY_LOG;
const MAP_WRITES = RES_TABLES | RES_DIRTY_LOG | RES_REQUESTS;

/** The revision has a stage of somebody's own: it may do anything. */
export function hasUnknownStage(stages: readonly FaultStage[]): boolean {
  return stages.some((s) => s.name !== 'map' && STAGE_RESOURCES[s.name] === undefined);
}

/** Reads and writes of the next step go into `state.reads`, `state.writes`, with what enables it. */
export function vcpuResources(v: SceneVcpu): void {
  const { phase, state } = v;
  let reads = 0;
  let writes = 0;
  if (phase >= PHASE_STAGE) {
    const stage = v.stages[phase - PHASE_STAGE]!;
    const known = STAGE_RESOURCES[stage.name];
    if (stage.name === 'map') {
      reads = MAP_READS;
    } else {
      reads = known === undefined ? RES_ALL : known[0];
      writes = known === undefined ? RES_ALL : known[1];
      // It may go to sleep for the page.
      if (stage.name === 'fault-in-shared' && v.sleeps) writes |= RES_REQUESTS;
      if (stage.name === 'fault-in-shared' && v.hostCopies()) {
        reads |= RES_SLOTS | RES_NOTIFIER_COUNT;
        writes |= RES_SEQUENCE | RES_TABLES | RES_REQUESTS | RES_NOTIFIER_COUNT | RES_GUESTS;
      }
    }
    // The last step of a fault may drop mmu_lock.
  } else if (phase === PHASE_ENTER) {
    reads = v.vcpu.dirtyRing === null ? ENTER_READS : RES_ALL;
    writes = ENTER_WRITES | state.guestBit(v);
  } else if (phase === PHASE_GUEST) {
    reads = RES_TABLES | RES_REQUESTS | (v.current.isPrivate === true ? RES_SLOTS | RES_GMEM : 0);
    writes = RES_TABLES | RES_SRCU | RES_REQUESTS | RES_DIRTY_LOG | state.guestBit(v);
  } else if (phase === PHASE_CODE) {
    reads = RES_ATTRIBUTES | RES_SLOTS | RES_TABLES;
  } else if (phase === PHASE_BEGIN) {
    reads = RES_SLOTS | RES_ATTRIBUTES;
  } else if (phase === PHASE_WALK) {
    reads = MAP_READS;
  } else if (phase === PHASE_INSTALL) {
    reads = MAP_READS;
    writes = MAP_WRITES;
  } else if (phase === PHASE_FAST_EXCHANGE) {
    reads = RES_TABLES;
    writes = RES_TABLES;
  } else if (phase === PHASE_FAST_DIRTY) {
    writes = RES_DIRTY_LOG | RES_REQUESTS;
  } else if (phase === PHASE_EMULATE) {
    reads = RES_SLOTS | RES_ATTRIBUTES;
    writes = RES_HOST | RES_DIRTY_LOG | RES_REQUESTS;
  } else {
    reads = RES_ALL;
    writes = RES_REQUESTS | state.guestBit(v);
  }
  // The last step of a fault that is done again wakes the vCPU up.
  if (v.redoing) writes |= RES_REQUESTS;
  // Any stage can be the last one, after which the vCPU may return to userspace.
  if (isFaulting(phase) || phase === PHASE_CODE || phase === PHASE_EMULATE) {
    writes |= RES_SRCU;
  }
  state.reads = reads;
  state.writes = writes;
}

/** The same for everything that is still to come. */
export function restVcpuResources(v: SceneVcpu): void {
  const { state } = v;
  const rest = v.phase === PHASE_DONE ? 0 : RES_ALL;
  state.reads = rest;
  const notOurs = v.hasUnknownStage ? 0 : RES_ATTRIBUTES | RES_SLOTS | RES_SEQUENCE;
  state.writes = rest === 0 ? 0 : (rest & ~notOurs) | (v.mayCopy ? RES_GUESTS | RES_SEQUENCE : state.guestBit(v));
}

/** Resources of which its words at `at` say something else in `b` than in `a`; `own`: it took the step itself. */
export function vcpuChanged(v: SceneVcpu, a: Int32Array, b: Int32Array, at: number, own: boolean): number {
  let mask = 0;
  if (a[at + 1] !== b[at + 1]) mask |= RES_REQUESTS;
  const asleep = at + 8 + v.gfns.length;
  if (v.sleeps && a[asleep] !== b[asleep]) mask |= RES_REQUESTS;
  let guest = ((a[at]! ^ b[at]!) & (1 << 10)) !== 0;
  for (let g = 0; g < v.gfns.length; g++) if (a[at + 8 + g] !== b[at + 8 + g]) guest = true;
  if (guest) mask |= v.state.guestBit(v);
  if (((a[at]! ^ b[at]!) & (1 << 12)) !== 0) mask |= RES_SRCU;
  if (own) return mask;
  // Of what the vCPU remembers, others change only what it is worth: whether its snapshot is still the last one, and what its walk stands on.
  const others =
    ((a[at]! ^ b[at]!) & 0x3ff) !== 0 || a[at + 2] !== b[at + 2] || ((a[at + 3]! ^ b[at + 3]!) & ~(1 << 14)) !== 0;
  return others ? -1 : mask;
}
