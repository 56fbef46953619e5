/** From a guest frame to the leaves that map it (@kvm mmu.c struct kvm_rmap_head, rmap_add, rmap_remove). */
import { PG_LEVEL_4K } from '../../../arch/paging.ts';
import { gfnToMemslot, type Memslot } from '../../memslots/memslots.ts';
import type { VmState } from '../../vm-state.ts';
import { KVM_MAX_HUGEPAGE_LEVEL, type SlotArch } from '../lpage-info.ts';
import { roleAsId, roleLevel } from '../role.ts';
import { hugeFrame } from '../tdp-iter.ts';
import { updatePageStats } from '../tdp-mmu/changed-spte.ts';
import { flushRemoteTlbsGfn } from '../tlb-flush.ts';
import { mmuSpteClearTrackBits } from './spte-store.ts';
import { pageGetGfn, pageSetTranslation, spteIndexOf, sptepToSp } from './translation.ts';

/** Heads that are made together when one of them is used. */
const CHUNK_SHIFT = 9;
const CHUNK = 1 << CHUNK_SHIFT;

/** Leaves of one frame beyond which all go rather than one more come. @kvm mmu.c RMAP_RECYCLE_THRESHOLD */
const RMAP_RECYCLE_THRESHOLD = 1000;

/** The heads of one slot and level, by index in the slot. */
export class RmapHeads {
  private readonly chunks = new Map<number, Int32Array>();

  get(index: number): number {
    const chunk = this.chunks.get(Math.floor(index / CHUNK));
    return chunk === undefined ? 0 : chunk[index % CHUNK]!;
  }

  set(index: number, head: number): void {
    const n = Math.floor(index / CHUNK);
    let chunk = this.chunks.get(n);
    if (chunk === undefined) {
      if (head === 0) return;
      chunk = new Int32Array(CHUNK);
      this.chunks.set(n, chunk);
    }
    chunk[index % CHUNK] = head;
  }

  /** The next index in [from, to] whose set is not empty, or -1. */
  next(from: number, to: number): number {
    let i = from;
    while (i <= to) {
      const n = Math.floor(i / CHUNK);
      const chunk = this.chunks.get(n);
      const end = Math.min(to, n * CHUNK + CHUNK - 1);
      if (chunk !== undefined) {
        for (let j = i; j <= end; j++) if (chunk[j % CHUNK] !== 0) return j;
      }
      i = end + 1;
    }
    return -1;
  }
}

/** The VM keeps rmaps: always without the TDP MMU, with it once something is shadowed. @kvm kvm_host.h kvm_memslots_have_rmaps */
export function memslotsHaveRmaps(vm: VmState): boolean {
  return !vm.mmu.tdpMmuEnabled || vm.mmu.shadowRootAllocated;
}

function headsOf(arch: SlotArch, level: number): RmapHeads {
  let heads = arch.rmap[level - 1];
  if (heads === undefined) {
    heads = new RmapHeads();
    arch.rmap[level - 1] = heads;
  }
  return heads;
}

/** Index of `gfn`'s page of `level` in the slot. @kvm kvm_host.h gfn_to_index */
function indexIn(slot: Memslot, gfn: number, level: number): number {
  return hugeFrame(gfn, level) - hugeFrame(slot.baseGfn, level);
}

/** The new leaf at `sptep` maps `gfn`. @kvm mmu.c __rmap_add */
export function rmapAdd(vm: VmState, slot: Memslot, sptep: number, gfn: number, access: number): void {
  const sp = sptepToSp(vm, sptep);
  const level = roleLevel(sp.role);
  pageSetTranslation(vm, sp, spteIndexOf(sptep), gfn, access);
  updatePageStats(vm, level, 1);
  const heads = headsOf(slot.arch!, level);
  const index = indexIn(slot, gfn, level);
  const before = heads.get(index);
  const count = vm.mmu.pteLists.count(before);
  const head = vm.mmu.pteLists.add(before, sptep);
  heads.set(index, head);
  if (count > vm.stats.max_mmu_rmap_size) vm.stats.max_mmu_rmap_size = count;
  if (count <= RMAP_RECYCLE_THRESHOLD) return;
  zapHead(vm, heads, index);
  flushRemoteTlbsGfn(vm, gfn, level);
}

