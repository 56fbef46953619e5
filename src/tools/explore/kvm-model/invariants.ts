/** What must hold in every state of every scene. */
import { PTE_FRAME_MASK, PTE_PRESENT } from '../../../host/page-table.ts';
import { memIsPrivate } from '../../../kvm/attributes.ts';
import { slotHva } from '../../../kvm/memslots/hva.ts';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEMSLOT_INVALID, type Memslot } from '../../../kvm/memslots/memslot.ts';
import { type MemslotSet, slotInSpace } from '../../../kvm/memslots/memslots.ts';
import { INVALID_ROOT } from '../../../kvm/mmu/mmu-context.ts';
import { ROLE_INVALID, roleAsId } from '../../../kvm/mmu/role.ts';
import {
  isExecutable,
  isMmioSpte,
  isShadowPresent,
  isWritable,
  MMIO_SPTE_GEN_MASK,
  mmioSpteGeneration,
} from '../../../kvm/mmu/spte.ts';
import { gfnRoundForLevel, pagesPerLevel } from '../../../kvm/mmu/tdp-iter.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import { ringHas } from './ring-word.ts';
import type { SceneState } from './state.ts';
import { TLB_EXEC, TLB_VALID, TLB_WRITE, tlbFrame } from './tlb-word.ts';

// 1 is BUG, of scene-model.ts.
const SPTE_FREED = 2;
const SPTE_STALE = 3;
const TLB_FREED = 4;
const TLB_STALE = 5;
const SHARED_OF_PRIVATE = 6;
const PRIVATE_OF_SHARED = 7;
const NO_SLOT = 8;
const MMIO_ENTRY = 9;
const MMIO_CACHE = 10;
const HUGE_ATTRIBUTES = 11;
const HUGE_SLOT = 12;
const TLB_EXCEEDS = 13;
const DIRTY_LOST = 14;
const STATISTICS = 15;
const PRIVATE_EMULATION = 16;
const NX_HUGE = 17;

/** Invariant n + 1 in words. */
export const invariantTexts: readonly string[] = [
  "KVM's own checks hold: nothing it warns of or calls a bug",
  'no entry maps a frame that has been freed',
  'no entry maps a frame that its gfn no longer owns',
  'no TLB holds a frame that has been freed',
  'no TLB holds a frame that its gfn no longer owns',
  'a private gfn is not mapped to its shared frame',
  'a shared gfn is not mapped to its private frame',
  'no mapping of a gfn that no slot has',
  'no MMIO entry that counts where a slot is',
  "no vCPU's MMIO cache counts where a slot is",
  'every huge entry covers one attribute',
  'every huge entry lies in one slot',
  'with nobody at work, no TLB allows what the page tables do not',
  'a page that the guest wrote is in the dirty log or a dirty ring, or userspace was told',
  'the counts of mapped pages and of page tables are right',
  'no access to a private gfn is emulated (where the scene forbids it)',
  'no huge entry is executable while the NX workaround is on',
];

/** Slots of an address space; where there is only one, those of that. */
function slotsOf(vm: VmState, asId: number): MemslotSet {
  return vm.slots.sets[asId] ?? vm.slots.sets[0]!;
}

/** The frame of the process behind `gfn`, -1 for none. */
function hostFrame(state: SceneState, slot: Memslot, gfn: number): number {
  const { table } = state.vm.mm;
  const word = table.lookup(slotHva(slot, gfn));
  if ((word & PTE_PRESENT) === 0) return -1;
  const first = word & PTE_FRAME_MASK;
  if (table.level !== 2) return first;
  return first + (Math.floor(slotHva(slot, gfn) / 4096) % 512);
}

function gmemFrame(slot: Memslot, gfn: number): number {
  const { gmem } = slot;
  if (gmem === null || gmem.file === null) return -1;
  return gmem.file.peekPage(gfn - slot.baseGfn + gmem.pgoff);
}

function isFreed(state: SceneState, pfn: number): boolean {
  return state.pages.isData(pfn) && state.vm.host.pages.refs[pfn] === 0;
}

/** 0 or the number of what is wrong with `gfn` being mapped to `pfn` in address space `asId`. */
function mappingWrong(state: SceneState, asId: number, gfn: number, pfn: number, freed: number, stale: number): number {
  const { vm } = state;
  if (isFreed(state, pfn)) return freed;
  const slot = slotInSpace(vm, asId, gfn);
  if (slot === null) return NO_SLOT;
  // On its way out: its mappings go next, and only then is anything of it given away.
  if ((slot.flags & KVM_MEMSLOT_INVALID) !== 0) return 0;
  const shared = hostFrame(state, slot, gfn);
  const own = gmemFrame(slot, gfn);
  if (pfn !== shared && pfn !== own) return stale;
  if (!vm.hasPrivateMem) return 0;
  const isPrivate = memIsPrivate(vm, gfn);
  if (isPrivate && pfn === shared) return SHARED_OF_PRIVATE;
  return !isPrivate && pfn === own ? PRIVATE_OF_SHARED : 0;
}

function hugeWrong(state: SceneState, asId: number, gfn: number, level: number): number {
  const { vm } = state;
  const start = gfnRoundForLevel(gfn, level);
  const end = start + pagesPerLevel(level);
  const slot = slotInSpace(vm, asId, gfn);
  if (slot !== null && (start < slot.baseGfn || end > slot.baseGfn + slot.npages)) return HUGE_SLOT;
  if (vm.hasPrivateMem && !vm.attributes.private.uniform(start, end, memIsPrivate(vm, gfn))) return HUGE_ATTRIBUTES;
  return 0;
}

