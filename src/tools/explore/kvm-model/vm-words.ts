/** What of a state is the VM's own, as words at its start: all but the actors and the page tables. */
import {
  RES_ATTRIBUTES,
  RES_DIRTY_LOG,
  RES_GMEM,
  RES_HOST,
  RES_NOTIFIER_COUNT,
  RES_SEQUENCE,
  RES_SLOTS,
  RES_SRCU,
  RES_TABLES,
} from '../../../kvm/actors/actor.ts';
import type { DirtyRing } from '../../../kvm/dirty/dirty-ring.ts';
import type { Memslot } from '../../../kvm/memslots/memslot.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import { restoreRing, ringWord } from './ring-word.ts';
import { gmemIndices } from './scene-frames.ts';
import type { SceneWorld } from './state.ts';
import { DATA_FRAMES } from './vm.ts';

/** Fixed words at the start of a state. */
const W_COUNTS = 0;
const W_RANGE_START = 1;
const W_RANGE_END = 2;
const W_STATS = 3;
const W_FRAMES = 4;
const W_ATTRIBUTES = 5;
const W_DIRTY = 6;
const W_MIXED = 7;
const W_MORE = 8;
const FIXED_WORDS = 9;
/** In W_MORE: KVM has warned. */
const BROKEN = 1 << 30;
const EMULATED_PRIVATE = 1 << 17;
const FIRST_BOUND = 1 << 18;
/** Which part of the state a word belongs to, as bits: one for each actor from REGION_ACTOR on. */
export const REGION_FIXED = 1 << 0;
export const REGION_SLOTS = 1 << 1;
export const REGION_HOST = 1 << 2;
export const REGION_TABLES = 1 << 3;
export const REGION_ATTRIBUTES = 1 << 4;
export const REGION_RINGS = 1 << 5;
export const REGION_ACTOR_SHIFT = 6;
export const REGION_ACTOR = 1 << REGION_ACTOR_SHIFT;
export const REGION_ACTORS = -REGION_ACTOR;

export class VmWords {
  /** How many there are. */
  readonly count: number;
  private readonly vm: VmState;
  private readonly state: SceneWorld;
  /** Addresses of the process behind the scene's frames, and pages of the guest_memfd. */
  private readonly hvas: readonly number[];
  private readonly gmemPages: readonly number[];
  /** Slots with a guest_memfd, at the start. */
  private readonly gmemSlots: readonly Memslot[];
  /** Ranges of frames that have one attribute throughout: bounds. */
  private readonly attributeBounds: readonly number[];
  /** First word of the host's page tables, and of the dirty rings. */
  private readonly hostWords: number;
  private readonly ringWords: number;
  private readonly rings: readonly DirtyRing[];

  constructor(state: SceneWorld, attributeBounds: readonly number[]) {
    const { vm } = state;
    this.vm = vm;
    this.state = state;
    this.attributeBounds = attributeBounds;
    this.hvas = [...state.hvas].sort((a, b) => a - b);
    this.gmemPages = gmemIndices(state);
    this.gmemSlots = vm.slots.sets[0]!.slots.filter((s) => s.gmem !== null);
    if (this.gmemSlots.length > 8) throw new Error('a scene has more than eight slots with guest_memfd');
    this.hostWords = FIXED_WORDS + 2 * vm.slots.count;
    this.ringWords = this.hostWords + this.hvas.length + this.gmemPages.length;
    this.rings = vm.vcpus.flatMap((v) => (v.dirtyRing === null ? [] : [v.dirtyRing]));
    this.count = this.ringWords + this.rings.length;
  }

  /** Writes into `regions` which part each word belongs to. */
  regions(regions: Int32Array): void {
    regions.fill(REGION_FIXED, 0, FIXED_WORDS);
    regions.fill(REGION_SLOTS, FIXED_WORDS, this.hostWords);
    regions.fill(REGION_HOST, this.hostWords, this.ringWords);
    regions.fill(REGION_RINGS, this.ringWords, this.count);
    regions[W_FRAMES] = REGION_HOST;
    regions[W_ATTRIBUTES] = REGION_ATTRIBUTES;
    regions[W_DIRTY] = REGION_SLOTS;
    regions[W_MIXED] = REGION_SLOTS;
  }

  // ---- capture ----

