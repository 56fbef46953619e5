/** What must hold in every state of every scene under shadow paging. */
import { PT_PAGE_SIZE_MASK, PT_PRESENT_MASK, PT_WRITABLE_MASK, ptePfn } from '../../../arch/paging.ts';
import { KVM_MEMSLOT_INVALID } from '../../../kvm/memslots/memslot.ts';
import { INVALID_ROOT } from '../../../kvm/mmu/mmu-context.ts';
import { isObsoleteSp } from '../../../kvm/mmu/obsolete.ts';
import { ACC_WRITE_MASK, ROLE_DIRECT, ROLE_INVALID, roleAccess, roleAsId, roleLevel } from '../../../kvm/mmu/role.ts';
import { rmapEntries } from '../../../kvm/mmu/shadow/rmap.ts';
import { pageGetGfn, spHasGptes, sptepOf } from '../../../kvm/mmu/shadow/translation.ts';
import type { ShadowPage } from '../../../kvm/mmu/shadow-page.ts';
import {
  isLargePte,
  isMmioSpte,
  isShadowPresent,
  isWritable,
  MMIO_SPTE_GEN_MASK,
  mmioSpteGeneration,
  mmioSpteGfn,
  sptePfn,
} from '../../../kvm/mmu/spte.ts';
import { TLB_VALID, TLB_WRITE, tlbFrame } from '../kvm-model/tlb-word.ts';
import { entryOfPage } from './guest-tables.ts';
import type { ShadowState } from './state.ts';
import type { ShadowVcpu } from './vcpu.ts';
import { PHASE_TRACK } from './vcpu-phase.ts';

// 1 is BUG, of scene-model.ts.
const SPTE_FREED = 2;
const SPTE_STALE = 3;
const NO_SLOT = 4;
const TLB_FREED = 5;
const TLB_STALE = 6;
const STALE_USE = 7;
const DISAGREES = 8;
const TRACKED_WRITABLE = 9;
const RMAP = 10;
const PARENTS = 11;
const MMIO_ENTRY = 12;
const TLB_EXCEEDS = 13;
const COUNTS = 14;
const UNUSED_MAPS = 15;

/** Invariant n + 1 in words. */
export const shadowInvariantTexts: readonly string[] = [
  "KVM's own checks hold: nothing it warns of or calls a bug",
  'no entry maps a frame that has been freed',
  'no entry maps a frame that its gfn no longer owns',
  'no mapping of a gfn that no slot has',
  'no TLB holds a frame that has been freed',
  'no TLB holds a frame that no gfn owns',
  'after INVLPG, or a load of CR3, no translation of before is used',
  "where a table is write-protected, its shadow agrees with the guest's entries",
  'no entry is writable whose page holds a table that must not be written',
  'what leads from a frame to its entries leads to exactly those',
  'every table is reached from where it says it hangs, and only from there',
  'no MMIO entry that counts where a slot is',
  'with nobody at work, no TLB allows what the shadow tables do not',
  'the counts of mapped pages and of shadow pages are right',
  'a table that was taken out of use has no entries',
];

function isFreed(state: ShadowState, pfn: number): boolean {
  return state.pages.isData(pfn) && state.vm.host.pages.refs[pfn] === 0;
}

/** An entry maps `gfn` to `pfn` in address space `asId`: 0, or what is wrong. */
function leafWrong(state: ShadowState, asId: number, gfn: number, pfn: number): number {
  if (isFreed(state, pfn)) return SPTE_FREED;
  const slot = state.vm.slots.sets[asId]!.find(gfn);
  if (slot === null) return NO_SLOT;
  if ((slot.flags & KVM_MEMSLOT_INVALID) !== 0) return 0;
  return state.hostFrame(asId, gfn) === pfn ? 0 : SPTE_STALE;
}

function mmioWrong(state: ShadowState, asId: number, lo: number, hi: number): number {
  const { vm } = state;
  const set = vm.slots.sets[asId]!;
  const generation = set.generation % (MMIO_SPTE_GEN_MASK + 1);
  const counts = !set.updateInProgress && mmioSpteGeneration(lo, hi) === generation;
  return counts && set.find(mmioSpteGfn(vm.mmu.masks, lo, hi)) !== null ? MMIO_ENTRY : 0;
}

/** Somebody's emulated write to the table has reached memory, and not yet the MMU. */
function writeUnderWay(state: ShadowState, gfn: number): boolean {
  return state.vcpus.some((v) => v.phase === PHASE_TRACK && Math.floor(v.emulatedGpa / 4096) === gfn);
}

