/**
 * The shadow pages of a VM as words: in the order of their age, so that the frames they happen to be in say nothing. Captured entries name
 * tables by that number; a restore puts each page into the frame of its number and makes anew what follows from the pages: the hash, parents,
 * write tracking, counts. What leads from a guest frame to its entries (rmap) is kept as it is, as it may be wrong.
 */
import { PT64_FRAME_HI } from '../../../arch/paging.ts';
import type { Memslot } from '../../../kvm/memslots/memslot.ts';
import { KVM_MAX_HUGEPAGE_LEVEL, type SlotArch, updateDisallowLpageCount } from '../../../kvm/mmu/lpage-info.ts';
import { INVALID_ROOT } from '../../../kvm/mmu/mmu-context.ts';
import { ROLE_DIRECT, ROLE_INVALID, roleAsId, roleLevel } from '../../../kvm/mmu/role.ts';
import { RmapHeads, rmapEntries } from '../../../kvm/mmu/shadow/rmap.ts';
import { spHasGptes, sptepOf } from '../../../kvm/mmu/shadow/translation.ts';
import type { ShadowPage } from '../../../kvm/mmu/shadow-page.ts';
import {
  isLargePte,
  isLastSpte,
  isShadowPresent,
  SHADOW_NONPRESENT_HI,
  SHADOW_NONPRESENT_LO,
  sptePfn,
} from '../../../kvm/mmu/spte.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import type { ScenePages } from '../kvm-model/vm.ts';

/** Shadow pages at a time: their numbers, from 1, fit four bits; the last one is the root of a vCPU whose CR3 leads nowhere. */
const MAX_PAGES = 14;
const DUMMY_ROOT = 15;
/** Entries that one guest frame has at most, and a word of an rmap that has too many, or one that is nowhere. */
const MAX_RMAP = 8;
const HEADER_WORDS = 4;
const ENTRY_WORDS = 3;
const INVALID = 1 << 1;
const GENERATION = 1 << 2;
const UNSYNC = 1 << 3;
const ROOT_SHIFT = 4;
const FLOOD_SHIFT = 8;
const CHILD_BITS = 16;

export class SceneShadowPages {
  readonly words: number;
  /** Positions that are looked at in every page. */
  readonly indices: readonly number[];
  /** After `scan`: the pages, by number - 1. */
  readonly list: ShadowPage[] = [];
  /** After `scan`: leaves that map 4 KiB, and tables that the guest's are shadowed by. */
  leaves = 0;
  indirect = 0;
  unsync = 0;
  private readonly rmapWords: number;
  /** Frame that a restore gives to page n + 1. */
  private readonly frames: number[] = [];
  private readonly translations: Float64Array[] = [];
  private readonly numberOf: Int32Array;
  private readonly gfns: readonly number[];
  private readonly vm: VmState;
  private readonly pages: ScenePages;
  private readonly empty = new Int32Array(1024);

  constructor(vm: VmState, pages: ScenePages, gfns: readonly number[], indices: readonly number[]) {
    if (indices.length > 15) throw new Error(`a scene's tables have ${indices.length} entries, expected 15 at most`);
    this.vm = vm;
    this.pages = pages;
    this.gfns = gfns;
    this.indices = indices;
    this.numberOf = new Int32Array(vm.memory.frames);
    for (let i = 0; i < MAX_PAGES; i++) {
      this.frames.push(pages.tableFrame());
      this.translations.push(new Float64Array(512));
    }
    for (let i = 0; i < 512; i++) {
      this.empty[2 * i] = SHADOW_NONPRESENT_LO;
      this.empty[2 * i + 1] = SHADOW_NONPRESENT_HI;
    }
    this.rmapWords = 2 * vm.slots.count * gfns.length;
    this.words = 1 + MAX_PAGES * (HEADER_WORDS + ENTRY_WORDS * indices.length) + this.rmapWords;
  }

  /** Numbers the pages as they are now: those in use from the oldest on, then roots that are no longer used but held by a vCPU. */
  scan(): void {
    const { list, numberOf, vm } = this;
    for (const sp of list) if (sp.pfn >= 0) numberOf[sp.pfn] = 0;
    list.length = 0;
    for (let sp = vm.mmu.activePages.oldest; sp !== null; sp = sp.newer) this.number(sp);
    for (const vcpu of vm.vcpus) {
      this.numberRoot(vcpu.mmu.mmu.root.pfn);
      for (const prev of vcpu.mmu.mmu.prevRoots) this.numberRoot(prev.pfn);
    }
    this.countAll();
  }

