/**
 * The worker that, once a period, recovers huge pages which the NX workaround split: their page tables go, and the next fault that does not
 * execute maps the huge page again (@kvm mmu.c kvm_recover_nx_huge_pages).
 */
import { LOCK_MMU_WRITE } from '../locks.ts';
import { nxPagesToRecover, recoverNxHugePages } from '../mmu/nx-recovery.ts';
import { remoteFlushOrZap } from '../mmu/shadow/zap-page.ts';
import type { ShadowPage } from '../mmu/shadow-page.ts';
import type { VmState } from '../vm-state.ts';
import {
  type ActorStage,
  type FlushContext,
  RES_DIRTY_LOG,
  RES_REQUESTS,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
  runActor,
  STAGE_NEXT,
} from './actor.ts';
import { flushDelivered } from './flush.ts';

export class NxRecovery implements FlushContext {
  flush = false;
  /** Page tables to take. */
  count = 0;
  /** Pages of the shadow MMU that are unlinked and not freed yet. */
  readonly invalid: ShadowPage[] = [];
  readonly vm: VmState;

  constructor(vm: VmState) {
    this.vm = vm;
  }

  get locals(): number {
    return (this.flush ? 1 : 0) | (this.count << 1);
  }

  set locals(bits: number) {
    this.flush = (bits & 1) !== 0;
    this.count = bits >>> 1;
    this.invalid.length = 0;
  }
}

type Stage = ActorStage<NxRecovery>;

/** How many to take is asked before the lock. */
export const nxCount: Stage = {
  name: 'count-splits',
  kvmFunction: 'kvm_recover_nx_huge_pages',
  takes: 0,
  reads: RES_TABLES,
  writes: RES_SRCU,
  run(recovery) {
    const { vm } = recovery;
    recovery.count = nxPagesToRecover(vm);
    recovery.flush = false;
    vm.locks.srcuReadLock();
    return STAGE_NEXT;
  },
};

export const nxZap: Stage = {
  name: 'zap',
  kvmFunction: 'kvm_tdp_mmu_zap_sp',
  takes: LOCK_MMU_WRITE,
  reads: RES_TABLES | RES_SLOTS | RES_DIRTY_LOG,
  writes: RES_TABLES,
  run(recovery) {
    const { vm } = recovery;
    vm.locks.acquire(LOCK_MMU_WRITE);
    recovery.flush = recoverNxHugePages(vm, recovery.count, recovery.invalid);
    return STAGE_NEXT;
  },
};

export const nxFlush: Stage = {
  name: 'flush',
  kvmFunction: 'kvm_mmu_remote_flush_or_zap',
  takes: 0,
  reads: 0,
  writes: RES_REQUESTS,
  run(recovery) {
    recovery.flush = remoteFlushOrZap(recovery.vm, recovery.invalid, recovery.flush);
    return STAGE_NEXT;
  },
};

export const nxFlushed: Stage = {
  name: 'flushed',
  kvmFunction: 'kvm_make_all_cpus_request',
  takes: 0,
  reads: RES_REQUESTS,
  writes: RES_SRCU,
  ready: flushDelivered,
  run({ vm }) {
    vm.locks.release(LOCK_MMU_WRITE);
    vm.locks.srcuReadUnlock();
    return STAGE_NEXT;
  },
};

/** @kvm mmu.c kvm_recover_nx_huge_pages */
export const nxRecoveryStages: readonly Stage[] = [nxCount, nxZap, nxFlush, nxFlushed];

/** One recovery, as the worker does it once a period (`nxRecoveryPeriodMs`). @kvm mmu.c kvm_nx_huge_page_recovery_worker */
export function runNxRecovery(vm: VmState): void {
  runActor(nxRecoveryStages, new NxRecovery(vm));
}
