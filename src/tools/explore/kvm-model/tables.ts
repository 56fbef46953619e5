/**
 * The page tables of a scene as words. A table's place in the tree says all there is to say about its frame, so that two states that differ
 * only in frames are one: captured entries name no frames of tables, and a restore puts each table into the frame that its place has.
 */
import { PT64_FRAME_HI } from '../../../arch/paging.ts';
import { ROLE_INVALID, ROLE_LEVEL_MASK, roleAsId } from '../../../kvm/mmu/role.ts';
import {
  FROZEN_SPTE_HI,
  FROZEN_SPTE_LO,
  isLargePte,
  isShadowPresent,
  SHADOW_NONPRESENT_HI,
  SHADOW_NONPRESENT_LO,
  sptePfn,
} from '../../../kvm/mmu/spte.ts';
import { hugeFrame, pagesPerLevel } from '../../../kvm/mmu/tdp-iter.ts';
import type { VmState } from '../../../kvm/vm-state.ts';
import type { ScenePages } from './vm.ts';

const ROOT_LEVEL = 4;
/** Of a root: what is known of it, and which of its tables the NX workaround made. */
const HEADER_WORDS = 2;
/** Of a last-level table: one entry that nobody in the scene names stands for all such. They are there only after a huge page was split. */
const OTHERS_WORDS = 2;

interface TableEntry {
  readonly index: number;
  /** Node below, -1 in the last level. */
  readonly child: number;
}

interface TableNode {
  readonly level: number;
  /** First gfn. */
  readonly gfn: number;
  readonly entries: readonly TableEntry[];
  /** Word of the first entry, from the root's first word. */
  readonly word: number;
  /** In the last level, where huge pages are: index of an entry that no gfn of the scene has, -1 elsewhere. Its words come first. */
  readonly other: number;
}

/** What maps a gfn in one root: level 0 for nothing. */
export class Leaf {
  level = 0;
  lo = 0;
  hi = 0;
  pfn = -1;
}

/** Index of `gfn` in its table of `level`. */
function indexAt(gfn: number, level: number): number {
  return hugeFrame(gfn, level) % 512;
}

export class SceneTables {
  /** Words of all roots. */
  readonly words: number;
  /** After `scan`: roots there are, and for root r and gfn number g the leaf at r * gfns + g. */
  roots = 0;
  readonly leaves: Leaf[];
  /** After `scan`: page tables below roots, and leaves by level (index 0 unused), that the scene's gfns lead to. */
  tables = 0;
  readonly mapped = [0, 0, 0, 0];
  readonly gfns: readonly number[];
  readonly maxRoots: number;
  private readonly nodes: TableNode[] = [];
  private readonly rootWords: number;
  /** Frame of each place: root * nodes + node. */
  private readonly frames: Int32Array;
  /** By root * nodes + node: the frame that is there now, -1 for none. */
  private readonly now: Int32Array;
  /** Which place a frame has, as of the scan with this number. */
  private readonly placeOf: Int32Array;
  private readonly stamp: Int32Array;
  private scanNumber = 0;
  /** Tables, by level, that are cut off and have nothing but frozen entries: where a walk stands that has lost its table. */
  private readonly cutOff: Int32Array;
  /** The same with entries that nobody froze, which only happens where something is wrong. */
  private readonly loose: Int32Array;
  private readonly empty = new Int32Array(1024);
  private readonly vm: VmState;
  private readonly pages: ScenePages;
  private readonly gfnEntry: Int32Array;
  private readonly splits: boolean;

  /** @param splits huge pages may be split */
  constructor(vm: VmState, pages: ScenePages, gfns: readonly number[], maxRoots: number, splits: boolean) {
    this.vm = vm;
    this.pages = pages;
    this.gfns = gfns;
    this.maxRoots = maxRoots;
    this.splits = splits;
    this.layOut();
    const n = this.nodes.length;
    const last = this.nodes[n - 1]!;
    this.rootWords = last.word + 2 * last.entries.length;
    this.words = this.rootWords * maxRoots;
    this.frames = new Int32Array(n * maxRoots);
    this.now = new Int32Array(n * maxRoots).fill(-1);
    for (let i = 0; i < this.frames.length; i++) this.frames[i] = pages.tableFrame();
    for (let i = 0; i < 512; i++) {
      this.empty[2 * i] = SHADOW_NONPRESENT_LO;
      this.empty[2 * i + 1] = SHADOW_NONPRESENT_HI;
    }
    for (const pfn of this.frames) vm.memory.i32.set(this.empty, pfn << 10);
    this.cutOff = Int32Array.from({ length: ROOT_LEVEL + 1 }, (_, level) => this.cutOffTable(level));
    this.loose = Int32Array.from({ length: ROOT_LEVEL + 1 }, (_, level) => this.cutOffTable(level));
    this.placeOf = new Int32Array(vm.memory.frames);
    this.stamp = new Int32Array(vm.memory.frames);
    this.leaves = Array.from({ length: maxRoots * gfns.length }, () => new Leaf());
    // Where, among a node's entries, each gfn falls: by node * gfns + g.
    this.gfnEntry = new Int32Array(n * gfns.length);
    this.nodes.forEach((node, at) => {
      gfns.forEach((gfn, g) => {
        const inside = gfn >= node.gfn && gfn < node.gfn + 512 * pagesPerLevel(node.level);
        this.gfnEntry[at * gfns.length + g] = inside
          ? node.entries.findIndex((e) => e.index === indexAt(gfn, node.level))
          : -1;
      });
    });
  }

