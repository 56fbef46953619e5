/**
 * Taking bits out of a slot's dirty bitmap: the pages are write-protected again, so that the next write to each is seen (@kvm kvm_main.c
 * kvm_get_dirty_log_protect, kvm_clear_dirty_log_protect). slots_lock is held throughout, by the caller.
 */
import { LOCK_MMU_WRITE } from '../locks.ts';
import type { Memslot } from '../memslots/memslot.ts';
import { enableLogDirtyPtMasked } from '../mmu/slot-hooks.ts';
import { flushRemoteTlbsRange } from '../mmu/tlb-flush.ts';
import type { VmState } from '../vm-state.ts';
import {
  type ActorStage,
  type FlushContext,
  RES_DIRTY_LOG,
  RES_REQUESTS,
  RES_SLOTS,
  RES_TABLES,
  STAGE_DONE,
  STAGE_NEXT,
} from './actor.ts';
import { lastFlushedStage } from './flush.ts';

export class DirtyLogHarvest implements FlushContext {
  flush = false;
  readonly vm: VmState;
  slotA: Memslot | null;
  /** Bit 0 of `words` is this page of the slot, a multiple of 64. */
  readonly firstPage: number;
  /** Bits asked for; those that were set are left here. In halves of 64. */
  readonly words: Int32Array;

  constructor(vm: VmState, slot: Memslot | null, firstPage: number, words: Int32Array) {
    this.vm = vm;
    this.slotA = slot;
    this.firstPage = firstPage;
    this.words = words;
  }

  get locals(): number {
    return this.flush ? 1 : 0;
  }

  set locals(bits: number) {
    this.flush = (bits & 1) !== 0;
  }
}

type Stage = ActorStage<DirtyLogHarvest>;

export const dirtyTake: Stage = {
  name: 'take-dirty-bits',
  kvmFunction: 'kvm_get_dirty_log_protect',
  takes: LOCK_MMU_WRITE,
  reads: RES_DIRTY_LOG | RES_SLOTS,
  writes: RES_DIRTY_LOG,
  run(harvest) {
    const { vm, slotA, firstPage, words } = harvest;
    vm.locks.acquire(LOCK_MMU_WRITE);
    const bitmap = new Int32Array(slotA!.dirtyBitmap!.buffer);
    harvest.flush = false;
    for (let i = 0; i < words.length; i++) {
      const at = firstPage / 32 + i;
      words[i]! &= bitmap[at]!;
      bitmap[at]! &= ~words[i]!;
      if (words[i] !== 0) harvest.flush = true;
    }
    return STAGE_NEXT;
  },
};

export const dirtyProtect: Stage = {
  name: 'write-protect',
  kvmFunction: 'kvm_arch_mmu_enable_log_dirty_pt_masked',
  takes: 0,
  reads: RES_SLOTS | RES_TABLES,
  writes: RES_TABLES,
  run({ vm, slotA, firstPage, words }) {
    for (let i = 0; i < words.length; i += 2) {
      if ((words[i]! | words[i + 1]!) === 0) continue;
      enableLogDirtyPtMasked(vm, slotA!, firstPage + 32 * i, words[i]!, words[i + 1]!);
    }
    vm.locks.release(LOCK_MMU_WRITE);
    return STAGE_NEXT;
  },
};

export const dirtyFlush: Stage = {
  name: 'flush',
  kvmFunction: 'kvm_flush_remote_tlbs_memslot',
  takes: 0,
  reads: 0,
  writes: RES_REQUESTS,
  run({ vm, slotA, flush }) {
    if (!flush) return STAGE_DONE;
    flushRemoteTlbsRange(vm, slotA!.baseGfn, slotA!.npages);
    return STAGE_NEXT;
  },
};

/** @kvm kvm_main.c kvm_get_dirty_log_protect, kvm_clear_dirty_log_protect */
export const dirtyLogStages: readonly Stage[] = [dirtyTake, dirtyProtect, dirtyFlush, lastFlushedStage];