  private countAll(): void {
    this.leaves = 0;
    this.indirect = 0;
    this.unsync = 0;
    for (const sp of this.list) this.count(sp);
  }

  private numberRoot(pfn: number): void {
    if (pfn === INVALID_ROOT || pfn === this.vm.host.zero.small || this.numberOf[pfn] !== 0) return;
    this.number(this.vm.mmu.shadowPage(pfn));
  }

  private number(sp: ShadowPage): void {
    if (this.list.length === MAX_PAGES) throw new Error(`a scene has more than ${MAX_PAGES} shadow pages`);
    this.numberOf[sp.pfn] = this.list.push(sp);
  }

  private count(sp: ShadowPage): void {
    const { i32 } = this.vm.memory;
    const level = roleLevel(sp.role);
    for (const index of this.indices) {
      const lo = i32[sptepOf(sp, index)]!;
      if (!isShadowPresent(lo) || !isLastSpte(lo, level)) continue;
      if (level > 1) throw new Error('a scene whose shadow pages map huge pages');
      this.leaves++;
    }
    if (sp.unsync) this.unsync++;
    if (spHasGptes(sp) && (sp.role & ROLE_INVALID) === 0) this.indirect++;
  }

  /** Number of the page in a root's frame, 0 for none. */
  rootNumber(pfn: number): number {
    if (pfn === INVALID_ROOT) return 0;
    return pfn === this.vm.host.zero.small ? DUMMY_ROOT : this.numberOf[pfn]!;
  }

  /** Frame of a root by its number, in a state that was restored. */
  rootFrame(number: number): number {
    if (number === 0) return INVALID_ROOT;
    return number === DUMMY_ROOT ? this.vm.host.zero.small : this.frames[number - 1]!;
  }

  /** Something is where nobody looks. */
  strayEntry(): boolean {
    const { i32 } = this.vm.memory;
    for (const sp of this.list) {
      for (let i = 0; i < 512; i++) {
        if (this.indices.includes(i)) continue;
        const at = sptepOf(sp, i);
        if (i32[at] !== SHADOW_NONPRESENT_LO || i32[at + 1] !== SHADOW_NONPRESENT_HI) return true;
      }
    }
    return false;
  }

  // ---- words ----

  /** As of the last scan. */
  capture(into: Int32Array, at: number): void {
    const { indices, list, vm, numberOf } = this;
    const { i32 } = vm.memory;
    const pageWords = HEADER_WORDS + ENTRY_WORDS * indices.length;
    into.fill(0, at, at + this.words);
    into[at] = list.length | (vm.mmu.mmuValidGen << 8) | (vm.mmu.nMaxMmuPages << 16);
    for (let n = 0; n < list.length; n++) {
      const sp = list[n]!;
      let w = at + 1 + n * pageWords;
      let children = 0;
      for (let e = 0; e < indices.length; e++) if (unsyncBit(sp, indices[e]!)) children |= 1 << e;
      into[w++] =
        1 |
        ((sp.role & ROLE_INVALID) !== 0 ? INVALID : 0) |
        (sp.mmuValidGen !== 0 ? GENERATION : 0) |
        (sp.unsync ? UNSYNC : 0) |
        (sp.rootCount << ROOT_SHIFT) |
        (sp.writeFloodingCount << FLOOD_SHIFT) |
        (children << CHILD_BITS);
      into[w++] = sp.role & ~ROLE_INVALID;
      into[w++] = sp.gfn;
      into[w++] = sp.unsyncChildren;
      for (const index of indices) {
        const sptep = sptepOf(sp, index);
        const lo = i32[sptep]!;
        const hi = i32[sptep + 1]!;
        if (isShadowPresent(lo) && !isLargePte(lo) && roleLevel(sp.role) > 1) {
          into[w++] = (lo & 0xfff) | (numberOf[sptePfn(lo, hi)]! << 12);
          into[w++] = hi & ~PT64_FRAME_HI;
        } else {
          into[w++] = lo;
          into[w++] = hi;
        }
        into[w++] = sp.shadowedTranslation === null ? 0 : sp.shadowedTranslation[index]!;
      }
    }
    this.captureRmaps(into, at + this.words - this.rmapWords);
  }

