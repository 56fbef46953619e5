/**
 * The walk of extended page tables: guest-physical frame to host frame through four or five levels in EPT's own format (@sdm 30.3), with
 * accessed and dirty bits and the page-modification log (@sdm 30.3.5, 30.3.6). Accesses to the guest's page tables count as writes while
 * A/D bits are on.
 */
import {
  EPT_VIOLATION_FETCH,
  EPT_VIOLATION_GVA_IS_VALID,
  EPT_VIOLATION_GVA_TRANSLATED,
  EPT_VIOLATION_READ,
  EPT_VIOLATION_WRITE,
} from '../../arch/ept-qualification.ts';
import {
  EPT_ACCESSED_MASK,
  EPT_DIRTY_MASK,
  EPT_EXECUTABLE_MASK,
  EPT_MT_MASK,
  EPT_MT_SHIFT,
  EPT_PAGE_SIZE_MASK,
  EPT_READABLE_MASK,
  EPT_RWX_MASK,
  EPT_WRITABLE_MASK,
  PT64_FRAME_HI,
  rsvdPhysHi,
} from '../../arch/paging.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { HardwareProfile } from '../profile.ts';
import { indexAt } from './nested-walker.ts';
import type { SecondWalker } from './second-walker.ts';

/** In `error`: not an EPT violation but a misconfiguration. */
export const EPT_ERROR_MISCONFIG = 1 << 31;
/** In `error`: the log of modified pages is full. */
export const EPT_ERROR_PML_FULL = 1 << 30;
/** Entries of the log. */
const PML_ENTRIES = 512;
/** Where an entry's R, W and X are in the exit qualification. */
const PROT_SHIFT = 3;

export class EptWalker implements SecondWalker {
  private readonly i32: Int32Array;
  private readonly frames: number;
  private readonly rsvdHi: number;
  private readonly executeOnly: boolean;
  private readonly gbPages: boolean;
  rootPfn = 0;
  /** 4 or 5, as EPTP says. */
  levels = 4;
  dry = false;
  /** EPTP bit 6: accessed and dirty bits are set. */
  adEnabled = true;
  /** Physical address of the log of modified pages, -1 while there is none; and the next entry, counting down. */
  pmlBase = -1;
  pmlIndex = 0;

  pfn = 0;
  readable = false;
  writable = false;
  executable = false;
  error = 0;
  errorHi = 0;

  constructor(memory: PhysicalMemory, profile: HardwareProfile) {
    this.i32 = memory.i32;
    this.frames = memory.frames;
    this.rsvdHi = rsvdPhysHi(profile.maxPhyAddr);
    this.executeOnly = profile.vmx.eptExecuteOnly;
    this.gbPages = profile.vmx.ept1G;
  }

  walk(gfn: number, write: boolean, fetch: boolean): boolean {
    const i32 = this.i32;
    let table = this.rootPfn;
    let level = this.levels;
    let allowed = EPT_RWX_MASK;
    for (;;) {
      const word = (table << 10) | (indexAt(gfn, level) << 1);
      const lo = i32[word]!;
      const hi = i32[word + 1]!;
      if ((lo & EPT_RWX_MASK) === 0) {
        this.error = 0;
        return false;
      }
      const leaf = level === 1 || (lo & EPT_PAGE_SIZE_MASK) !== 0;
      if (this.misconfigured(lo, hi, level, leaf)) {
        this.error = EPT_ERROR_MISCONFIG;
        return false;
      }
      allowed &= lo;
      if (leaf) return this.leaf(gfn, level, word, lo, hi, allowed, write, fetch);
      if (this.adEnabled && (lo & EPT_ACCESSED_MASK) === 0 && !this.dry) i32[word] = lo | EPT_ACCESSED_MASK;
      table = (hi & PT64_FRAME_HI) * 0x100000 + (lo >>> 12);
      if (table >= this.frames) {
        // Nothing answers at that address: all ones.
        this.error = EPT_ERROR_MISCONFIG;
        return false;
      }
      level--;
    }
  }

