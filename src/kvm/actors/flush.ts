/** The flush that follows when mappings have gone, and the wait until every vCPU has seen it: stages of several actors. */
import { flushRemoteTlbs } from '../mmu/tlb-flush.ts';
import {
  type ActorStage,
  type FlushContext,
  RES_REQUESTS,
  requestsDelivered,
  STAGE_DONE,
  STAGE_NEXT,
} from './actor.ts';

/** @kvm kvm_main.c kvm_flush_remote_tlbs */
export const flushStage: ActorStage<FlushContext> = {
  name: 'flush',
  kvmFunction: 'kvm_flush_remote_tlbs',
  takes: 0,
  reads: 0,
  writes: RES_REQUESTS,
  run({ vm, flush }) {
    if (flush) flushRemoteTlbs(vm);
    return STAGE_NEXT;
  },
};

/** No flush was needed, or it has arrived everywhere. */
export function flushDelivered(context: FlushContext): boolean {
  return !context.flush || requestsDelivered(context);
}

/** The end of an actor whose flush was its last work. @kvm kvm_main.c kvm_make_all_cpus_request */
export const lastFlushedStage: ActorStage<FlushContext> = {
  name: 'flushed',
  kvmFunction: 'kvm_make_all_cpus_request',
  takes: 0,
  reads: RES_REQUESTS,
  writes: 0,
  ready: requestsDelivered,
  run: () => STAGE_DONE,
};