/** @kvm mmu.c rmap_remove */
function rmapRemove(vm: VmState, sptep: number): void {
  const sp = sptepToSp(vm, sptep);
  const level = roleLevel(sp.role);
  const gfn = pageGetGfn(sp, spteIndexOf(sptep));
  const slot = gfnToMemslot(vm, gfn, roleAsId(sp.role));
  if (slot === null) throw new Error(`a leaf maps gfn 0x${gfn.toString(16)}, which has no slot`);
  const heads = headsOf(slot.arch!, level);
  const index = indexIn(slot, gfn, level);
  heads.set(index, vm.mmu.pteLists.remove(heads.get(index), sptep));
}

/** Clears a leaf, or whatever else the entry holds. @kvm mmu.c drop_spte */
export function dropSpte(vm: VmState, sptep: number): void {
  if (mmuSpteClearTrackBits(vm, sptep)) rmapRemove(vm, sptep);
}

/**
 * An entry that maps nothing leaves the set that it is still in: what a revision without the rule mmioDropsPresent loses track of. For
 * tools that put a VM back into a known state.
 */
export function forgetLostEntry(vm: VmState, sptep: number): void {
  const sp = sptepToSp(vm, sptep);
  const level = roleLevel(sp.role);
  const gfn = pageGetGfn(sp, spteIndexOf(sptep));
  const slot = gfnToMemslot(vm, gfn, roleAsId(sp.role));
  if (slot === null) return;
  const heads = headsOf(slot.arch!, level);
  const index = indexIn(slot, gfn, level);
  const head = heads.get(index);
  if (!vm.mmu.pteLists.entries(head).includes(sptep)) return;
  heads.set(index, vm.mmu.pteLists.remove(head, sptep));
  updatePageStats(vm, level, -1);
}

/** @kvm mmu.c kvm_zap_all_rmap_sptes */
function zapHead(vm: VmState, heads: RmapHeads, index: number): boolean {
  const head = heads.get(index);
  if (head === 0) return false;
  for (const sptep of vm.mmu.pteLists.entries(head)) mmuSpteClearTrackBits(vm, sptep);
  vm.mmu.pteLists.drop(head);
  heads.set(index, 0);
  return true;
}

/** The leaves of `level` that map `gfn`. @kvm mmu.c gfn_to_rmap */
export function rmapEntries(vm: VmState, slot: Memslot, gfn: number, level: number): readonly number[] {
  return vm.mmu.pteLists.entries(headsOf(slot.arch!, level).get(indexIn(slot, gfn, level)));
}

/**
 * Calls `fn` with the leaves of every frame of [start, end) that has some, level by level from `minLevel` to `maxLevel`. True when one
 * call answered so. @kvm mmu.c __walk_slot_rmaps
 */
export function walkSlotRmaps(
  vm: VmState,
  slot: Memslot,
  minLevel: number,
  maxLevel: number,
  start: number,
  end: number,
  fn: (vm: VmState, sptes: readonly number[]) => boolean,
): boolean {
  let result = false;
  for (let level = minLevel; level <= maxLevel; level++) {
    const heads = headsOf(slot.arch!, level);
    const last = indexIn(slot, end - 1, level);
    for (let i = heads.next(indexIn(slot, start, level), last); i >= 0; i = heads.next(i + 1, last)) {
      if (fn(vm, vm.mmu.pteLists.entries(heads.get(i)))) result = true;
    }
  }
  return result;
}

/** Clears every leaf that maps something of [start, end). True when there was one. @kvm mmu.c __kvm_rmap_zap_gfn_range */
export function rmapZapGfnRange(vm: VmState, slot: Memslot, start: number, end: number): boolean {
  let flush = false;
  for (let level = PG_LEVEL_4K; level <= KVM_MAX_HUGEPAGE_LEVEL; level++) {
    const heads = headsOf(slot.arch!, level);
    const last = indexIn(slot, end - 1, level);
    for (let i = heads.next(indexIn(slot, start, level), last); i >= 0; i = heads.next(i + 1, last)) {
      if (zapHead(vm, heads, i)) flush = true;
    }
  }
  return flush;
}
