/**
 * The walk of nested page tables: guest-physical frame to host frame through as many levels as the host has, four or five, in the
 * long-mode format. Every access is a
 * user access there (@apm 15.25.5); accessed and dirty bits are set as any walk sets them (@apm 15.25.6).
 */
import {
  PFERR_FETCH,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_PRESENT,
  PFERR_RSVD,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import {
  PT_ACCESSED_MASK,
  PT_DIRTY_MASK,
  PT_PAGE_SIZE_MASK,
  PT_PRESENT_MASK,
  PT_USER_MASK,
  PT_WRITABLE_MASK,
  PT64_FRAME_HI,
  rsvdPhysHi,
} from '../../arch/paging.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { HardwareProfile } from '../profile.ts';
import { FRAMES_AT, NESTED_LEVELS_AT, NESTED_ROOT_AT, NESTED_RSVD_HI_AT } from '../state.ts';
import type { SecondWalker } from './second-walker.ts';
import { WALK_RIGHTS, WALK_TABLE, WALK_TAG_HI, type WalkCache } from './walk-cache.ts';

/** Index of `gfn` in the table at `level`. HOT */
export function indexAt(gfn: number, level: number): number {
  if (level === 1) return gfn & 511;
  if (level === 2) return (gfn >>> 9) & 511;
  if (level === 3) return (gfn >>> 18) & 511;
  if (level === 4) return gfn < 0x80000000 ? gfn >>> 27 : Math.floor(gfn / 0x8000000) & 511;
  return gfn < 0x1000000000 ? 0 : Math.floor(gfn / 0x1000000000) & 511;
}

export class NestedWalker implements SecondWalker {
  private readonly i32: Int32Array;
  private readonly frames: number;
  private readonly rsvdHi: number;
  private readonly rsvdError: number;
  private readonly gbPages: boolean;
  private readonly levels: number;
  /** Frame of the root table, from the control block's nested CR3. */
  get rootPfn(): number {
    return this.root;
  }
  set rootPfn(pfn: number) {
    this.root = pfn;
    if (this.upper !== null) this.i32[NESTED_ROOT_AT >> 2] = pfn;
  }
  private root = 0;
  /** Only looking: neither accessed nor dirty bits are set, here and in the guest's tables. */
  dry = false;

  /** After a walk that succeeded: host frame of the 4 KiB page. */
  pfn = 0;
  /** A store needs no further walk: writable at every level, and dirty. */
  writable = false;
  executable = false;
  /** Level of the page that maps it: 1 for 4 KiB. */
  level = 1;
  /** Whatever is mapped is readable. */
  readonly readable = true;
  /** After a walk that failed: P and RSVD of the error code; after `blame` all of it. */
  error = 0;
  errorHi = 0;

  private readonly upper: WalkCache | null;
  private readonly remembers: boolean;

  /** `upper` remembers the upper levels of finished walks, where the processor does. */
  constructor(memory: PhysicalMemory, profile: HardwareProfile, upper: WalkCache | null = null) {
    this.upper = upper;
    this.remembers = upper?.enabled === true;
    this.i32 = memory.i32;
    this.frames = memory.frames;
    this.rsvdHi = rsvdPhysHi(profile.maxPhyAddr);
    this.rsvdError = profile.rsvdWithoutP ? PFERR_RSVD : PFERR_RSVD | PFERR_PRESENT;
    this.gbPages = profile.gbPages;
    this.levels = profile.la57 ? 5 : 4;
    if (upper === null) return;
    // The processor's own walker: the generated refill walks the same tables.
    this.i32[NESTED_RSVD_HI_AT >> 2] = this.rsvdHi;
    this.i32[NESTED_LEVELS_AT >> 2] = this.levels;
    this.i32[FRAMES_AT >> 2] = this.frames;
    this.rootPfn = 0;
  }

  /** Translates `gfn` for a read, or a write, or a fetch; false after filling `error`. HOT */
  walk(gfn: number, write: boolean, fetch: boolean): boolean {
    const i32 = this.i32;
    const upper = this.upper;
    // A tag has 31 bits of the frame.
    const known = !this.remembers || upper === null || gfn >= 0x80000000 ? -1 : upper.entry(gfn >>> 9);
    const tag = (gfn & ~0x1ff) | 1;
    if (known !== -1 && i32[known] === tag && i32[known + WALK_TAG_HI] === this.root) {
      const word = (i32[known + WALK_TABLE]! << 10) | ((gfn & 511) << 1);
      const lo = i32[word]!;
      const hi = i32[word + 1]!;
      if ((lo & PT_PRESENT_MASK) === 0) {
        this.error = 0;
        return false;
      }
      if ((hi & this.rsvdHi) !== 0) {
        this.error = this.rsvdError;
        return false;
      }
      const rights = i32[known + WALK_RIGHTS]!;
      return this.leaf(gfn, 1, word, lo, hi, rights & lo, rights | hi, write, fetch);
    }
    let table = this.root;
    let level = this.levels;
    let allowed = PT_USER_MASK | PT_WRITABLE_MASK;
    let noExecute = 0;
    for (;;) {
      if (table >= this.frames) {
        // Nothing answers at that address: all ones.
        this.error = this.rsvdError;
        return false;
      }
      const word = (table << 10) | (indexAt(gfn, level) << 1);
      const lo = i32[word]!;
      const hi = i32[word + 1]!;
      if ((lo & PT_PRESENT_MASK) === 0) {
        this.error = 0;
        return false;
      }
      if ((hi & this.rsvdHi) !== 0) {
        this.error = this.rsvdError;
        return false;
      }
      if (level === 1 && known !== -1) {
        const rights = (allowed & (PT_USER_MASK | PT_WRITABLE_MASK)) | (noExecute & 0x80000000);
        upper!.insert(known, tag, this.root, table, rights);
      }
      allowed &= lo;
      noExecute |= hi;
      if (level > 1 && (lo & PT_PAGE_SIZE_MASK) === 0) {
        if ((lo & PT_ACCESSED_MASK) === 0 && !this.dry) i32[word] = lo | PT_ACCESSED_MASK;
        table = (hi & PT64_FRAME_HI) * 0x100000 + (lo >>> 12);
        level--;
        continue;
      }
      return this.leaf(gfn, level, word, lo, hi, allowed, noExecute, write, fetch);
    }
  }

  /** Checks the leaf at `word` and fills the result. HOT */
  private leaf(
    gfn: number,
    level: number,
    word: number,
    lo: number,
    hi: number,
    allowed: number,
    noExecute: number,
    write: boolean,
    fetch: boolean,
  ): boolean {
    let low = lo >>> 12;
    if (level > 1) {
      if (level > 3 || (level === 3 && !this.gbPages) || (lo & (level === 2 ? 0x001fe000 : 0x3fffe000)) !== 0) {
        this.error = this.rsvdError;
        return false;
      }
      const inside = level === 2 ? 0x1ff : 0x3ffff;
      low = (low & ~inside) | (gfn & inside);
    }
    const writable = (allowed & PT_WRITABLE_MASK) !== 0;
    if ((allowed & PT_USER_MASK) === 0 || (write && !writable) || (fetch && noExecute < 0)) {
      this.error = PFERR_PRESENT;
      return false;
    }
    const marked = lo | (write ? PT_ACCESSED_MASK | PT_DIRTY_MASK : PT_ACCESSED_MASK);
    if (marked !== lo && !this.dry) this.i32[word] = marked;
    this.pfn = (hi & PT64_FRAME_HI) * 0x100000 + low;
    this.writable = writable && (marked & PT_DIRTY_MASK) !== 0;
    this.executable = noExecute >= 0;
    this.level = level;
    if (this.pfn >= this.frames)
      throw new Error(`nested page table maps gfn ${gfn} to frame ${this.pfn}, beyond memory`);
    return true;
  }

  blameFinal(write: boolean, fetch: boolean): void {
    this.error |= PFERR_USER | (write ? PFERR_WRITE : 0) | (fetch ? PFERR_FETCH : 0);
    this.errorHi = PFERR_GUEST_FINAL_HI;
  }

  /** NPT knows no other way (@apm 15.25.5). */
  readonly tablesAreWrites = true;

  blameTable(): void {
    this.error |= PFERR_USER | PFERR_WRITE;
    this.errorHi = PFERR_GUEST_PAGE_HI;
  }
}