/** The entry at `index` of a page that shadows a table: does it say what the guest's entry says? */
function disagrees(state: ShadowState, sp: ShadowPage, index: number, lo: number, hi: number): boolean {
  const t = state.guest.tableOf(sp.gfn);
  if (t < 0 || state.guest.wroteUserspace(sp.gfn, index)) return false;
  const { i32 } = state.vm.memory;
  const at = (state.guest.tables[t]!.pfn << 10) | (index << 1);
  const gpteLo = i32[at]!;
  if ((gpteLo & PT_PRESENT_MASK) === 0) return true;
  const gfn = ptePfn(gpteLo, i32[at + 1]!);
  const level = roleLevel(sp.role);
  const rights = roleAccess(sp.role);
  if (level > 1 && !isLargePte(lo)) {
    const child = state.vm.mmu.shadowPage(sptePfn(lo, hi));
    const direct = (gpteLo & PT_PAGE_SIZE_MASK) !== 0;
    if (((child.role & ROLE_DIRECT) !== 0) !== direct || child.gfn !== gfn) return true;
    return (roleAccess(child.role) & ACC_WRITE_MASK) !== 0 && (gpteLo & rights & PT_WRITABLE_MASK) === 0;
  }
  return pageGetGfn(sp, index) !== gfn || (isWritable(lo) && (gpteLo & PT_WRITABLE_MASK) === 0);
}

/** The page at `gfn` must not be written: an upper table is in it, or one that is in step with its shadow. */
function mustNotBeWritten(state: ShadowState, gfn: number): boolean {
  for (const sp of state.shadow.list) {
    if (sp.gfn !== gfn || !spHasGptes(sp) || isObsoleteSp(state.vm, sp)) continue;
    if (roleLevel(sp.role) > 1 || !sp.unsync) return true;
  }
  return false;
}

/** What is wrong with one entry of a page that does not map anything: 0, or an MMIO entry's. */
function emptyWrong(state: ShadowState, asId: number, lo: number, hi: number): number {
  const { masks, enableMmioCaching } = state.vm.mmu;
  return enableMmioCaching && isMmioSpte(masks, lo, hi) ? mmioWrong(state, asId, lo, hi) : 0;
}

function pageWrong(state: ShadowState, sp: ShadowPage, passed: number): number {
  const { vm, shadow } = state;
  const { i32 } = vm.memory;
  const level = roleLevel(sp.role);
  const asId = roleAsId(sp.role);
  const live = !isObsoleteSp(vm, sp);
  const synced = live && spHasGptes(sp) && !sp.unsync && !writeUnderWay(state, sp.gfn);
  const counts = (n: number): boolean => n !== 0 && (passed & (1 << n)) === 0;
  for (const index of shadow.indices) {
    const sptep = sptepOf(sp, index);
    const lo = i32[sptep]!;
    const hi = i32[sptep + 1]!;
    if (!isShadowPresent(lo)) {
      const mmio = live ? emptyWrong(state, asId, lo, hi) : 0;
      if (counts(mmio)) return mmio;
      continue;
    }
    if (level === 1) {
      const gfn = pageGetGfn(sp, index);
      const wrong = leafWrong(state, asId, gfn, sptePfn(lo, hi));
      if (counts(wrong)) return wrong;
      if (live && isWritable(lo) && counts(TRACKED_WRITABLE) && mustNotBeWritten(state, gfn)) return TRACKED_WRITABLE;
    } else if (shadow.rootNumber(sptePfn(lo, hi)) === 0) return PARENTS;
    if (synced && counts(DISAGREES) && disagrees(state, sp, index, lo, hi)) return DISAGREES;
  }
  return 0;
}

/** The sets of entries of each frame are exactly the entries that map it. */
function rmapsWrong(state: ShadowState): boolean {
  const { vm, shadow } = state;
  const { i32 } = vm.memory;
  let known = 0;
  for (const set of vm.slots.sets) {
    for (const gfn of state.gfns) {
      const slot = set.find(gfn);
      if (!slot?.arch) continue;
      for (const sptep of rmapEntries(vm, slot, gfn, 1)) {
        const n = shadow.rootNumber(sptep >>> 10);
        if (n === 0) return true;
        const sp = shadow.list[n - 1]!;
        if (!isShadowPresent(i32[sptep]!) || pageGetGfn(sp, (sptep & 1023) >> 1) !== gfn) return true;
        known++;
      }
    }
  }
  return known !== shadow.leaves;
}

/** Each page's parents are exactly the entries that point to it. */
function parentsWrong(state: ShadowState): boolean {
  const { vm, shadow } = state;
  const { i32 } = vm.memory;
  let known = 0;
  let links = 0;
  for (const sp of shadow.list) {
    for (const sptep of vm.mmu.pteLists.entries(sp.parentPtes)) {
      if (shadow.rootNumber(sptep >>> 10) === 0 || !isShadowPresent(i32[sptep]!)) return true;
      if (sptePfn(i32[sptep]!, i32[sptep + 1]!) !== sp.pfn) return true;
      known++;
    }
    if (roleLevel(sp.role) === 1) continue;
    for (const index of shadow.indices) if (isShadowPresent(i32[sptepOf(sp, index)]!)) links++;
  }
  return known !== links;
}