  /** An entry with rights that no processor could honour, or with reserved bits set (@sdm 30.3.3.1). HOT */
  private misconfigured(lo: number, hi: number, level: number, leaf: boolean): boolean {
    const rights = lo & EPT_RWX_MASK;
    if ((rights & EPT_READABLE_MASK) === 0 && ((rights & EPT_WRITABLE_MASK) !== 0 || !this.executeOnly)) return true;
    if ((hi & this.rsvdHi & PT64_FRAME_HI) !== 0) return true;
    if (!leaf) return (lo & (level >= 4 ? 0xf8 : 0x78)) !== 0;
    const type = (lo & EPT_MT_MASK) >> EPT_MT_SHIFT;
    if (type === 2 || type === 3 || type === 7) return true;
    if (level === 1) return false;
    return level > 3 || (level === 3 && !this.gbPages) || (lo & (level === 2 ? 0x001ff000 : 0x3ffff000)) !== 0;
  }

  /** Checks the leaf at `word` and fills the result. HOT */
  private leaf(
    gfn: number,
    level: number,
    word: number,
    lo: number,
    hi: number,
    allowed: number,
    write: boolean,
    fetch: boolean,
  ): boolean {
    const wanted = fetch ? EPT_EXECUTABLE_MASK : write ? EPT_WRITABLE_MASK : EPT_READABLE_MASK;
    if ((allowed & wanted) === 0) {
      this.error = allowed << PROT_SHIFT;
      return false;
    }
    let marked = lo;
    if (this.adEnabled && !this.dry) {
      marked |= write ? EPT_ACCESSED_MASK | EPT_DIRTY_MASK : EPT_ACCESSED_MASK;
      if (((marked ^ lo) & EPT_DIRTY_MASK) !== 0 && this.pmlBase !== -1 && !this.log(gfn)) return false;
      if (marked !== lo) this.i32[word] = marked;
    }
    let low = lo >>> 12;
    if (level > 1) {
      const inside = level === 2 ? 0x1ff : 0x3ffff;
      low = (low & ~inside) | (gfn & inside);
    }
    this.pfn = (hi & PT64_FRAME_HI) * 0x100000 + low;
    this.readable = (allowed & EPT_READABLE_MASK) !== 0;
    this.writable = (allowed & EPT_WRITABLE_MASK) !== 0 && (!this.adEnabled || (marked & EPT_DIRTY_MASK) !== 0);
    this.executable = (allowed & EPT_EXECUTABLE_MASK) !== 0;
    if (this.pfn >= this.frames) throw new Error(`EPT maps gfn ${gfn} to frame ${this.pfn}, beyond memory`);
    return true;
  }

  /** Logs that `gfn` becomes dirty; false when the log is full. */
  private log(gfn: number): boolean {
    if (this.pmlIndex >= PML_ENTRIES) {
      this.error = EPT_ERROR_PML_FULL;
      return false;
    }
    const at = (this.pmlBase + this.pmlIndex * 8) >>> 2;
    this.i32[at] = gfn << 12;
    this.i32[at + 1] = Math.floor(gfn / 0x100000);
    this.pmlIndex = (this.pmlIndex - 1) & 0xffff;
    return true;
  }

  blameFinal(write: boolean, fetch: boolean, linear: number): void {
    this.errorHi = 0;
    if ((this.error & (EPT_ERROR_MISCONFIG | EPT_ERROR_PML_FULL)) !== 0) return;
    const access = fetch ? EPT_VIOLATION_FETCH : write ? EPT_VIOLATION_WRITE : EPT_VIOLATION_READ;
    this.error |= access | EPT_VIOLATION_GVA_IS_VALID | EPT_VIOLATION_GVA_TRANSLATED | linear;
  }

  get tablesAreWrites(): boolean {
    return this.adEnabled;
  }

  blameTable(write: boolean): void {
    this.errorHi = 0;
    if ((this.error & (EPT_ERROR_MISCONFIG | EPT_ERROR_PML_FULL)) !== 0) return;
    this.error |= EPT_VIOLATION_READ | (write ? EPT_VIOLATION_WRITE : 0) | EPT_VIOLATION_GVA_IS_VALID;
  }
}
