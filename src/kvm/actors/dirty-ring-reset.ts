/**
 * KVM_RESET_DIRTY_RINGS: the entries that userspace has harvested are taken back and their pages write-protected again, neighbours of 64 pages
 * together (@kvm dirty_ring.c kvm_dirty_ring_reset, kvm_main.c kvm_vm_ioctl_reset_dirty_pages).
 */
import { hex } from '../../arch/halves.ts';
import type { DirtyRing, DirtyRingEntry } from '../dirty/dirty-ring.ts';
import { PageMask } from '../dirty/page-mask.ts';
import { LOCK_MMU_WRITE, LOCK_SLOTS } from '../locks.ts';
import { KVM_USER_MEM_SLOTS } from '../memslots/memslot.ts';
import { enableLogDirtyPtMasked } from '../mmu/slot-hooks.ts';
import { flushRemoteTlbs } from '../mmu/tlb-flush.ts';
import type { VmState } from '../vm-state.ts';
import {
  type ActorStage,
  type FlushContext,
  RES_DIRTY_LOG,
  RES_REQUESTS,
  RES_SLOTS,
  RES_TABLES,
  STAGE_AGAIN,
  STAGE_DONE,
  STAGE_NEXT,
} from './actor.ts';
import { lastFlushedStage } from './flush.ts';

export class DirtyRingReset implements FlushContext {
  /** Entries taken back from all rings. */
  cleared = 0;
  /** vCPU whose ring is next, as an index. */
  ring = 0;
  /** The pages to protect together: slot (address space in the upper half), page of bit 0, and which. */
  slot = 0;
  offset = 0;
  readonly mask = new PageMask();
  /** An entry that was taken and is not one of them. */
  private next: DirtyRingEntry | null = null;
  readonly vm: VmState;

  constructor(vm: VmState) {
    this.vm = vm;
  }

  get flush(): boolean {
    return this.cleared > 0;
  }

  get locals(): number {
    return (this.flush ? 1 : 0) | (this.ring << 1);
  }

  set locals(bits: number) {
    this.cleared = bits & 1;
    this.ring = bits >>> 1;
    this.next = null;
  }

  /** Takes the next pages that are to be protected together out of `ring`. False: there are none left. */
  take(ring: DirtyRing): boolean {
    let found = this.next !== null;
    if (this.next !== null) this.start(this.next);
    this.next = null;
    for (let entry = ring.takeReset(); entry !== null; entry = ring.takeReset()) {
      this.cleared++;
      if (!found) this.start(entry);
      else if (!this.joins(entry)) {
        this.next = entry;
        break;
      }
      found = true;
    }
    return found;
  }

  private start(entry: DirtyRingEntry): void {
    this.slot = entry.slot;
    this.offset = entry.offset;
    this.mask.restart();
  }

  private joins(entry: DirtyRingEntry): boolean {
    const delta = entry.offset - this.offset;
    if (entry.slot !== this.slot) return false;
    if (delta >= 0 && delta < 64) {
      this.mask.set(delta);
      return true;
    }
    // An earlier page joins when no marked page would be shifted out.
    if (delta <= -64 || delta >= 0 || this.mask.last() - delta >= 64) return false;
    this.offset = entry.offset;
    this.mask.shiftUp(-delta);
    this.mask.set(0);
    return true;
  }
}

type Stage = ActorStage<DirtyRingReset>;

export const ringLock: Stage = {
  name: 'slots-lock',
  kvmFunction: 'kvm_vm_ioctl_reset_dirty_pages',
  takes: LOCK_SLOTS,
  reads: 0,
  writes: 0,
  run({ vm }) {
    vm.locks.acquire(LOCK_SLOTS);
    return STAGE_NEXT;
  },
};

/** From here on, the ring has room for as many entries again. */
export const ringTake: Stage = {
  name: 'take-entries',
  kvmFunction: 'kvm_dirty_ring_reset',
  takes: 0,
  reads: RES_DIRTY_LOG,
  writes: RES_DIRTY_LOG,
  run(reset) {
    const { vm } = reset;
    for (; reset.ring < vm.vcpus.length; reset.ring++) {
      const { dirtyRing } = vm.vcpus[reset.ring]!;
      if (dirtyRing === null) continue;
      if (reset.take(dirtyRing)) return STAGE_NEXT;
      if (vm.trace.enabled) traceReset(vm, dirtyRing);
    }
    return 1;
  },
};

function traceReset(vm: VmState, ring: DirtyRing): void {
  const text = `ring ${ring.index}: dirty ${hex(ring.dirtyIndex)} reset ${hex(ring.resetIndex)} (used ${ring.used})`;
  vm.trace.emit('kvm_dirty_ring_reset', { text });
}

/** Userspace owns the entries: what does not name pages of a slot is ignored. */
export const ringProtect: Stage = {
  name: 'write-protect',
  kvmFunction: 'kvm_reset_dirty_gfn',
  takes: LOCK_MMU_WRITE,
  loops: true,
  reads: RES_SLOTS | RES_TABLES,
  writes: RES_TABLES,
  run({ vm, slot, offset, mask }) {
    const asId = slot >>> 16;
    const id = slot & 0xffff;
    if (asId >= vm.slots.count || id >= KVM_USER_MEM_SLOTS) return STAGE_AGAIN;
    const memslot = vm.slots.sets[asId]!.idToMemslot(id);
    if (memslot === null || offset >= memslot.npages || offset + mask.last() >= memslot.npages) return STAGE_AGAIN;
    vm.locks.acquire(LOCK_MMU_WRITE);
    enableLogDirtyPtMasked(vm, memslot, offset, mask.lo, mask.hi);
    vm.locks.release(LOCK_MMU_WRITE);
    return STAGE_AGAIN;
  },
};

export const ringUnlock: Stage = {
  ...ringLock,
  name: 'slots-unlock',
  takes: 0,
  run({ vm }) {
    vm.locks.release(LOCK_SLOTS);
    return STAGE_NEXT;
  },
};

export const ringFlush: Stage = {
  name: 'flush',
  kvmFunction: 'kvm_flush_remote_tlbs',
  takes: 0,
  reads: 0,
  writes: RES_REQUESTS,
  run({ vm, flush }) {
    if (!flush) return STAGE_DONE;
    flushRemoteTlbs(vm);
    return STAGE_NEXT;
  },
};

/** @kvm kvm_main.c kvm_vm_ioctl_reset_dirty_pages */
export const dirtyRingResetStages: readonly Stage[] = [
  ringLock,
  ringTake,
  ringProtect,
  ringUnlock,
  ringFlush,
  lastFlushedStage,
];
