/**
 * KVM_SET_MEMORY_ATTRIBUTES on frames [start, end): begin, mappings go, attributes change, end (@kvm kvm_main.c
 * kvm_vm_set_mem_attributes).
 */
import { rangeHasMemoryAttributes } from '../attributes.ts';
import { LOCK_MMU_WRITE, LOCK_SLOTS } from '../locks.ts';
import { addCutHugePages, postSetMemoryAttributes, zapForAttributes } from '../mmu/memory-attributes.ts';
import { forGfnRanges, mmuInvalidateBegin, mmuInvalidateEnd, mmuInvalidateRangeAdd } from '../notifier.ts';
import type { VmState } from '../vm-state.ts';
import {
  type ActorStage,
  type FlushContext,
  RES_ATTRIBUTES,
  RES_REQUESTS,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_TABLES,
  STAGE_DONE,
  STAGE_NEXT,
} from './actor.ts';
import { flushDelivered, flushStage } from './flush.ts';

export class AttributeChange implements FlushContext {
  flush = false;
  /** Some slot has frames of the range: without, nothing can be mapped and nothing is invalidated. */
  found = false;
  readonly vm: VmState;
  readonly start: number;
  readonly end: number;
  /** KVM_MEMORY_ATTRIBUTE_* */
  readonly attrs: number;

  constructor(vm: VmState, start: number, end: number, attrs: number) {
    this.vm = vm;
    this.start = start;
    this.end = end;
    this.attrs = attrs;
  }

  get locals(): number {
    return (this.flush ? 1 : 0) | (this.found ? 2 : 0);
  }

  set locals(bits: number) {
    this.flush = (bits & 1) !== 0;
    this.found = (bits & 2) !== 0;
  }
}

type Stage = ActorStage<AttributeChange>;

/** What comes between the begin and the change of the attributes. */
const STAGES_OF_INVALIDATION = 5;

export const attributesLock: Stage = {
  name: 'slots-lock',
  kvmFunction: 'kvm_vm_set_mem_attributes',
  takes: LOCK_SLOTS,
  reads: RES_ATTRIBUTES,
  writes: 0,
  run({ vm, start, end, attrs }) {
    vm.locks.acquire(LOCK_SLOTS);
    if (!rangeHasMemoryAttributes(vm, start, end, ~0, attrs)) return STAGE_NEXT;
    vm.locks.release(LOCK_SLOTS);
    return STAGE_DONE;
  },
};

export const attributesBegin: Stage = {
  name: 'invalidate-begin',
  kvmFunction: 'kvm_mmu_invalidate_begin',
  takes: LOCK_MMU_WRITE,
  reads: RES_SLOTS | RES_SEQUENCE,
  writes: RES_SEQUENCE,
  run(change) {
    const { vm, start, end } = change;
    change.flush = false;
    change.found = false;
    forGfnRanges(vm, start, end, () => {
      change.found = true;
    });
    if (!change.found) return STAGES_OF_INVALIDATION;
    vm.locks.acquire(LOCK_MMU_WRITE);
    mmuInvalidateBegin(vm);
    return STAGE_NEXT;
  },
};

/** Added even where nothing will be zapped: no mapping may be made while attributes are in flux. */
export const attributesRange: Stage = {
  name: 'invalidate-range',
  kvmFunction: 'kvm_mmu_invalidate_range_add',
  takes: 0,
  reads: RES_SLOTS | RES_SEQUENCE,
  writes: RES_SEQUENCE,
  run({ vm, start, end }) {
    forGfnRanges(vm, start, end, (range) => mmuInvalidateRangeAdd(vm, range.start, range.end));
    return STAGE_NEXT;
  },
};

/** The huge pages that the range's ends cut are invalidated as a whole (9129633d568e). */
export const attributesCutHugePages: Stage = {
  name: 'invalidate-huge-pages',
  kvmFunction: 'kvm_arch_pre_set_memory_attributes',
  takes: 0,
  reads: RES_SLOTS | RES_SEQUENCE,
  writes: RES_SEQUENCE,
  run({ vm, start, end }) {
    forGfnRanges(vm, start, end, (range) => addCutHugePages(vm, range));
    return STAGE_NEXT;
  },
};

export const attributesZap: Stage = {
  name: 'zap',
  kvmFunction: 'kvm_unmap_gfn_range',
  takes: 0,
  reads: RES_SLOTS | RES_TABLES,
  writes: RES_TABLES,
  run(change) {
    const { vm, start, end, attrs } = change;
    forGfnRanges(vm, start, end, (range) => {
      range.attributes = attrs;
      if (zapForAttributes(vm, range)) change.flush = true;
    });
    return STAGE_NEXT;
  },
};

export const attributesUnlock: Stage = {
  name: 'flushed',
  kvmFunction: 'kvm_make_all_cpus_request',
  takes: 0,
  reads: RES_REQUESTS,
  writes: 0,
  ready: flushDelivered,
  run({ vm, found }) {
    if (found) vm.locks.release(LOCK_MMU_WRITE);
    return STAGE_NEXT;
  },
};

export const attributesStore: Stage = {
  name: 'store-attributes',
  kvmFunction: 'kvm_vm_set_mem_attributes',
  takes: 0,
  reads: 0,
  writes: RES_ATTRIBUTES,
  run({ vm, start, end, attrs }) {
    vm.attributes.private.set(start, end, attrs !== 0);
    return STAGE_NEXT;
  },
};

export const attributesEnd: Stage = {
  name: 'invalidate-end',
  kvmFunction: 'kvm_mmu_invalidate_end',
  takes: LOCK_MMU_WRITE,
  reads: RES_SEQUENCE | RES_ATTRIBUTES | RES_SLOTS,
  writes: RES_SEQUENCE | RES_SLOTS,
  run({ vm, start, end, attrs, found }) {
    if (!found) return STAGE_NEXT;
    vm.locks.acquire(LOCK_MMU_WRITE);
    mmuInvalidateEnd(vm);
    forGfnRanges(vm, start, end, (range) => {
      range.attributes = attrs;
      postSetMemoryAttributes(vm, range);
    });
    vm.locks.release(LOCK_MMU_WRITE);
    return STAGE_NEXT;
  },
};

export const attributesUnlockSlots: Stage = {
  name: 'slots-unlock',
  kvmFunction: 'kvm_vm_set_mem_attributes',
  takes: 0,
  reads: 0,
  writes: 0,
  run({ vm }) {
    vm.locks.release(LOCK_SLOTS);
    return STAGE_DONE;
  },
};

/** @kvm kvm_main.c kvm_vm_set_mem_attributes */
export const attributeChangeStages: readonly Stage[] = [
  attributesLock,
  attributesBegin,
  attributesRange,
  attributesCutHugePages,
  attributesZap,
  flushStage,
  attributesUnlock,
  attributesStore,
  attributesEnd,
  attributesUnlockSlots,
];