  private captureRmaps(into: Int32Array, at: number): void {
    const { vm, gfns } = this;
    let w = at;
    for (const set of vm.slots.sets) {
      for (const gfn of gfns) {
        const slot = set.find(gfn);
        if (slot?.arch) {
          const places = rmapEntries(vm, slot, gfn, 1).map((sptep) => this.placeOf(sptep));
          if (places.length > MAX_RMAP) throw new Error(`gfn 0x${gfn.toString(16)} has more than ${MAX_RMAP} entries`);
          places.sort((a, b) => a - b);
          for (let i = 0; i < places.length; i++) into[w + (i >> 2)]! |= places[i]! << (8 * (i & 3));
        }
        w += 2;
      }
    }
  }

  /** An entry as page and position, in a byte; 0xff when it is in no page that is in use. */
  private placeOf(sptep: number): number {
    const n = this.numberOf[sptep >>> 10]!;
    const e = this.indices.indexOf((sptep & 1023) >> 1);
    return n === 0 || e < 0 ? 0xff : (n << 4) | e;
  }

  restore(from: Int32Array, at: number): void {
    const { vm, frames } = this;
    const { mmu } = vm;
    const head = from[at]!;
    const n = head & 0xff;

    mmu.mmuValidGen = (head >>> 8) & 1;
    mmu.nMaxMmuPages = head >>> 16;
    for (let i = 0; i < n; i++) this.restorePage(from, at, i);
    for (let i = 0; i < n; i++) this.restoreLinks(mmu.shadowPage(frames[i]!));
    mmu.nUsedMmuPages = n;
    this.restoreRmaps(from, at + this.words - this.rmapWords);
    this.countAll();
    mmu.indirectShadowPages = this.indirect;
    vm.stats.mmu_unsync = this.unsync;
    vm.stats.pages_4k = this.leaves;
    this.pages.recycle();
  }

  /** No page, no rmap, no tracking, with the slots as they are now: before a restore. As of the last scan. */
  forgetAll(): void {
    const { vm, numberOf } = this;
    const { mmu } = vm;
    for (const sp of this.list) {
      numberOf[sp.pfn] = 0;
      mmu.pageHash.remove(sp);
      if ((sp.role & ROLE_INVALID) === 0) mmu.activePages.remove(sp);
      mmu.pteLists.drop(sp.parentPtes);
      sp.parentPtes = 0;
      const slot = vm.slots.sets[roleAsId(sp.role)]!.find(sp.gfn);
      if (spHasGptes(sp) && (sp.role & ROLE_INVALID) === 0 && slot?.arch) updateDisallowLpageCount(slot, sp.gfn, -1);
    }
    this.list.length = 0;
    for (const set of vm.slots.sets) {
      for (const slot of set.slots) if (slot.arch !== null) this.forgetArch(slot, slot.arch);
    }
  }

  private forgetArch(slot: Memslot, arch: SlotArch): void {
    const { vm, gfns } = this;
    arch.gfnWriteTrack.clear();
    const heads = arch.rmap[0];
    if (heads === undefined) return;
    for (const gfn of gfns) {
      const index = gfn - slot.baseGfn;
      if (index < 0 || index >= slot.npages) continue;
      vm.mmu.pteLists.drop(heads.get(index));
      heads.set(index, 0);
    }
  }

