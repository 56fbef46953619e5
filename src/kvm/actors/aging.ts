/** Asking which pages were used, and forgetting it (@kvm kvm_main.c kvm_mmu_notifier_clear_flush_young, kvm_mmu_notifier_clear_young). */
import { LOCK_MMU_WRITE } from '../locks.ts';
import type { GfnHandler } from '../notifier.ts';
import type { VmState } from '../vm-state.ts';
import {
  type ActorStage,
  type FlushContext,
  RES_REQUESTS,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
  STAGE_NEXT,
} from './actor.ts';
import { flushDelivered, flushStage } from './flush.ts';
import { forHvaRanges } from './hva-range.ts';

export class Aging implements FlushContext {
  flush = false;
  /** Some mapping of the range was used. */
  young = false;
  readonly vm: VmState;
  /** Host virtual addresses. */
  readonly start: number;
  readonly end: number;
  readonly handler: GfnHandler;
  readonly flushYoung: boolean;

  constructor(vm: VmState, start: number, end: number, handler: GfnHandler, flushYoung: boolean) {
    this.vm = vm;
    this.start = start;
    this.end = end;
    this.handler = handler;
    this.flushYoung = flushYoung;
  }

  get locals(): number {
    return (this.flush ? 1 : 0) | (this.young ? 2 : 0);
  }

  set locals(bits: number) {
    this.flush = (bits & 1) !== 0;
    this.young = (bits & 2) !== 0;
  }
}

type Stage = ActorStage<Aging>;

/** mmu_lock is only taken where a slot shows memory of the range. */
export const age: Stage = {
  name: 'age',
  kvmFunction: 'kvm_age_gfn',
  takes: LOCK_MMU_WRITE,
  reads: RES_SLOTS | RES_TABLES,
  writes: RES_TABLES | RES_SRCU,
  run(aging) {
    const { vm, handler } = aging;
    aging.young = false;
    vm.locks.srcuReadLock();
    let locked = false;
    forHvaRanges(vm, aging.start, aging.end, false, (range) => {
      if (!locked) vm.locks.acquire(LOCK_MMU_WRITE);
      locked = true;
      if (handler(vm, range)) aging.young = true;
    });
    aging.flush = aging.flushYoung && aging.young;
    return STAGE_NEXT;
  },
};

export const ageFlushed: Stage = {
  name: 'flushed',
  kvmFunction: 'kvm_make_all_cpus_request',
  takes: 0,
  reads: RES_REQUESTS,
  writes: RES_SRCU,
  ready: flushDelivered,
  run({ vm }) {
    if ((vm.locks.held & LOCK_MMU_WRITE) !== 0) vm.locks.release(LOCK_MMU_WRITE);
    vm.locks.srcuReadUnlock();
    return STAGE_NEXT;
  },
};

/** @kvm kvm_main.c kvm_mmu_notifier_clear_flush_young */
export const agingStages: readonly Stage[] = [age, flushStage, ageFlushed];
