/**
 * The walk of the guest's own page tables, in every paging mode, with or without nested paging beneath (@sdm 4.3 to 4.7; @apm 5.3,
 * 15.25). Nothing is allocated; results are fields. Table accesses of a nested guest are user writes to the nested tables
 * (@apm 15.25.6), and its PAE directory pointers are read during the walk, not with CR3 (@apm 15.25.10); without nested paging they are
 * read then too, which a guest cannot tell from loading them at VMRUN.
 */

import { LINEAR_NX, LINEAR_USER, LINEAR_WRITABLE } from '../../arch/ept-qualification.ts';
import {
  PFERR_FETCH,
  PFERR_GUEST_ENC_HI,
  PFERR_PK,
  PFERR_PRESENT,
  PFERR_RSVD,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import {
  PAE_PDPTE_RSVD_HI,
  PAE_PDPTE_RSVD_LO,
  PAGING_4LEVEL,
  PAGING_32BIT,
  PAGING_NONE,
  PAGING_PAE,
  PSE36_RSVD_LO,
  PT_ACCESSED_MASK,
  PT_DIRTY_MASK,
  PT_GLOBAL_MASK,
  PT_PAGE_SIZE_MASK,
  PT_PRESENT_MASK,
  PT_USER_MASK,
  PT_WRITABLE_MASK,
  PT64_PKEY_HI_SHIFT,
  pse36Pfn,
} from '../../arch/paging.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { HardwareProfile } from '../profile.ts';
import { type AccessCheck, RMP_NOT_VALIDATED, RMP_OK } from '../snp/access-check.ts';
import { ACCESS_FETCH, ACCESS_READ, PDPTR_AT, RMP_AT, WALK_NESTED_AT } from '../state.ts';
import { EptWalker } from './ept-walker.ts';
import { NestedWalker } from './nested-walker.ts';
import { finalOwner, tableOwner } from './owner-check.ts';
import { PagingRegisters } from './paging-registers.ts';
import type { SecondWalker } from './second-walker.ts';
import type { TableCache } from './table-cache.ts';
import { TLB_GLOBAL, TLB_HUGE, TLB_LARGE } from './tlb.ts';
import { WALK_RIGHTS, WALK_TABLE, WALK_TAG_HI, type WalkCaches } from './walk-cache.ts';
import { WALK_NESTED_FAULT, WALK_NOT_VALIDATED, WALK_OK, WALK_PAGE_FAULT } from './walk-result.ts';

const NO_MEMORY = -2;
const NOT_VALIDATED = -3;

export class GuestWalker extends PagingRegisters {
  /** The second level; another one takes its place while a TD runs. */
  nestedWalker: SecondWalker;
  /** The same on a processor with EPT. */
  readonly eptWalker: EptWalker | null;
  private readonly memory: PhysicalMemory;
  private readonly tables: TableCache;
  private readonly npt: NestedWalker | null;
  /** The reverse map's checks, once there is one: setOwners. */
  rmp: AccessCheck | null = null;
  /** PVALIDATE and RMPADJUST ask: whose the page is and no more. */
  validating = false;
  /** Of the last final access: it was made with the C-bit. */
  encrypted = false;
  /** MMU context of the walk. */
  index = 0;

  /** Guest-physical addresses go through nested tables. */
  get nested(): boolean {
    return this.isNested;
  }
  set nested(on: boolean) {
    this.isNested = on;
    this.i32[WALK_NESTED_AT >> 2] = on ? 1 : 0;
  }
  private isNested = false;
  /** PAE's directory pointers are in registers, loaded with CR3 (VMX with EPT: @sdm 28.3.2.4), and not read during the walk. */
  pdpteRegisters = false;
  /** Host frame of the 4 KiB page, after WALK_OK. */
  pfn = 0;
  /** Guest frame of the table that was read last, where updates of it are checked by themselves. */
  private tableGfn = 0;
  /** Guest frame of the final access, or of the table that could not be accessed. */
  gfn = 0;
  /** Offset of the access in `gfn`, in bytes. */
  gpaOffset = 0;
  readable = false;
  /** A store needs no further walk: allowed, and dirty at both levels. */
  writable = false;
  executable = false;
  /** TLB_GLOBAL, TLB_LARGE, TLB_HUGE. */
  flags = 0;
  /** What the guest's tables say of the linear address: bits 11:9 of an EPT violation's exit qualification. */
  linear = 0;
  /** Error code of the fault, low and high half. */
  error = 0;
  errorHi = 0;

  constructor(memory: PhysicalMemory, profile: HardwareProfile, caches: WalkCaches) {
    super(memory, profile, caches.guest);
    this.memory = memory;
    this.tables = caches.tables;
    this.eptWalker = profile.vendor === 'intel' ? new EptWalker(memory, profile) : null;
    this.nested = false;
    this.npt = this.eptWalker === null ? new NestedWalker(memory, profile, caches.nested) : null;
    this.nestedWalker = this.eptWalker ?? this.npt!;
  }

  /** Host physical address of the code at `va` in MMU context `index`, or -1; no entry is marked. */
  peekCode(vaLo: number, vaHi: number, index: number): number {
    this.nestedWalker.dry = true;
    const result = this.walk(vaLo, vaHi, ACCESS_FETCH, index);
    this.nestedWalker.dry = false;
    return result === WALK_OK ? this.pfn * 4096 + (vaLo & 0xfff) : -1;
  }

  /** Level of the nested page that the last walk ended in. */
  get mappedLevel(): number {
    return this.npt?.level ?? 1;
  }

  setOwners(check: AccessCheck | null): void {
    this.rmp = check;
    this.i32[RMP_AT >> 2] = check?.table ?? 0;
  }

  /**
   * Translates linear address `va` for `access` (ACCESS_*) in MMU context `index` (MMU_INDEX_AT: 0 supervisor, 1 user, 2 supervisor
   * exempt from SMAP): WALK_*. HOT
   */
  walk(vaLo: number, vaHi: number, access: number, index: number): number {
    this.flags = 0;
    this.index = index;
    switch (this.mode) {
      case PAGING_NONE:
        this.readable = true;
        this.writable = true;
        this.executable = true;
        this.linear = LINEAR_USER | LINEAR_WRITABLE;
        this.encrypted = this.cBitHi !== 0;
        return this.final(vaLo >>> 12, vaLo & 0xfff, access);
      case PAGING_32BIT:
        return this.walk32(vaLo, access, index);
      case PAGING_PAE:
        return this.walkPae(vaLo, access, index);
      case PAGING_4LEVEL:
        return this.walk64(4, (this.cr3Hi & this.frameHi) * 0x100000 + (this.cr3Lo >>> 12), vaLo, vaHi, access, index);
      default:
        return this.walk64(5, (this.cr3Hi & this.frameHi) * 0x100000 + (this.cr3Lo >>> 12), vaLo, vaHi, access, index);
    }
  }

  /** Long mode from its top, or PAE from its directory (level 2). HOT */
  private walk64(top: number, root: number, vaLo: number, vaHi: number, access: number, index: number): number {
    const i32 = this.i32;
    const upper = this.upper;
    const cached = upper.entry(vaLo >>> 21);
    const tag = (vaLo & ~0x1fffff) | 1;
    const caches = upper.enabled && (!this.isNested || this.nestedWalker.tablesAreWrites);
    if (caches && i32[cached] === tag && i32[cached + WALK_TAG_HI] === vaHi) {
      const word = (i32[cached + WALK_TABLE]! << 10) | ((vaLo >>> 11) & 0x3fe);
      const lo = i32[word]!;
      const hi = i32[word + 1]!;
      if ((lo & PT_PRESENT_MASK) === 0) return this.fault(0, access, index);
      if ((hi & this.rsvdHi) !== 0) return this.reserved(access, index);
      const rights = i32[cached + WALK_RIGHTS]!;
      const gfn = (hi & this.frameHi) * 0x100000 + (lo >>> 12);
      return this.leaf(word, lo, hi, gfn, vaLo, rights & lo, rights | hi, access, index);
    }
    let level = top;
    let table = root;
    let allowed = PT_USER_MASK | PT_WRITABLE_MASK;
    let noExecute = 0;
    for (;;) {
      let at: number;
      if (level === 1) at = (vaLo >>> 12) & 511;
      else if (level === 2) at = (vaLo >>> 21) & 511;
      else if (level === 3) at = ((vaLo >>> 30) | (vaHi << 2)) & 511;
      else if (level === 4) at = (vaHi >>> 7) & 511;
      else at = (vaHi >>> 16) & 511;
      const word = this.entryWord(table, at << 3);
      if (word < 0) return this.noEntry(word, access, index);
      if (level === 1 && caches) {
        const rights = (allowed & (PT_USER_MASK | PT_WRITABLE_MASK)) | (noExecute & 0x80000000);
        upper.insert(cached, tag, vaHi, word >>> 10, rights);
      }
      const lo = i32[word]!;
      const hi = i32[word + 1]!;
      if ((lo & PT_PRESENT_MASK) === 0) return this.fault(0, access, index);
      if ((hi & this.rsvdHi) !== 0) return this.reserved(access, index);
      allowed &= lo;
      noExecute |= hi;
      const low = lo >>> 12;
      const page = vaLo >>> 12;
      const high = (hi & this.frameHi) * 0x100000;
      if (level === 1) return this.leaf(word, lo, hi, high + low, vaLo, allowed, noExecute, access, index);
      if ((lo & PT_PAGE_SIZE_MASK) !== 0) {
        this.flags = level === 2 ? TLB_LARGE : TLB_HUGE;
        if (level === 2) {
          if ((lo & 0x001fe000) !== 0) return this.reserved(access, index);
          const gfn = high + ((low & ~0x1ff) | (page & 0x1ff));
          return this.leaf(word, lo, hi, gfn, vaLo, allowed, noExecute, access, index);
        }
        if (level > 3 || !this.profile.gbPages || (lo & 0x3fffe000) !== 0) return this.reserved(access, index);
        const gfn = high + ((low & ~0x3ffff) | (page & 0x3ffff));
        return this.leaf(word, lo, hi, gfn, vaLo, allowed, noExecute, access, index);
      }
      if ((lo & PT_ACCESSED_MASK) === 0) {
        if (!this.mayMark(at << 3)) return WALK_NESTED_FAULT;
        this.mark(word, lo | PT_ACCESSED_MASK);
      }
      table = high + low;
      level--;
    }
  }

  private walkPae(vaLo: number, access: number, index: number): number {
    if (this.pdpteRegisters) {
      const at = (PDPTR_AT >> 2) + ((vaLo >>> 30) << 1);
      const entry = this.i32[at]!;
      if ((entry & PT_PRESENT_MASK) === 0) return this.fault(0, access, index);
      return this.walk64(2, (this.i32[at + 1]! & this.frameHi) * 0x100000 + (entry >>> 12), vaLo, 0, access, index);
    }
    const word = this.entryWord(this.cr3Lo >>> 12, (this.cr3Lo & 0xfe0) + ((vaLo >>> 30) << 3));
    if (word < 0) return this.noEntry(word, access, index);
    const lo = this.i32[word]!;
    const hi = this.i32[word + 1]!;
    if ((lo & PT_PRESENT_MASK) === 0) return this.fault(0, access, index);
    const rsvdLo = this.profile.paePdpteRsvd ? PAE_PDPTE_RSVD_LO : 0;
    if ((hi & (this.physHi | PAE_PDPTE_RSVD_HI)) !== 0 || (lo & rsvdLo) !== 0) return this.reserved(access, index);
    if (this.profile.paePdpteAccessed && (lo & PT_ACCESSED_MASK) === 0) this.mark(word, lo | PT_ACCESSED_MASK);
    return this.walk64(2, (hi & this.frameHi) * 0x100000 + (lo >>> 12), vaLo, 0, access, index);
  }

  private walk32(vaLo: number, access: number, index: number): number {
    const pdeWord = this.entryWord(this.cr3Lo >>> 12, (vaLo >>> 22) << 2);
    if (pdeWord < 0) return pdeWord === NO_MEMORY ? this.reserved(access, index) : WALK_NESTED_FAULT;
    const pde = this.i32[pdeWord]!;
    if ((pde & PT_PRESENT_MASK) === 0) return this.fault(0, access, index);
    if (this.pse && (pde & PT_PAGE_SIZE_MASK) !== 0) {
      if ((pde & PSE36_RSVD_LO) !== 0) return this.reserved(access, index);
      this.flags = TLB_LARGE;
      const gfn = pse36Pfn(pde) + ((vaLo >>> 12) & 0x3ff);
      return this.leaf(pdeWord, pde, 0, gfn, vaLo, pde, 0, access, index);
    }
    if ((pde & PT_ACCESSED_MASK) === 0) {
      if (!this.mayMark((vaLo >>> 22) << 2)) return WALK_NESTED_FAULT;
      this.mark(pdeWord, pde | PT_ACCESSED_MASK);
    }
    const word = this.entryWord(pde >>> 12, ((vaLo >>> 12) & 0x3ff) << 2);
    if (word < 0) return this.noEntry(word, access, index);
    const pte = this.i32[word]!;
    if ((pte & PT_PRESENT_MASK) === 0) return this.fault(0, access, index);
    return this.leaf(word, pte, 0, pte >>> 12, vaLo, pde & pte, 0, access, index);
  }

  /** Permissions, accessed and dirty bits of the leaf at `word`, then the final access. HOT */
  private leaf(
    word: number,
    lo: number,
    hi: number,
    gfn: number,
    vaLo: number,
    allowed: number,
    noExecute: number,
    access: number,
    index: number,
  ): number {
    // Fetches always, and everything where entries have no room for the bit (@apm 15.34.5).
    this.encrypted =
      (hi & this.cBitHi) !== 0 || (this.cBitHi !== 0 && (access === ACCESS_FETCH || this.mode === PAGING_32BIT));
    const user = index === 1;
    const userPage = (allowed & PT_USER_MASK) !== 0;
    if (user && !userPage) return this.fault(PFERR_PRESENT, access, index);
    let readable = !(index === 0 && this.smap && userPage);
    let writable = readable && ((allowed & PT_WRITABLE_MASK) !== 0 || (!user && !this.wp));
    const executable = noExecute >= 0 && (user || !this.smep || !userPage);
    if (this.pke && userPage) {
      const rights = this.pkru >>> (((hi >>> PT64_PKEY_HI_SHIFT) & 15) << 1);
      const noAccess = (rights & 1) !== 0;
      const noWrite = noAccess || ((rights & 2) !== 0 && (user || this.wp));
      if (access !== ACCESS_FETCH && (access === ACCESS_READ ? noAccess : noWrite)) {
        return this.fault(PFERR_PRESENT | PFERR_PK, access, index);
      }
      if (noAccess) readable = false;
      if (noWrite) writable = false;
    }
    const ok = access === ACCESS_READ ? readable : access === ACCESS_FETCH ? executable : writable;
    if (!ok) return this.fault(PFERR_PRESENT, access, index);
    const store = access !== ACCESS_READ && access !== ACCESS_FETCH;
    const marked = lo | (store ? PT_ACCESSED_MASK | PT_DIRTY_MASK : PT_ACCESSED_MASK);
    if (marked !== lo) {
      if (!this.mayMark((word & 1023) << 2)) return WALK_NESTED_FAULT;
      this.mark(word, marked);
    }
    if (this.pge && (lo & PT_GLOBAL_MASK) !== 0) this.flags |= TLB_GLOBAL;
    this.readable = readable;
    this.writable = writable && (marked & PT_DIRTY_MASK) !== 0;
    this.executable = executable;
    this.linear =
      (userPage ? LINEAR_USER : 0) |
      ((allowed & PT_WRITABLE_MASK) !== 0 ? LINEAR_WRITABLE : 0) |
      (noExecute < 0 ? LINEAR_NX : 0);
    return this.final(gfn, vaLo & 0xfff, access);
  }

  /** The access itself, after the guest's tables have spoken. HOT */
  private final(gfn: number, offset: number, access: number): number {
    this.gfn = gfn;
    if (!this.isNested) {
      if (gfn >= this.memory.frames) throw new Error(`a page table maps frame ${gfn}, beyond memory`);
      this.pfn = gfn;
      return WALK_OK;
    }
    const npt = this.nestedWalker;
    const fetch = access === ACCESS_FETCH;
    const store = access !== ACCESS_READ && !fetch;
    if (!npt.walk(gfn, store, fetch)) {
      npt.blameFinal(store, fetch, this.linear);
      return this.nestedFault(gfn, offset, this.encrypted, 0);
    }
    this.pfn = npt.pfn;
    if (!npt.readable) this.readable = false;
    if (!npt.writable) this.writable = false;
    if (!npt.executable) this.executable = false;
    return this.rmp === null ? WALK_OK : finalOwner(this, this.rmp, offset, store, fetch);
  }

  /** Index in 32-bit words of the entry at `offset` of the table in guest frame `gfn`; -1 for #NPF, NO_MEMORY. HOT */
  entryWord(gfn: number, offset: number): number {
    if (!this.isNested) return gfn < this.memory.frames ? (gfn << 10) | (offset >>> 2) : NO_MEMORY;
    const known = this.tables.lookup(gfn);
    if (known !== -1) return (known << 10) | (offset >>> 2);
    const npt = this.nestedWalker;
    // Tables are private memory always.
    const encrypted = this.cBitHi !== 0;
    let more = 0;
    // EPT without accessed and dirty bits takes the walk for a read, and the update of an entry for a write by itself.
    if (npt.walk(gfn, npt.tablesAreWrites, false)) {
      const verdict = this.rmp === null ? RMP_OK : tableOwner(this, this.rmp, gfn, encrypted);
      if (verdict === RMP_OK) {
        if (npt.tablesAreWrites) this.tables.insert(gfn, npt.pfn);
        else this.tableGfn = gfn;
        return (npt.pfn << 10) | (offset >>> 2);
      }
      if (verdict === RMP_NOT_VALIDATED) return NOT_VALIDATED;
      more = this.rmp!.errorHi;
    }
    npt.blameTable(npt.tablesAreWrites);
    this.nestedFault(gfn, offset, encrypted, more);
    return -1;
  }

  nestedFault(gfn: number, offset: number, encrypted: boolean, moreHi: number): number {
    const npt = this.nestedWalker;
    this.error = npt.error;
    this.errorHi = npt.errorHi | moreHi | (encrypted ? PFERR_GUEST_ENC_HI : 0);
    this.gfn = gfn;
    this.gpaOffset = offset;
    return WALK_NESTED_FAULT;
  }

  private noEntry(word: number, access: number, index: number): number {
    if (word === NO_MEMORY) return this.reserved(access, index);
    return word === NOT_VALIDATED ? WALK_NOT_VALIDATED : WALK_NESTED_FAULT;
  }

  /** Whether the entry that was read last may be updated; else the fault is filled in. */
  private mayMark(offset: number): boolean {
    const npt = this.nestedWalker;
    if (!this.isNested || npt.tablesAreWrites || npt.dry) return true;
    if (npt.walk(this.tableGfn, true, false)) return true;
    npt.blameTable(true);
    this.nestedFault(this.tableGfn, offset, this.cBitHi !== 0, 0);
    return false;
  }

  /** Stores the low half of an entry with its accessed or dirty bit. */
  private mark(word: number, lo: number): void {
    if (this.nestedWalker.dry) return;
    this.memory.noteWrite(word >>> 10);
    this.i32[word] = lo;
  }

  private reserved(access: number, index: number): number {
    return this.fault(this.profile.rsvdWithoutP ? PFERR_RSVD : PFERR_RSVD | PFERR_PRESENT, access, index);
  }

  private fault(error: number, access: number, index: number): number {
    let code = error;
    if (index === 1) code |= PFERR_USER;
    if (access === ACCESS_FETCH) {
      if (this.nxe || this.smep) code |= PFERR_FETCH;
    } else if (access !== ACCESS_READ) code |= PFERR_WRITE;
    this.error = code;
    this.errorHi = 0;
    return WALK_PAGE_FAULT;
  }
}