  /** Brings `live` up to date, as far as resources in `stale` have changed; the regions that this were. HOT */
  refresh(live: Int32Array, stale: number, broken: boolean): number {
    const { vm, state } = this;
    let touched = REGION_FIXED;
    this.refreshFixed(live, broken);
    if ((stale & (RES_HOST | RES_GMEM)) !== 0) {
      this.refreshHost(live);
      touched |= REGION_HOST;
    }
    if ((stale & RES_ATTRIBUTES) !== 0 && vm.hasPrivateMem) {
      let attributes = 0;
      const { attributeBounds } = this;
      for (let i = 0; i + 1 < attributeBounds.length; i++) {
        if (vm.attributes.private.has(attributeBounds[i]!)) attributes |= 1 << i;
      }
      live[W_ATTRIBUTES] = attributes;
      touched |= REGION_ATTRIBUTES;
    }
    if ((stale & RES_SLOTS) !== 0) {
      let w = FIXED_WORDS;
      for (let asId = 0; asId < vm.slots.count; asId++) {
        live[w++] = state.slots.active(asId);
        live[w++] = vm.slots.generation(asId);
      }
      live[W_MIXED] = state.slots.mixedBits();
      touched |= REGION_SLOTS;
    }
    if ((stale & (RES_SLOTS | RES_DIRTY_LOG)) !== 0) {
      live[W_DIRTY] = state.slots.dirtyBits();
      touched |= REGION_SLOTS;
    }
    if ((stale & RES_DIRTY_LOG) !== 0 && this.rings.length > 0) {
      for (let i = 0; i < this.rings.length; i++) live[this.ringWords + i] = ringWord(this.rings[i]!);
      touched |= REGION_RINGS;
    }
    return touched;
  }

  /* HOT */
  private refreshFixed(live: Int32Array, broken: boolean): void {
    const { vm, state } = this;
    const busy = vm.mmuInvalidateInProgress !== 0;
    let flags = 0;
    for (let asId = 0; asId < vm.slots.count; asId++) if (vm.slots.updateInProgress(asId)) flags |= 1 << asId;
    live[W_COUNTS] =
      (vm.mmuInvalidateSeq & 0x3ff) |
      (vm.mmuInvalidateInProgress << 10) |
      (vm.notifier.activeInvalidateCount << 13) |
      (flags << 16) |
      (vm.locks.srcuGrace << 18);
    live[W_RANGE_START] = busy ? vm.mmuInvalidateRangeStart : -1;
    live[W_RANGE_END] = busy ? vm.mmuInvalidateRangeEnd : -1;
    live[W_STATS] =
      (vm.stats.pages_4k & 0xffff) | (vm.stats.pages_2m << 16) | (vm.stats.pages_1g << 20) | (vm.mmu.tdpMmuPages << 24);
    live[W_MORE] =
      state.unreported |
      (vm.slots.nrDirtyLogging << 8) |
      (vm.mmu.mmuValidGen << 16) |
      (state.emulatedPrivate ? EMULATED_PRIVATE : 0) |
      this.boundSlots() |
      (broken ? BROKEN : 0);
  }

  /** Slots that still have their guest_memfd, as bits of W_MORE. */
  private boundSlots(): number {
    let bits = 0;
    for (let i = 0; i < this.gmemSlots.length; i++) {
      if (this.gmemSlots[i]!.gmem!.file !== null) bits |= FIRST_BOUND << i;
    }
    return bits;
  }

  /* HOT */
  private refreshHost(live: Int32Array): void {
    const { vm, state } = this;
    const { refs } = vm.host.pages;
    let frames = 0;
    for (let i = 0; i < DATA_FRAMES; i++) frames |= (refs[state.pages.data[i]!]! & 3) << (2 * i);
    live[W_FRAMES] = frames;
    let w = this.hostWords;
    for (let i = 0; i < this.hvas.length; i++) live[w++] = vm.mm.table.lookup(this.hvas[i]!);
    for (let i = 0; i < this.gmemPages.length; i++) live[w++] = state.gmem!.peekPage(this.gmemPages[i]!);
  }

  // ---- restore ----

  attributesOf(live: Int32Array): number {
    return live[W_ATTRIBUTES]!;
  }

  isBroken(live: Int32Array): boolean {
    return (live[W_MORE]! & BROKEN) !== 0;
  }

  /**
   * Makes the VM what `live` says, in the parts in `differ`; the parts that have to follow. `attributes`: the word as it was; `dependents`: the actors
   * that depend on what others change. HOT
   */
  restore(live: Int32Array, differ: number, attributes: number, dependents: number): number {
    const { vm } = this;
    let all = differ;
    if ((differ & REGION_FIXED) !== 0) {
      if (vm.mmuInvalidateSeq !== (live[W_COUNTS]! & 0x3ff)) all |= dependents;
      this.restoreFixed(live);
    }
    if (live[W_ATTRIBUTES] !== attributes)
      this.restoreAttributes(attributes ^ live[W_ATTRIBUTES]!, live[W_ATTRIBUTES]!);
    if ((differ & REGION_SLOTS) !== 0) {
      this.restoreSlots(live);
      all |= REGION_ACTORS;
    }
    if ((differ & REGION_HOST) !== 0) this.restoreHost(live);
    if ((differ & REGION_RINGS) !== 0) {
      for (let i = 0; i < this.rings.length; i++) restoreRing(this.rings[i]!, live[this.ringWords + i]!);
    }
    return all;
  }

