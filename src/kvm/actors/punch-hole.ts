/**
 * Pages [start, end) of a guest_memfd go: the private mappings of the slots that they are bound to first (@kvm guest_memfd.c
 * kvm_gmem_punch_hole).
 */
import type { GuestMemfdFile } from '../guest-memfd/guest-memfd.ts';
import { LOCK_MMU_WRITE } from '../locks.ts';
import { mmuInvalidateBegin, mmuInvalidateEnd, mmuUnmapGfnRange } from '../notifier.ts';
import type { VmState } from '../vm-state.ts';
import {
  type ActorStage,
  type FlushContext,
  RES_GMEM,
  RES_HOST,
  RES_REQUESTS,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_TABLES,
  STAGE_DONE,
  STAGE_NEXT,
} from './actor.ts';
import { flushDelivered, flushStage } from './flush.ts';

export class GmemInvalidation implements FlushContext {
  flush = false;
  readonly file: GuestMemfdFile;
  /** Pages of the file. */
  readonly start: number;
  readonly end: number;

  constructor(file: GuestMemfdFile, start: number, end: number) {
    this.file = file;
    this.start = start;
    this.end = end;
  }

  get vm(): VmState {
    return this.file.vm;
  }

  get locals(): number {
    return this.flush ? 1 : 0;
  }

  set locals(bits: number) {
    this.flush = (bits & 1) !== 0;
  }
}

type Stage = ActorStage<GmemInvalidation>;

function isBound({ file, start, end }: GmemInvalidation): boolean {
  return file.boundRanges(start, end).length > 0;
}

export const gmemBegin: Stage = {
  name: 'invalidate-begin',
  kvmFunction: 'kvm_gmem_invalidate_begin',
  takes: LOCK_MMU_WRITE,
  reads: RES_GMEM | RES_SEQUENCE,
  writes: RES_SEQUENCE,
  run(hole) {
    hole.flush = false;
    if (!isBound(hole)) return 3;
    hole.vm.locks.acquire(LOCK_MMU_WRITE);
    mmuInvalidateBegin(hole.vm);
    return STAGE_NEXT;
  },
};

export const gmemZap: Stage = {
  name: 'zap',
  kvmFunction: 'kvm_mmu_unmap_gfn_range',
  takes: 0,
  reads: RES_GMEM | RES_SLOTS | RES_SEQUENCE | RES_TABLES,
  writes: RES_SEQUENCE | RES_TABLES,
  run(hole) {
    for (const range of hole.file.boundRanges(hole.start, hole.end)) {
      if (mmuUnmapGfnRange(hole.vm, range)) hole.flush = true;
    }
    return STAGE_NEXT;
  },
};

export const gmemFlushed: Stage = {
  name: 'flushed',
  kvmFunction: 'kvm_make_all_cpus_request',
  takes: 0,
  reads: RES_REQUESTS,
  writes: 0,
  ready: flushDelivered,
  run({ vm }) {
    vm.locks.release(LOCK_MMU_WRITE);
    return STAGE_NEXT;
  },
};

export const gmemDrop: Stage = {
  name: 'free-pages',
  kvmFunction: 'kvm_gmem_punch_hole',
  takes: 0,
  reads: RES_GMEM,
  writes: RES_GMEM | RES_HOST,
  run({ file, start, end }) {
    file.dropPages(start, end);
    return STAGE_NEXT;
  },
};

export const gmemEnd: Stage = {
  name: 'invalidate-end',
  kvmFunction: 'kvm_gmem_invalidate_end',
  takes: LOCK_MMU_WRITE,
  reads: RES_GMEM | RES_SEQUENCE,
  writes: RES_SEQUENCE,
  run(hole) {
    if (!isBound(hole)) return STAGE_DONE;
    hole.vm.locks.acquire(LOCK_MMU_WRITE);
    mmuInvalidateEnd(hole.vm);
    hole.vm.locks.release(LOCK_MMU_WRITE);
    return STAGE_DONE;
  },
};

const gmemInvalidate = [gmemBegin, gmemZap, flushStage, gmemFlushed];

/** @kvm guest_memfd.c kvm_gmem_punch_hole */
export const punchHoleStages: readonly Stage[] = [...gmemInvalidate, gmemDrop, gmemEnd];

/** The mappings go, the pages stay (@kvm guest_memfd.c kvm_gmem_error_folio, kvm_gmem_release). */
export const gmemInvalidateStages: readonly Stage[] = [...gmemInvalidate, gmemEnd];