  /** Nodes in the order of levels, so that a parent comes before its children. */
  private layOut(): void {
    let word = HEADER_WORDS;
    const starts: number[][] = [[0]];
    for (let level = ROOT_LEVEL; level >= 1; level--) {
      const below: number[] = [];
      const firstChild = this.nodes.length + starts.at(-1)!.length;
      for (const gfn of starts.at(-1)!) {
        const span = 512 * pagesPerLevel(level);
        const inside = this.gfns.filter((g) => g >= gfn && g < gfn + span);
        const indices = [...new Set(inside.map((g) => indexAt(g, level)))].sort((a, b) => a - b);
        const entries = indices.map((index) => {
          if (level > 1) below.push(gfn + index * pagesPerLevel(level));
          return { index, child: level > 1 ? firstChild + below.length - 1 : -1 };
        });
        let other = -1;
        if (level === 1 && this.splits) {
          other = 511;
          while (indices.includes(other)) other--;
          word += OTHERS_WORDS;
        }
        this.nodes.push({ level, gfn, entries, word, other });
        word += 2 * entries.length;
      }
      starts.push(below);
    }
  }

  private cutOffTable(level: number): number {
    const pfn = this.pages.tableFrame();
    const { i32 } = this.vm.memory;
    for (let i = 0; i < 512; i++) {
      i32[(pfn << 10) | (2 * i)] = FROZEN_SPTE_LO;
      i32[(pfn << 10) | (2 * i + 1)] = FROZEN_SPTE_HI;
    }
    this.vm.mmu.shadowPage(pfn).role = level;
    return pfn;
  }

  /** Looks at all tables as they are now. HOT */
  scan(): void {
    const { nodes, now, placeOf, stamp, mapped } = this;
    const roots = this.vm.mmu.tdpMmuRoots;
    const { i32 } = this.vm.memory;
    if (roots.length > this.maxRoots)
      throw new Error(`a scene has ${roots.length} roots, expected ${this.maxRoots} at most`);
    this.roots = roots.length;
    this.scanNumber++;
    this.tables = 0;
    mapped[1] = 0;
    mapped[2] = 0;
    mapped[3] = 0;
    for (let r = 0; r < roots.length; r++) {
      const base = r * nodes.length;
      for (let n = 1; n < nodes.length; n++) now[base + n] = -1;
      now[base] = roots[r]!.pfn;
      for (let n = 0; n < nodes.length; n++) {
        const pfn = now[base + n]!;
        if (pfn < 0) continue;
        placeOf[pfn] = base + n;
        stamp[pfn] = this.scanNumber;
        const { entries, level, other } = nodes[n]!;
        if (other >= 0 && isShadowPresent(i32[(pfn << 10) | (other << 1)]!)) mapped[level]! += 512 - entries.length;
        for (let e = 0; e < entries.length; e++) {
          const entry = entries[e]!;
          const word = (pfn << 10) | (entry.index << 1);
          const lo = i32[word]!;
          if (!isShadowPresent(lo)) continue;
          if (level > 1 && !isLargePte(lo)) {
            now[base + entry.child] = sptePfn(lo, i32[word + 1]!);
            this.tables++;
          } else {
            mapped[level]!++;
          }
        }
      }
      this.findLeaves(r);
    }
  }

