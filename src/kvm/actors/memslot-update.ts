/**
 * A change of one slot. One that is deleted or moved is first replaced by an INVALID copy, under which faults retry and the MMU drops
 * everything it has of the slot; each replacement waits for those who still use the old slots, and moves the generation on (@kvm kvm_main.c
 * kvm_set_memslot). slots_lock is held throughout, by the caller.
 */
import { LOCK_MMU_READ, LOCK_MMU_WRITE, LOCK_SLOTS_ARCH } from '../locks.ts';
import type { Memslot, MemslotChange } from '../memslots/memslot.ts';
import {
  beginSwap,
  commitMemoryRegion,
  endSwap,
  invalidCopy,
  nextGeneration,
  prepareMemoryRegion,
} from '../memslots/update.ts';
import {
  archZapMemslot,
  collapseAfterLog,
  logLocks,
  mmioGenerationWraps,
  slotLogChange,
  slotZapsAll,
  splitForLog,
  writeProtectForLog,
} from '../mmu/slot-hooks.ts';
import { flushRemoteTlbsRange } from '../mmu/tlb-flush.ts';
import { zapAllFastBackHalf, zapAllFastFrontHalf } from '../mmu/zap-all-fast.ts';
import type { VmState } from '../vm-state.ts';
import {
  type ActorStage,
  type FlushContext,
  RES_DIRTY_LOG,
  RES_GMEM,
  RES_NOTIFIER_COUNT,
  RES_REQUESTS,
  RES_ROOTS,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
  requestsDelivered,
  STAGE_DONE,
  STAGE_NEXT,
} from './actor.ts';
import { flushStage, lastFlushedStage } from './flush.ts';

export class MemslotUpdate implements FlushContext {
  flush = false;
  /** 0 or -errno. */
  result = 0;
  readonly vm: VmState;
  /** The slot that is replaced, and the one that takes its place; null where there is none. */
  slotA: Memslot | null;
  slotB: Memslot | null;
  readonly change: MemslotChange;

  constructor(vm: VmState, old: Memslot | null, next: Memslot | null, change: MemslotChange) {
    this.vm = vm;
    this.slotA = old;
    this.slotB = next;
    this.change = change;
  }

  get asId(): number {
    return (this.slotA ?? this.slotB)!.asId;
  }

  /** What is active in the slot's place now. */
  get active(): Memslot | null {
    return this.vm.slots.sets[this.asId]!.idToMemslot((this.slotA ?? this.slotB)!.id);
  }

  get locals(): number {
    return this.flush ? 1 : 0;
  }

  set locals(bits: number) {
    this.flush = (bits & 1) !== 0;
  }
}

type Stage = ActorStage<MemslotUpdate>;

function archLock({ vm }: MemslotUpdate): number {
  vm.locks.acquire(LOCK_SLOTS_ARCH);
  return STAGE_NEXT;
}

export const slotArchLock: Stage = {
  name: 'slots-arch-lock',
  kvmFunction: 'kvm_set_memslot',
  takes: LOCK_SLOTS_ARCH,
  reads: 0,
  writes: 0,
  run: archLock,
};

/** Waits until no invalidation of the process's memory is under way: its start and its end must see the same slots. */
function noInvalidation({ vm }: MemslotUpdate): boolean {
  return vm.notifier.activeInvalidateCount === 0;
}

export const slotInstallInvalid: Stage = {
  name: 'install-invalid',
  kvmFunction: 'kvm_invalidate_memslot',
  takes: 0,
  reads: RES_SLOTS | RES_NOTIFIER_COUNT | RES_SRCU,
  writes: RES_SLOTS | RES_SRCU,
  ready: noInvalidation,
  run({ vm, asId, slotA }) {
    beginSwap(vm, asId, slotA, invalidCopy(slotA!));
    vm.locks.release(LOCK_SLOTS_ARCH);
    vm.locks.srcuBeginGrace();
    return STAGE_NEXT;
  },
};

function wraps({ vm, asId }: MemslotUpdate): boolean {
  return mmioGenerationWraps(vm, nextGeneration(vm, asId));
}