/** A root through which a vCPU can reach memory now, or will when it is entered next. */
function reachable(state: SceneState, r: number): boolean {
  const root = state.vm.mmu.tdpMmuRoots[r]!;
  if ((root.role & ROLE_INVALID) === 0) return true;
  return state.vcpus.some((v) => v.vcpu.inGuest && v.vcpu.mmu.mmu.root.pfn === root.pfn);
}

function rootsWrong(state: SceneState): number {
  const { vm, tables, gfns } = state;
  const m = vm.mmu.masks;
  for (let r = 0; r < tables.roots; r++) {
    if (!reachable(state, r)) continue;
    const asId = roleAsId(vm.mmu.tdpMmuRoots[r]!.role);
    for (let g = 0; g < gfns.length; g++) {
      const leaf = tables.leaf(r, g);
      if (leaf.level === 0) continue;
      const gfn = gfns[g]!;
      if (isShadowPresent(leaf.lo)) {
        const wrong = mappingWrong(state, asId, gfn, leaf.pfn, SPTE_FREED, SPTE_STALE);
        if (wrong !== 0) return wrong;
        if (leaf.level > 1) {
          const huge = hugeWrong(state, asId, gfn, leaf.level);
          if (huge !== 0) return huge;
          if (vm.mmu.nxHugePages && isExecutable(m, leaf.lo, leaf.hi)) return NX_HUGE;
        }
      } else if (vm.mmu.enableMmioCaching && isMmioSpte(m, leaf.lo, leaf.hi)) {
        const set = slotsOf(vm, asId);
        const counts =
          !set.updateInProgress && mmioSpteGeneration(leaf.lo, leaf.hi) === set.generation % (MMIO_SPTE_GEN_MASK + 1);
        if (counts && slotInSpace(vm, asId, gfn) !== null) return MMIO_ENTRY;
      }
    }
  }
  return 0;
}

function tlbsWrong(state: SceneState): number {
  const { gfns } = state;
  for (const v of state.vcpus) {
    const asId = v.vcpu.smm ? 1 : 0;
    const set = slotsOf(state.vm, asId);
    const { mmioGfn, mmioGen } = v.vcpu.mmu;
    if (
      mmioGfn !== 0 &&
      mmioGen === set.generation &&
      !set.updateInProgress &&
      slotInSpace(state.vm, asId, mmioGfn) !== null
    )
      return MMIO_CACHE;
    if (!v.tlbLive) continue;
    for (let g = 0; g < gfns.length; g++) {
      const word = v.tlb[g]!;
      if ((word & TLB_VALID) === 0) continue;
      const wrong = mappingWrong(state, asId, gfns[g]!, tlbFrame(word), TLB_FREED, TLB_STALE);
      if (wrong !== 0) return wrong;
    }
  }
  return 0;
}

/** No kernel-side actor is in the middle of something. */
function quiet(state: SceneState): boolean {
  const { kernels } = state;
  for (let i = 0; i < kernels.length; i++) if (kernels[i]!.started && !kernels[i]!.finished) return false;
  return true;
}

function tlbExceedsTables(state: SceneState): boolean {
  const { tables, gfns } = state;
  const { masks } = state.vm.mmu;
  for (const v of state.vcpus) {
    const root = v.vcpu.mmu.mmu.root.pfn;
    if (!v.tlbLive || v.vcpu.requests !== 0 || root === INVALID_ROOT) continue;
    const r = tables.rootIndex(root);
    for (let g = 0; g < gfns.length; g++) {
      const word = v.tlb[g]!;
      if ((word & TLB_VALID) === 0) continue;
      const leaf = tables.leaf(r, g);
      if (leaf.pfn !== tlbFrame(word)) return true;
      if ((word & TLB_WRITE) !== 0 && !isWritable(leaf.lo)) return true;
      if ((word & TLB_EXEC) !== 0 && !isExecutable(masks, leaf.lo, leaf.hi)) return true;
    }
  }
  return false;
}

/** At the end: what the guest wrote and nobody reported is still in the bitmap. */
function dirtyLost(state: SceneState): boolean {
  if (state.unreported === 0) return false;
  for (const actor of state.actors) if (!actor.finished) return false;
  for (let g = 0; g < state.gfns.length; g++) {
    if ((state.unreported & (1 << g)) === 0) continue;
    const gfn = state.gfns[g]!;
    const slot = state.vm.slots.sets[0]!.find(gfn);
    if (slot === null || (slot.flags & KVM_MEM_LOG_DIRTY_PAGES) === 0) continue;
    const page = gfn - slot.baseGfn;
    if (state.vm.dirtyRingSize !== 0) {
      if (!state.vm.vcpus.some((v) => v.dirtyRing !== null && ringHas(v.dirtyRing, slot.id, page))) return true;
      continue;
    }
    if (slot.dirtyBitmap === null) continue;
    if (((slot.dirtyBitmap[page >>> 3]! >>> (page & 7)) & 1) === 0) return true;
  }
  return false;
}

function statisticsWrong(state: SceneState): boolean {
  const { vm, tables } = state;
  const { stats } = vm;
  return (
    stats.pages_4k !== tables.mapped[1] ||
    stats.pages_2m !== tables.mapped[2] ||
    stats.pages_1g !== tables.mapped[3] ||
    vm.mmu.tdpMmuPages !== tables.tables
  );
}

/** 0, or the number of the first invariant that does not hold. The tables have been scanned. HOT */
export function firstViolation(state: SceneState): number {
  const wrong = rootsWrong(state);
  if (wrong !== 0) return wrong;
  const tlb = tlbsWrong(state);
  if (tlb !== 0) return tlb;
  if (statisticsWrong(state)) return STATISTICS;
  if (state.emulatedPrivate) return PRIVATE_EMULATION;
  if (quiet(state) && tlbExceedsTables(state)) return TLB_EXCEEDS;
  return dirtyLost(state) ? DIRTY_LOST : 0;
}