  private restorePage(from: Int32Array, at: number, n: number): void {
    const { vm, indices, empty } = this;
    const { i32 } = vm.memory;
    const { mmu, host } = vm;
    const pfn = this.frames[n]!;
    const sp = mmu.shadowPage(pfn);
    let w = at + 1 + n * (HEADER_WORDS + ENTRY_WORDS * indices.length);
    const head = from[w++]!;
    sp.pfn = pfn;
    sp.role = from[w++]!;
    sp.gfn = from[w++]!;
    sp.ptep = -1;
    sp.tdpMmuPage = false;
    sp.nxHugePageDisallowed = false;
    sp.possibleNxHugePage = false;
    sp.unsync = (head & UNSYNC) !== 0;
    sp.mmuValidGen = (head & GENERATION) !== 0 ? 1 : 0;
    sp.rootCount = (head >>> ROOT_SHIFT) & 15;
    sp.writeFloodingCount = (head >>> FLOOD_SHIFT) & 15;
    sp.parentPtes = 0;
    sp.unsyncChildren = from[w++]!;
    sp.unsyncChildBitmap ??= new Uint32Array(16);
    sp.unsyncChildBitmap.fill(0);
    const indirect = (sp.role & ROLE_DIRECT) === 0 && roleLevel(sp.role) <= KVM_MAX_HUGEPAGE_LEVEL;
    sp.shadowedTranslation = indirect ? this.translations[n]! : null;
    sp.shadowedTranslation?.fill(0);
    host.pages.refs[pfn] = 1;
    i32.set(empty, pfn << 10);
    for (let e = 0; e < indices.length; e++) {
      const index = indices[e]!;
      if ((head & (1 << (CHILD_BITS + e))) !== 0) sp.unsyncChildBitmap[index >> 5]! |= 1 << (index & 31);
      const sptep = (pfn << 10) | (index << 1);
      const lo = from[w++]!;
      const hi = from[w++]!;
      const translation = from[w++]!;
      if (sp.shadowedTranslation !== null) sp.shadowedTranslation[index] = translation;
      if (isShadowPresent(lo) && !isLargePte(lo) && roleLevel(sp.role) > 1) {
        const child = this.frames[(lo >>> 12) - 1] ?? 0;
        i32[sptep] = (lo & 0xfff) | (child << 12);
        i32[sptep + 1] = hi | Math.floor(child / 0x100000);
      } else {
        i32[sptep] = lo;
        i32[sptep + 1] = hi;
      }
    }
    if ((head & INVALID) !== 0) sp.role |= ROLE_INVALID;
    else mmu.activePages.add(sp);
    mmu.pageHash.add(sp);
    this.numberOf[pfn] = n + 1;
    this.list.push(sp);
  }

  private restoreLinks(sp: ShadowPage): void {
    const { vm } = this;
    const { mmu } = vm;
    const { i32 } = vm.memory;
    const level = roleLevel(sp.role);
    for (const index of this.indices) {
      const sptep = sptepOf(sp, index);
      const lo = i32[sptep]!;
      if (level === 1 || !isShadowPresent(lo) || isLargePte(lo)) continue;
      const child = mmu.shadowPage(sptePfn(lo, i32[sptep + 1]!));
      child.parentPtes = mmu.pteLists.add(child.parentPtes, sptep);
    }
    if (!spHasGptes(sp) || (sp.role & ROLE_INVALID) !== 0) return;
    const slot = vm.slots.sets[roleAsId(sp.role)]!.find(sp.gfn);
    if (!slot?.arch) return;
    updateDisallowLpageCount(slot, sp.gfn, 1);
    if (level === 1) return;
    const { gfnWriteTrack } = slot.arch;
    const page = sp.gfn - slot.baseGfn;
    gfnWriteTrack.set(page, (gfnWriteTrack.get(page) ?? 0) + 1);
  }

  private restoreRmaps(from: Int32Array, at: number): void {
    const { vm, gfns, frames, indices } = this;
    let w = at;
    for (const set of vm.slots.sets) {
      for (const gfn of gfns) {
        const slot = set.find(gfn);
        for (let i = 0; i < MAX_RMAP; i++) {
          const place = (from[w + (i >> 2)]! >>> (8 * (i & 3))) & 0xff;
          if (place === 0) break;
          if (place === 0xff || !slot?.arch) continue;
          slot.arch.rmap[0] ??= new RmapHeads();
          const heads = slot.arch.rmap[0];
          const sptep = (frames[(place >> 4) - 1]! << 10) | (indices[place & 15]! << 1);
          const page = gfn - slot.baseGfn;
          heads.set(page, vm.mmu.pteLists.add(heads.get(page), sptep));
        }
        w += 2;
      }
    }
  }
}

function unsyncBit(sp: ShadowPage, index: number): boolean {
  return sp.unsyncChildBitmap !== null && ((sp.unsyncChildBitmap[index >> 5]! >>> (index & 31)) & 1) === 1;
}