/** Whoever has looked at the slots before has left its SRCU read section; MMIO entries go when the generation wraps. */
export const slotSynchronize: Stage = {
  name: 'synchronize-srcu',
  kvmFunction: 'kvm_swap_active_memslots',
  takes: 0,
  takesNow: (update) => (wraps(update) ? LOCK_MMU_WRITE : 0),
  reads: RES_SRCU | RES_SLOTS,
  writes: RES_ROOTS | RES_REQUESTS,
  ready: ({ vm }) => vm.locks.srcuGrace === 0,
  run(update) {
    if (!wraps(update)) return 2;
    update.vm.locks.acquire(LOCK_MMU_WRITE);
    zapAllFastFrontHalf(update.vm);
    return STAGE_NEXT;
  },
};

export const slotMmioFlushed: Stage = {
  name: 'mmio-flushed',
  kvmFunction: 'kvm_mmu_invalidate_mmio_sptes',
  takes: 0,
  reads: RES_REQUESTS,
  writes: 0,
  ready: requestsDelivered,
  run({ vm }) {
    vm.locks.release(LOCK_MMU_WRITE);
    return STAGE_NEXT;
  },
};

export const slotMmioZap: Stage = {
  name: 'mmio-zap-roots',
  kvmFunction: 'kvm_tdp_mmu_zap_invalidated_roots',
  takes: LOCK_MMU_READ,
  reads: RES_ROOTS | RES_TABLES,
  writes: RES_ROOTS | RES_TABLES,
  run({ vm }) {
    zapAllFastBackHalf(vm);
    return STAGE_NEXT;
  },
};

export const slotGeneration: Stage = {
  name: 'generation',
  kvmFunction: 'kvm_swap_active_memslots',
  takes: 0,
  reads: RES_SLOTS,
  writes: RES_SLOTS,
  run({ vm, asId }) {
    endSwap(vm, asId);
    return STAGE_NEXT;
  },
};

export const slotZap: Stage = {
  name: 'zap',
  kvmFunction: 'kvm_arch_flush_shadow_memslot',
  takes: LOCK_MMU_WRITE,
  reads: RES_TABLES | RES_ROOTS,
  writes: RES_TABLES | RES_ROOTS | RES_REQUESTS,
  run(update) {
    const { vm } = update;
    vm.locks.acquire(LOCK_MMU_WRITE);
    update.flush = archZapMemslot(vm, update.slotA!);
    return STAGE_NEXT;
  },
};

export const slotFlushed: Stage = {
  name: 'flushed',
  kvmFunction: 'kvm_make_all_cpus_request',
  takes: 0,
  reads: RES_REQUESTS,
  writes: 0,
  ready: (update) => (!update.flush && !slotZapsAll(update.vm)) || requestsDelivered(update),
  run(update) {
    update.vm.locks.release(LOCK_MMU_WRITE);
    update.flush = false;
    return slotZapsAll(update.vm) ? STAGE_NEXT : 1;
  },
};

export const slotZapRoots: Stage = { ...slotMmioZap, name: 'zap-roots' };

export const slotArchLockAgain: Stage = { ...slotArchLock, kvmFunction: 'kvm_invalidate_memslot' };

/** Gives the new slot its parts. When that fails, the old one comes back. */
export const slotPrepare: Stage = {
  name: 'prepare',
  kvmFunction: 'kvm_prepare_memory_region',
  takes: 0,
  reads: RES_SLOTS,
  writes: 0,
  run(update) {
    const { vm, slotA: old, slotB: next, change, active, asId } = update;
    const r = prepareMemoryRegion(vm, old, next, change);
    if (r === 0) return STAGE_NEXT;
    update.result = r;
    if (active !== old) {
      beginSwap(vm, asId, active, old);
      if (wraps(update)) {
        vm.locks.acquire(LOCK_MMU_WRITE);
        zapAllFastFrontHalf(vm);
        vm.locks.release(LOCK_MMU_WRITE);
        vm.locks.release(LOCK_SLOTS_ARCH);
        zapAllFastBackHalf(vm);
        vm.locks.acquire(LOCK_SLOTS_ARCH);
      }
      endSwap(vm, asId);
    }
    vm.locks.release(LOCK_SLOTS_ARCH);
    return STAGE_DONE;
  },
};