  private findLeaves(r: number): void {
    const { gfns, nodes, now, gfnEntry } = this;
    const { i32 } = this.vm.memory;
    const base = r * nodes.length;
    for (let g = 0; g < gfns.length; g++) {
      const leaf = this.leaves[r * gfns.length + g]!;
      leaf.level = 0;
      leaf.lo = SHADOW_NONPRESENT_LO;
      leaf.hi = SHADOW_NONPRESENT_HI;
      leaf.pfn = -1;
      let n = 0;
      while (n >= 0) {
        const node = nodes[n]!;
        const entry = node.entries[gfnEntry[n * gfns.length + g]!]!;
        const pfn = now[base + n]!;
        if (pfn < 0) break;
        const word = (pfn << 10) | (entry.index << 1);
        const lo = i32[word]!;
        if (node.level === 1 || !isShadowPresent(lo) || isLargePte(lo)) {
          leaf.level = node.level;
          leaf.lo = lo;
          leaf.hi = i32[word + 1]!;
          if (isShadowPresent(lo)) leaf.pfn = sptePfn(lo, leaf.hi) + (gfns[g]! % pagesPerLevel(node.level));
          break;
        }
        n = entry.child;
      }
    }
  }

  /** The leaf of gfn number `g` in root `r`, as of the last scan. */
  leaf(r: number, g: number): Leaf {
    return this.leaves[r * this.gfns.length + g]!;
  }

  /** Number of the root in frame `pfn`, -1 for none. */
  rootIndex(pfn: number): number {
    const roots = this.vm.mmu.tdpMmuRoots;
    for (let r = 0; r < roots.length; r++) if (roots[r]!.pfn === pfn) return r;
    return -1;
  }

  /** As of the last scan, the table in `pfn` hangs in some root. */
  isLinked(pfn: number): boolean {
    return this.stamp[pfn] === this.scanNumber;
  }

  /** Whether the iterator's (lo, hi), an entry as it was read, points to a table that is linked; if so, the place, else -1. */
  placeOfTable(lo: number, hi: number): number {
    const pfn = sptePfn(lo, hi);
    return this.isLinked(pfn) ? this.placeOf[pfn]! : -1;
  }

  /** Frame that a restore gives to `place`. */
  frameOf(place: number): number {
    return this.frames[place]!;
  }

  cutOffFrame(level: number): number {
    return this.cutOff[level]!;
  }

  /** A table with nothing in it that hangs nowhere. */
  looseFrame(level: number): number {
    const pfn = this.loose[level]!;
    this.vm.memory.i32.set(this.empty, pfn << 10);
    return pfn;
  }

  /** Whether a word, counted from the end of the tables' words, says something of a root rather than of an entry. */
  isHeader(fromEnd: number): boolean {
    return (this.words + fromEnd) % this.rootWords === 0;
  }

  /** Writes the state of the last scan. HOT */
  capture(into: Int32Array, at: number): void {
    const { nodes, now, rootWords } = this;
    const { mmu, memory } = this.vm;
    const { i32 } = memory;
    for (let r = 0; r < this.maxRoots; r++) {
      const first = at + r * rootWords;
      if (r >= this.roots) {
        into.fill(0, first, first + rootWords);
        continue;
      }
      const base = r * nodes.length;
      const root = mmu.tdpMmuRoots[r]!;
      let nx = 0;
      const header =
        1 |
        ((root.role & ROLE_INVALID) !== 0 ? 2 : 0) |
        (root.scheduledRootToZap ? 4 : 0) |
        (roleAsId(root.role) << 3) |
        (root.tdpMmuRootCount << 4);
      for (let n = 0; n < nodes.length; n++) {
        const node = nodes[n]!;
        const pfn = now[base + n]!;
        let word = first + node.word;
        if (pfn < 0) {
          into.fill(0, node.other < 0 ? word : word - OTHERS_WORDS, word + 2 * node.entries.length);
          continue;
        }
        if (node.other >= 0) this.captureOthers((pfn << 10) | (node.other << 1), into, word - OTHERS_WORDS);
        const sp = mmu.shadowPage(pfn);
        nx |= (sp.nxHugePageDisallowed ? 1 : 0) << (2 * n);
        nx |= (sp.possibleNxHugePage ? 2 : 0) << (2 * n);
        for (let e = 0; e < node.entries.length; e++) {
          const entry = node.entries[e]!;
          const from = (pfn << 10) | (entry.index << 1);
          const lo = i32[from]!;
          const hi = i32[from + 1]!;
          const table = node.level > 1 && isShadowPresent(lo) && !isLargePte(lo);
          into[word++] = table ? lo & 0xfff : lo;
          into[word++] = table ? hi & ~PT64_FRAME_HI : hi;
        }
      }
      into[first] = header;
      into[first + 1] = nx;
    }
  }

  private captureOthers(sptep: number, into: Int32Array, at: number): void {
    const { i32 } = this.vm.memory;
    const lo = i32[sptep]!;
    const present = isShadowPresent(lo);
    into[at] = present ? lo : 0;
    into[at + 1] = present ? i32[sptep + 1]! : 0;
  }