  /* HOT */
  private restoreFixed(live: Int32Array): void {
    const { vm, state } = this;
    const counts = live[W_COUNTS]!;
    vm.mmuInvalidateSeq = counts & 0x3ff;
    vm.mmuInvalidateInProgress = (counts >>> 10) & 7;
    vm.notifier.activeInvalidateCount = (counts >>> 13) & 7;
    vm.locks.srcuGrace = counts >>> 18;
    for (let asId = 0; asId < vm.slots.count; asId++) {
      vm.slots.sets[asId]!.updateInProgress = (counts & (1 << (16 + asId))) !== 0;
    }
    vm.mmuInvalidateRangeStart = live[W_RANGE_START]!;
    vm.mmuInvalidateRangeEnd = live[W_RANGE_END]!;
    const stats = live[W_STATS]!;
    vm.stats.pages_4k = (stats << 16) >> 16;
    vm.stats.pages_2m = (stats >>> 16) & 15;
    vm.stats.pages_1g = (stats >>> 20) & 15;
    vm.mmu.tdpMmuPages = stats >>> 24;
    const more = live[W_MORE]!;
    state.unreported = more & 255;
    vm.slots.nrDirtyLogging = (more >>> 8) & 255;
    vm.mmu.mmuValidGen = (more >>> 16) & 1;
    state.emulatedPrivate = (more & EMULATED_PRIVATE) !== 0;
    for (let i = 0; i < this.gmemSlots.length; i++) {
      state.gmem!.setBound(this.gmemSlots[i]!, (more & (FIRST_BOUND << i)) !== 0);
    }
  }

  private restoreAttributes(changed: number, attributes: number): void {
    const { attributeBounds, vm } = this;
    if (!vm.hasPrivateMem) return;
    for (let i = 0; i + 1 < attributeBounds.length; i++) {
      if ((changed & (1 << i)) === 0) continue;
      vm.attributes.private.set(attributeBounds[i]!, attributeBounds[i + 1]!, (attributes & (1 << i)) !== 0);
    }
  }

  private restoreSlots(live: Int32Array): void {
    const { vm, state } = this;
    let w = FIXED_WORDS;
    for (let asId = 0; asId < vm.slots.count; asId++, w += 2) {
      state.slots.restoreActive(asId, live[w]!);
      vm.slots.sets[asId]!.generation = live[w + 1]!;
    }
    state.slots.restoreDirtyBits(live[W_DIRTY]!);
    state.slots.restoreMixedBits(live[W_MIXED]!);
  }

  /* HOT */
  private restoreHost(live: Int32Array): void {
    const { vm, state } = this;
    const { refs } = vm.host.pages;
    const frames = live[W_FRAMES]!;
    for (let i = 0; i < DATA_FRAMES; i++) refs[state.pages.data[i]!] = (frames >>> (2 * i)) & 3;
    const { table } = vm.mm;
    let w = this.hostWords;
    for (let i = 0; i < this.hvas.length; i++, w++) {
      const word = live[w]!;
      if (table.lookup(this.hvas[i]!) !== word) table.replace(this.hvas[i]!, Math.max(1, table.level), word);
    }
    for (let i = 0; i < this.gmemPages.length; i++, w++) state.gmem!.placePage(this.gmemPages[i]!, live[w]!);
  }

  // ---- to check footprints by ----

  /** Resources in which two states differ, as far as these words go. */
  changed(a: Int32Array, b: Int32Array): number {
    let mask = 0;
    const differ = (w: number, bits = -1): boolean => ((a[w]! ^ b[w]!) & bits) !== 0;
    if (differ(W_COUNTS, 0x1fff) || differ(W_RANGE_START) || differ(W_RANGE_END)) mask |= RES_SEQUENCE;
    if (differ(W_COUNTS, 7 << 13)) mask |= RES_NOTIFIER_COUNT;
    if (differ(W_COUNTS, 3 << 16) || differ(W_MIXED)) mask |= RES_SLOTS;
    if (differ(W_COUNTS, -1 << 18)) mask |= RES_SRCU;
    if (differ(W_STATS)) mask |= RES_TABLES;
    if (differ(W_ATTRIBUTES)) mask |= RES_ATTRIBUTES;
    if (differ(W_DIRTY) || differ(W_MORE, 0xffff)) mask |= RES_DIRTY_LOG;
    if (differ(W_MORE, EMULATED_PRIVATE)) mask |= RES_HOST;
    if (differ(W_MORE, 255 << 18)) mask |= RES_GMEM;
    let w = FIXED_WORDS;
    while (w < this.hostWords) if (differ(w++)) mask |= RES_SLOTS;
    for (let i = 0; i < this.hvas.length; i++) if (differ(w++)) mask |= RES_HOST;
    for (let i = 0; i < this.gmemPages.length; i++) if (differ(w++)) mask |= RES_GMEM;
    for (let i = 0; i < this.rings.length; i++) if (differ(w++)) mask |= RES_DIRTY_LOG;
    // Frames are the host's or the guest_memfd's.
    if (differ(W_FRAMES) && (mask & RES_GMEM) === 0) mask |= RES_HOST;
    return mask;
  }
}
