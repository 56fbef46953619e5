/**
 * A vCPU's dirty ring (@kvm dirty_ring.c): KVM appends the frames that were written, userspace harvests them in place and marks them
 * for reset. The memory is the array of struct kvm_dirty_gfn that userspace maps: flags, slot (u32 each), offset (u64).
 */
import { hex, hiOf, loOf, numberOf } from '../../arch/halves.ts';
import { KVM_EXIT_DIRTY_RING_FULL } from '../kvm-run.ts';
import { checkRequest, makeRequest, REQ_DIRTY_RING_SOFT_FULL, type VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';

export const KVM_DIRTY_GFN_F_DIRTY = 1 << 0;
export const KVM_DIRTY_GFN_F_RESET = 1 << 1;
/** Entries kept free for what one exit can dirty. Processors with page-modification logging add its buffer. */
export const KVM_DIRTY_RING_RSVD_ENTRIES = 64;
export const KVM_DIRTY_RING_MAX_ENTRIES = 65536;
export const DIRTY_GFN_BYTES = 16;

/** @kvm dirty_ring.c kvm_dirty_ring_get_rsvd_entries; `cpuDirtyLogSize` is that of the processor's own log, 0 without one. */
export function dirtyRingRsvdEntries(cpuDirtyLogSize = 0): number {
  return KVM_DIRTY_RING_RSVD_ENTRIES + cpuDirtyLogSize;
}

export interface DirtyRingEntry {
  /** Address space in the upper 16 bits, slot id in the lower. */
  readonly slot: number;
  /** Page in the slot. */
  readonly offset: number;
}

export class DirtyRing {
  /** What userspace maps at KVM_DIRTY_LOG_PAGE_OFFSET. */
  readonly bytes: Uint8Array;
  private readonly words: Int32Array;
  /** Entries: a power of two. */
  readonly size: number;
  /** From this many used entries on, the vCPU does not run. */
  readonly softLimit: number;
  /** Next entry to fill, and next to reset; 32-bit counters that run freely. */
  dirtyIndex = 0;
  resetIndex = 0;
  /** Where this userspace harvests next. */
  private fetchIndex = 0;
  /** The vCPU's id. */
  readonly index: number;

  /** @param size entries @kvm dirty_ring.c kvm_dirty_ring_alloc */
  constructor(index: number, size: number, cpuDirtyLogSize = 0) {
    this.index = index;
    this.size = size;
    this.softLimit = size - dirtyRingRsvdEntries(cpuDirtyLogSize);
    this.bytes = new Uint8Array(size * DIRTY_GFN_BYTES);
    this.words = new Int32Array(this.bytes.buffer);
  }

  /** @kvm dirty_ring.c kvm_dirty_ring_used */
  get used(): number {
    return (this.dirtyIndex - this.resetIndex) >>> 0;
  }

  /** @kvm dirty_ring.c kvm_dirty_ring_soft_full */
  get softFull(): boolean {
    return this.used >= this.softLimit;
  }

  /** HOT */
  append(slot: number, offset: number): void {
    const at = (this.dirtyIndex & (this.size - 1)) << 2;
    this.words[at + 1] = slot;
    this.words[at + 2] = loOf(offset);
    this.words[at + 3] = hiOf(offset);
    this.words[at] = KVM_DIRTY_GFN_F_DIRTY;
    this.dirtyIndex = (this.dirtyIndex + 1) >>> 0;
  }

  /** What a userspace does: reads the dirty entries and marks each for reset. */
  harvest(): DirtyRingEntry[] {
    const entries: DirtyRingEntry[] = [];
    for (;;) {
      const at = (this.fetchIndex & (this.size - 1)) << 2;
      if ((this.words[at]! & (KVM_DIRTY_GFN_F_DIRTY | KVM_DIRTY_GFN_F_RESET)) !== KVM_DIRTY_GFN_F_DIRTY) return entries;
      entries.push({ slot: this.words[at + 1]! >>> 0, offset: numberOf(this.words[at + 2]!, this.words[at + 3]!) });
      this.words[at]! |= KVM_DIRTY_GFN_F_RESET;
      this.fetchIndex = (this.fetchIndex + 1) >>> 0;
    }
  }

  /** Next entry that userspace marked, taken out, or null. */
  takeReset(): DirtyRingEntry | null {
    const at = (this.resetIndex & (this.size - 1)) << 2;
    if ((this.words[at]! & KVM_DIRTY_GFN_F_RESET) === 0) return null;
    this.words[at] = 0;
    this.resetIndex = (this.resetIndex + 1) >>> 0;
    return { slot: this.words[at + 1]! >>> 0, offset: numberOf(this.words[at + 2]!, this.words[at + 3]!) };
  }
}

/** Appends a written page and asks the vCPU to stop when the ring is nearly full. @kvm dirty_ring.c kvm_dirty_ring_push. HOT */
export function dirtyRingPush(vcpu: VcpuState, slot: number, offset: number): void {
  const ring = vcpu.dirtyRing!;
  if (ring.used >= ring.size) vcpu.vm.log.warnOnOnce(true, 'kvm_dirty_ring_push', 'the ring is full');
  ring.append(slot, offset);
  if (vcpu.vm.trace.enabled) tracePush(vcpu.vm, ring, slot, offset);
  if (ring.softFull) makeRequest(vcpu, REQ_DIRTY_RING_SOFT_FULL);
}

function tracePush(vm: VmState, ring: DirtyRing, slot: number, offset: number): void {
  const text =
    `ring ${ring.index}: dirty ${hex(ring.dirtyIndex)} reset ${hex(ring.resetIndex)} ` +
    `slot ${slot} offset ${hex(offset)} (used ${ring.used})`;
  vm.trace.emit('kvm_dirty_ring_push', { text });
}

/**
 * Before entering the guest: true, with the exit set up, while the ring is nearly full.
 * @kvm dirty_ring.c kvm_dirty_ring_check_request
 */
export function dirtyRingCheckRequest(vcpu: VcpuState): boolean {
  if (!checkRequest(vcpu, REQ_DIRTY_RING_SOFT_FULL) || vcpu.dirtyRing === null || !vcpu.dirtyRing.softFull)
    return false;
  // Until userspace has reset entries, the next attempt ends here too.
  makeRequest(vcpu, REQ_DIRTY_RING_SOFT_FULL);
  vcpu.run.exitReason = KVM_EXIT_DIRTY_RING_FULL;
  if (vcpu.vm.trace.enabled) vcpu.vm.trace.emit('kvm_dirty_ring_exit', { text: `vcpu ${vcpu.id}` });
  return true;
}