  /** Makes the entries of `node`'s table in `pfn` that nobody names map what follows from one of them, which is (lo, hi); 0 for nothing. */
  private restoreOthers(node: TableNode, pfn: number, lo: number, hi: number): void {
    const { i32 } = this.vm.memory;
    const one = (pfn << 10) | (node.other << 1);
    const now = isShadowPresent(i32[one]!) ? i32[one]! : 0;
    if (now === lo && (lo === 0 || i32[one + 1] === hi)) return;
    const first = lo === 0 ? 0 : sptePfn(lo, hi) - node.other;
    for (let i = 0; i < 512; i++) {
      const to = (pfn << 10) | (i << 1);
      i32[to] = lo === 0 ? SHADOW_NONPRESENT_LO : (lo & 0xfff) | ((first + i) << 12);
      i32[to + 1] = lo === 0 ? SHADOW_NONPRESENT_HI : (hi & ~PT64_FRAME_HI) | Math.floor((first + i) / 0x100000);
    }
  }

  /** HOT */
  restore(from: Int32Array, at: number): void {
    const { nodes, rootWords, frames } = this;
    const { mmu, memory, host } = this.vm;
    const { i32 } = memory;
    const { dirty } = this.pages;
    const roots = mmu.tdpMmuRoots;
    roots.length = 0;
    for (let r = 0; r < this.maxRoots; r++) {
      const first = at + r * rootWords;
      const header = from[first]!;
      if (header === 0) continue;
      const nx = from[first + 1]!;
      const base = r * nodes.length;
      const root = mmu.shadowPage(frames[base]!);
      const invalid = (header & 2) !== 0 ? ROLE_INVALID : 0;
      const validRole = this.roleOf((header >>> 3) & 1);
      roots.push(root);
      // Parents come first: what they point to is there.
      let linked = 1;
      for (let n = 0; n < nodes.length; n++) {
        if ((linked & (1 << n)) === 0) continue;
        const node = nodes[n]!;
        const pfn = frames[base + n]!;
        const sp = mmu.shadowPage(pfn);
        sp.pfn = pfn;
        sp.gfn = node.gfn;
        sp.role = (validRole & ~ROLE_LEVEL_MASK) | node.level;
        sp.nxHugePageDisallowed = (nx & (1 << (2 * n))) !== 0;
        sp.possibleNxHugePage = (nx & (2 << (2 * n))) !== 0;
        sp.tdpMmuRootCount = 0;
        sp.scheduledRootToZap = false;
        if (n === 0) sp.ptep = -1;
        host.pages.refs[pfn] = 1;
        if (dirty[pfn] !== 0) {
          i32.set(this.empty, pfn << 10);
          dirty[pfn] = 0;
        }
        let word = first + node.word;
        if (node.other >= 0) this.restoreOthers(node, pfn, from[word - 2]!, from[word - 1]!);
        for (let e = 0; e < node.entries.length; e++) {
          const entry = node.entries[e]!;
          const to = (pfn << 10) | (entry.index << 1);
          let lo = from[word++]!;
          let hi = from[word++]!;
          if (node.level > 1 && isShadowPresent(lo) && !isLargePte(lo)) {
            const child = frames[base + entry.child]!;
            lo |= child << 12;
            hi |= Math.floor(child / 0x100000);
            linked |= 1 << entry.child;
            mmu.shadowPage(child).ptep = to;
          }
          i32[to] = lo;
          i32[to + 1] = hi;
        }
      }
      root.role |= invalid;
      root.tdpMmuRootCount = (header >>> 4) & 15;
      root.scheduledRootToZap = (header & 4) !== 0;
    }
    this.restoreNxPages(from, at);
    this.pages.recycle();
  }

  /** The list in its order: pages of roots that went come first, as nothing is added to those; a scene has at most one a root. */
  private restoreNxPages(from: Int32Array, at: number): void {
    const { mmu } = this.vm;
    mmu.possibleNxHugePages.length = 0;
    for (let r = this.maxRoots - 1; r >= 0; r--) {
      const nx = from[at + r * this.rootWords + 1]!;
      for (let n = 0; n < this.nodes.length; n++) {
        if ((nx & (2 << (2 * n))) === 0) continue;
        mmu.possibleNxHugePages.push(mmu.shadowPage(this.frames[r * this.nodes.length + n]!));
      }
    }
    this.vm.stats.nx_lpage_splits = mmu.possibleNxHugePages.length;
  }

  /** Role of a valid root of address space `asId`: the vCPUs' of that address space. */
  private roleOf(asId: number): number {
    const { vcpus } = this.vm;
    for (let i = 0; i < vcpus.length; i++) {
      const role = vcpus[i]!.mmu.rootMmu.rootRole;
      if (roleAsId(role) === asId) return role;
    }
    throw new Error('a root that no vCPU could use');
  }
}