export const slotInstall: Stage = {
  name: 'install',
  kvmFunction: 'kvm_swap_active_memslots',
  takes: 0,
  reads: RES_SLOTS | RES_NOTIFIER_COUNT | RES_SRCU,
  writes: RES_SLOTS | RES_SRCU | RES_DIRTY_LOG,
  ready: noInvalidation,
  run({ vm, asId, active, slotB }) {
    beginSwap(vm, asId, active, slotB);
    vm.locks.release(LOCK_SLOTS_ARCH);
    vm.locks.srcuBeginGrace();
    return STAGE_NEXT;
  },
};

/** What follows depends on whether dirty logging of the slot ends or begins. */
export const slotCommit: Stage = {
  name: 'commit',
  kvmFunction: 'kvm_commit_memory_region',
  takes: 0,
  reads: RES_ROOTS | RES_SLOTS,
  writes: RES_DIRTY_LOG | RES_GMEM,
  run(update) {
    const { vm, slotA: old, slotB: next, change } = update;
    commitMemoryRegion(vm, old, next, change);
    const log = slotLogChange(vm, old, next, change);
    if (log === 'ends') return STAGE_NEXT;
    return log === 'begins' ? 1 : STAGE_DONE;
  },
};

export const slotCollapse: Stage = {
  name: 'zap-collapsible',
  kvmFunction: 'kvm_mmu_zap_collapsible_sptes',
  takes: 0,
  takesNow: ({ vm }) => logLocks(vm),
  reads: RES_TABLES | RES_ROOTS | RES_SLOTS,
  writes: RES_TABLES | RES_REQUESTS,
  run({ vm, slotB }) {
    collapseAfterLog(vm, slotB!);
    return STAGE_DONE;
  },
};

export const slotSplit: Stage = {
  name: 'split-huge-pages',
  kvmFunction: 'kvm_mmu_slot_try_split_huge_pages',
  takes: 0,
  takesNow: ({ vm }) => logLocks(vm),
  reads: RES_TABLES | RES_ROOTS,
  writes: RES_TABLES | RES_REQUESTS,
  run({ vm, slotB }) {
    splitForLog(vm, slotB!);
    return STAGE_NEXT;
  },
};

export const slotWriteProtect: Stage = {
  name: 'write-protect',
  kvmFunction: 'kvm_mmu_slot_remove_write_access',
  takes: 0,
  takesNow: ({ vm }) => logLocks(vm),
  reads: RES_TABLES | RES_ROOTS,
  writes: RES_TABLES,
  run({ vm, slotB }) {
    writeProtectForLog(vm, slotB!);
    return STAGE_NEXT;
  },
};

export const slotCommitFlush: Stage = {
  name: 'flush',
  kvmFunction: 'kvm_flush_remote_tlbs_memslot',
  takes: 0,
  reads: 0,
  writes: RES_REQUESTS,
  run({ vm, slotB }) {
    flushRemoteTlbsRange(vm, slotB!.baseGfn, slotB!.npages);
    return STAGE_NEXT;
  },
};

const endOfSwap = [slotSynchronize, slotMmioFlushed, slotMmioZap, slotGeneration];
const newSlot = [
  slotPrepare,
  slotInstall,
  ...endOfSwap,
  slotCommit,
  slotCollapse,
  slotSplit,
  slotWriteProtect,
  slotCommitFlush,
  lastFlushedStage,
];

/** Creating a slot, or changing its flags. */
export const memslotReplaceStages: readonly Stage[] = [slotArchLock, ...newSlot];

/** Deleting or moving a slot. */
export const memslotInvalidateStages: readonly Stage[] = [
  slotArchLock,
  slotInstallInvalid,
  ...endOfSwap,
  slotZap,
  flushStage,
  slotFlushed,
  slotZapRoots,
  slotArchLockAgain,
  ...newSlot,
];

/** @kvm kvm_main.c kvm_set_memslot */
export function memslotStages(change: MemslotChange): readonly Stage[] {
  return change === 'delete' || change === 'move' ? memslotInvalidateStages : memslotReplaceStages;
}
