/**
 * An invalidation of host addresses [start, end) by the process's memory management: the mappings go at its start, and from there to its
 * end none may be made (@kvm kvm_main.c kvm_mmu_notifier_invalidate_range_start, kvm_mmu_notifier_invalidate_range_end).
 */
import { LOCK_MMU_WRITE } from '../locks.ts';
import type { Memslot } from '../memslots/memslot.ts';
import {
  type GfnRange,
  KVM_FILTER_SHARED,
  mmuInvalidateBegin,
  mmuInvalidateEnd,
  mmuUnmapGfnRange,
} from '../notifier.ts';
import type { VmState } from '../vm-state.ts';
import {
  type ActorStage,
  type FlushContext,
  RES_NOTIFIER_COUNT,
  RES_REQUESTS,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
  STAGE_NEXT,
} from './actor.ts';
import { flushDelivered, flushStage } from './flush.ts';

export class HvaInvalidation implements FlushContext {
  flush = false;
  /** Some slot shows memory of the range; without, there is nothing to do. */
  found = false;
  readonly vm: VmState;
  /** Host virtual addresses. */
  readonly start: number;
  readonly end: number;

  constructor(vm: VmState, start: number, end: number) {
    this.vm = vm;
    this.start = start;
    this.end = end;
  }

  get locals(): number {
    return (this.flush ? 1 : 0) | (this.found ? 2 : 0);
  }

  set locals(bits: number) {
    this.flush = (bits & 1) !== 0;
    this.found = (bits & 2) !== 0;
  }
}

/** The slots whose host memory meets [start, end), by host address. INVALID ones are in the tree too. */
function slotsByHva(slots: readonly Memslot[], start: number, end: number): Memslot[] {
  const hit = slots.filter((s) => s.userspaceAddr < end && s.userspaceAddr + s.npages * 4096 > start);
  return hit.length < 2 ? hit : hit.sort((a, b) => a.userspaceAddr - b.userspaceAddr);
}

/**
 * Calls `fn` for the guest frames of each slot in each address space that [start, end) (hvas) is behind; true when there was one.
 * @kvm kvm_main.c __kvm_handle_hva_range
 */
export function forHvaRanges(
  vm: VmState,
  start: number,
  end: number,
  mayBlock: boolean,
  fn: (range: GfnRange) => void,
): boolean {
  if (end <= start) return false;
  let found = false;
  for (let asId = 0; asId < vm.slots.count; asId++) {
    for (const slot of slotsByHva(vm.slots.all(asId), start, end)) {
      found = true;
      const hvaStart = Math.max(start, slot.userspaceAddr);
      const hvaEnd = Math.min(end, slot.userspaceAddr + slot.npages * 4096);
      fn({
        slot,
        start: slot.baseGfn + Math.floor((hvaStart - slot.userspaceAddr) / 4096),
        end: slot.baseGfn + Math.floor((hvaEnd + 4095 - slot.userspaceAddr) / 4096),
        attributes: 0,
        attrFilter: KVM_FILTER_SHARED,
        mayBlock,
      });
    }
  }
  return found;
}

function nothing(): void {}

type Stage = ActorStage<HvaInvalidation>;

export const rangeCount: Stage = {
  name: 'count',
  kvmFunction: 'kvm_mmu_notifier_invalidate_range_start',
  takes: 0,
  reads: RES_NOTIFIER_COUNT,
  writes: RES_NOTIFIER_COUNT,
  run({ vm }) {
    vm.notifier.activeInvalidateCount++;
    return STAGE_NEXT;
  },
};

export const rangeBegin: Stage = {
  name: 'invalidate-begin',
  kvmFunction: 'kvm_mmu_invalidate_begin',
  takes: LOCK_MMU_WRITE,
  reads: RES_SLOTS | RES_SEQUENCE,
  writes: RES_SEQUENCE | RES_SRCU,
  run(range) {
    const { vm, start, end } = range;
    vm.locks.srcuReadLock();
    range.flush = false;
    range.found = forHvaRanges(vm, start, end, true, nothing);
    if (!range.found) return STAGE_NEXT;
    vm.locks.acquire(LOCK_MMU_WRITE);
    mmuInvalidateBegin(vm);
    return STAGE_NEXT;
  },
};

export const rangeZap: Stage = {
  name: 'zap',
  kvmFunction: 'kvm_mmu_unmap_gfn_range',
  takes: 0,
  reads: RES_SLOTS | RES_SEQUENCE | RES_TABLES,
  writes: RES_SEQUENCE | RES_TABLES,
  run(range) {
    forHvaRanges(range.vm, range.start, range.end, true, (gfns) => {
      if (mmuUnmapGfnRange(range.vm, gfns)) range.flush = true;
    });
    return STAGE_NEXT;
  },
};

export const rangeFlushed: Stage = {
  name: 'flushed',
  kvmFunction: 'kvm_make_all_cpus_request',
  takes: 0,
  reads: RES_REQUESTS,
  writes: RES_SRCU,
  ready: flushDelivered,
  run({ vm, found }) {
    if (found) vm.locks.release(LOCK_MMU_WRITE);
    vm.locks.srcuReadUnlock();
    return STAGE_NEXT;
  },
};

/** @kvm kvm_main.c kvm_mmu_notifier_invalidate_range_start */
export const rangeStartStages: readonly Stage[] = [rangeCount, rangeBegin, rangeZap, flushStage, rangeFlushed];

export const rangeEnd: Stage = {
  name: 'invalidate-end',
  kvmFunction: 'kvm_mmu_invalidate_end',
  takes: LOCK_MMU_WRITE,
  reads: RES_SLOTS | RES_SEQUENCE,
  writes: RES_SEQUENCE,
  run({ vm, start, end }) {
    vm.locks.srcuReadLock();
    if (forHvaRanges(vm, start, end, true, nothing)) {
      vm.locks.acquire(LOCK_MMU_WRITE);
      mmuInvalidateEnd(vm);
      vm.locks.release(LOCK_MMU_WRITE);
    }
    vm.locks.srcuReadUnlock();
    return STAGE_NEXT;
  },
};

export const rangeUncount: Stage = {
  name: 'uncount',
  kvmFunction: 'kvm_mmu_notifier_invalidate_range_end',
  takes: 0,
  reads: RES_NOTIFIER_COUNT,
  writes: RES_NOTIFIER_COUNT,
  run({ vm }) {
    vm.notifier.activeInvalidateCount--;
    return STAGE_NEXT;
  },
};

/** @kvm kvm_main.c kvm_mmu_notifier_invalidate_range_end */
export const rangeEndStages: readonly Stage[] = [rangeEnd, rangeUncount];
