/**
 * Whatever races with faults, as a list of atomic stages: between two of them anybody else may act, as far as locks allow. The ioctls and
 * notifiers run their list from start to end (`runActor`); who wants to see what can come in between steps it.
 */
import { LOCK_MMU_READ, LOCK_MMU_WRITE } from '../locks.ts';
import type { VmState } from '../vm-state.ts';

/** What a stage answers: go on with the next one; n > 0: with the one after leaving out n. */
export const STAGE_NEXT = 0;
/** The actor is finished: the stages that follow are not run. */
export const STAGE_DONE = -1;
/** The stage before this one comes again; such a stage has `loops`. */
export const STAGE_AGAIN = -2;

/** One atomic step of an actor that works on a context `C`. */
export interface ActorStage<C> {
  readonly name: string;
  /** The kernel function that does it. */
  readonly kvmFunction: string;
  /** Locks (LOCK_*) that `run` takes, whether it keeps them or not: it cannot start while somebody else holds them. */
  readonly takes: number;
  /** The same where it depends; goes before `takes`. */
  readonly takesNow?: (context: C) => number;
  /** What the kernel waits for here, besides locks; absent when it waits for nothing. With one thread there is nothing to wait for. */
  readonly ready?: (context: C) => boolean;
  /** What the stage reads and changes for others to see: RES_* bits. */
  readonly reads: number;
  readonly writes: number;
  /** It can answer STAGE_AGAIN. */
  readonly loops?: boolean;
  /** STAGE_NEXT, STAGE_DONE, STAGE_AGAIN, or how many stages to leave out. */
  readonly run: (context: C) => number;
}

/** What stages share, as bits for `reads` and `writes`. Locks are in `takes`. */
export const RES_SEQUENCE = 1 << 0;
export const RES_ATTRIBUTES = 1 << 1;
/** The active slots, their generation, and the MMU's part of each. */
export const RES_SLOTS = 1 << 2;
export const RES_TABLES = 1 << 3;
/** Requests of vCPUs, which are served before the guest is entered. */
export const RES_REQUESTS = 1 << 4;
/** The process's page tables and the frames behind them. */
export const RES_HOST = 1 << 5;
export const RES_GMEM = 1 << 6;
export const RES_DIRTY_LOG = 1 << 7;
/** mn_active_invalidate_count. */
export const RES_NOTIFIER_COUNT = 1 << 8;
/** SRCU read sections of kvm->srcu. */
export const RES_SRCU = 1 << 9;
export const RES_ROOTS = 1 << 10;
export const RES_ALL = (1 << 11) - 1;

/** Runs the actor from start to end, as its ioctl or notifier does. */
export function runActor<C>(stages: readonly ActorStage<C>[], context: C): void {
  for (let i = 0; i < stages.length; i++) {
    const answer = stages[i]!.run(context);
    if (answer === STAGE_DONE) return;
    i += answer;
  }
}

/** What an actor's stages work on and remember between them. */
export interface ActorContext {
  /** What they remember, as bits 0 to 7: who steps an actor captures and restores it. */
  locals: number;
}

/** What the end of a flush needs. */
export interface FlushContext extends ActorContext {
  readonly vm: VmState;
  /** TLBs must be flushed before the mappings that went can be called gone. */
  flush: boolean;
}

/** No vCPU is in the guest with a request that it has not seen: who flushes waits for that. @kvm kvm_main.c kvm_make_all_cpus_request */
export function requestsDelivered(context: FlushContext): boolean {
  const { vcpus } = context.vm;
  for (let i = 0; i < vcpus.length; i++) if (vcpus[i]!.inGuest && vcpus[i]!.requests !== 0) return false;
  return true;
}

/** Drops mmu_lock in the mode it is held. */
export function unlockMmu(vm: VmState): void {
  vm.locks.release((vm.locks.held & LOCK_MMU_WRITE) !== 0 ? LOCK_MMU_WRITE : LOCK_MMU_READ);
}