function tlbsWrong(state: ShadowState): number {
  for (const v of state.vcpus) {
    if (!v.tlbLive) continue;
    const asId = v.vcpu.smm ? 1 : 0;
    for (const word of v.tlb) {
      if ((word & TLB_VALID) === 0) continue;
      const pfn = tlbFrame(word);
      if (isFreed(state, pfn)) return TLB_FREED;
      if (!state.gfns.some((gfn) => ownsFrame(state, asId, gfn, pfn))) return TLB_STALE;
    }
  }
  return 0;
}

/** A slot on its way out still counts: nothing of it is given away before its mappings are gone. */
function ownsFrame(state: ShadowState, asId: number, gfn: number, pfn: number): boolean {
  return state.hostFrame(asId, gfn) === pfn;
}

/** The shadow tables of the vCPU give the page this frame, with the right to write if `write`. */
function tablesAllow(state: ShadowState, v: ShadowVcpu, page: number, pfn: number, write: boolean): boolean {
  const { i32 } = state.vm.memory;
  let table = v.vcpu.mmu.mmu.root.pfn;
  for (let level = 4; level >= 1; level--) {
    const at = (table << 10) | (entryOfPage(page, level) << 1);
    const lo = i32[at]!;
    if (!isShadowPresent(lo) || (write && !isWritable(lo))) return false;
    table = sptePfn(lo, i32[at + 1]!);
  }
  return table === pfn;
}

function tlbExceeds(state: ShadowState): boolean {
  for (const v of state.vcpus) {
    const root = v.vcpu.mmu.mmu.root.pfn;
    if (!v.tlbLive || v.vcpu.requests !== 0 || root === INVALID_ROOT) continue;
    for (let p = 0; p < v.tlb.length; p++) {
      const word = v.tlb[p]!;
      if ((word & TLB_VALID) === 0) continue;
      if (!tablesAllow(state, v, state.linearPages[p]!, tlbFrame(word), (word & TLB_WRITE) !== 0)) return true;
    }
  }
  return false;
}

/** No kernel-side actor is in the middle of something. */
function quiet(state: ShadowState): boolean {
  return state.kernels.every((k) => !k.started || k.finished);
}

function countsWrong(state: ShadowState): boolean {
  const { vm, shadow } = state;
  const { mmu, stats } = vm;
  return (
    stats.pages_4k !== shadow.leaves ||
    mmu.nUsedMmuPages !== shadow.list.length ||
    mmu.indirectShadowPages !== shadow.indirect ||
    stats.mmu_unsync !== shadow.unsync
  );
}

/** Roots that are no longer used have no entries. */
function invalidMaps(state: ShadowState, sp: ShadowPage): boolean {
  if ((sp.role & ROLE_INVALID) === 0) return false;
  const { i32 } = state.vm.memory;
  return state.shadow.indices.some((index) => isShadowPresent(i32[sptepOf(sp, index)]!));
}

/** Numbers of the invariants, as bits, whose texts begin so. @throws Error for one that there is not */
export function invariantBits(beginnings: readonly string[]): number {
  let bits = 0;
  for (const beginning of beginnings) {
    const n = shadowInvariantTexts.findIndex((text) => text.startsWith(beginning)) + 1;
    if (n === 0) throw new Error(`no invariant begins with: ${beginning}`);
    bits |= 1 << n;
  }
  return bits;
}

/** 0, or the number of the first invariant that does not hold, but for those in `passed`, as bits. The pages have been scanned. */
export function firstShadowViolation(state: ShadowState, passed: number): number {
  const counts = (n: number): boolean => (passed & (1 << n)) === 0;
  for (const sp of state.shadow.list) {
    const wrong = pageWrong(state, sp, passed);
    if (wrong !== 0) return wrong;
    if (counts(UNUSED_MAPS) && invalidMaps(state, sp)) return UNUSED_MAPS;
  }
  const tlb = tlbsWrong(state);
  if (tlb !== 0 && counts(tlb)) return tlb;
  if (state.usedStale && counts(STALE_USE)) return STALE_USE;
  if (counts(RMAP) && rmapsWrong(state)) return RMAP;
  if (counts(PARENTS) && parentsWrong(state)) return PARENTS;
  if (counts(COUNTS) && countsWrong(state)) return COUNTS;
  return counts(TLB_EXCEEDS) && quiet(state) && tlbExceeds(state) ? TLB_EXCEEDS : 0;
}
