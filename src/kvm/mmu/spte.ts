/**
 * Entries of the page tables that KVM builds (@kvm spte.h, spte.c). Nested page tables (and shadow tables) use the processor's long-mode
 * format, EPT its own; the bits that both ignore are KVM's.
 *
 *  present, NPT and shadow:
 *   63  62 61..52  51 ............ 12   11   10   9    8  7  6 5 4..3 2 1 0
 *   NX   -   -     frame               MMUP MMUW HOSTW -  PS D A  -   U W P
 *  present, EPT:
 *   63  62..59 58   57  56..55 54..53 52  51 ... 12  11  10  9 8  7   6   5..3  2 1 0
 *   SVE   -   MMUW HOSTW saved   -    AD  frame     MMUP  - D A  PS IPAT  MT    X W R
 *  MMIO (not MMU-present):
 *   63  62 .............. 52  51 .......... 12  11  10 ... 3   2..0
 *   -   generation 18..8      gfn (51: rsvd)    0   gen 7..0   access (EPT: 110b, no access)
 *
 * Not present: 0x8000000000000000 (EPT: suppresses #VE). Frozen: 0x80000000000005a0, an entry that another thread works on.
 */
import {
  EPT_ACCESSED_MASK,
  EPT_DIRTY_MASK,
  EPT_EXECUTABLE_MASK,
  EPT_IPAT_MASK,
  EPT_MT_SHIFT,
  EPT_READABLE_MASK,
  EPT_RWX_MASK,
  EPT_SUPPRESS_VE_HI,
  EPT_WRITABLE_MASK,
  PT_ACCESSED_MASK,
  PT_DIRTY_MASK,
  PT_PAGE_SIZE_MASK,
  PT_PRESENT_MASK,
  PT_USER_MASK,
  PT_WRITABLE_MASK,
  PT64_FRAME_HI,
  PT64_NX_HI,
} from '../../arch/paging.ts';
import { ACC_USER_MASK, ACC_WRITE_MASK } from './role.ts';

/** Backed by memory: a leaf or a table; in a low bit that every format ignores. MMIO and frozen entries do not have it. */
export const SPTE_MMU_PRESENT_MASK = 1 << 11;

/** Bit 52: this entry has no A/D bits, so access is tracked by taking its rights away. */
export const SPTE_TDP_AD_DISABLED_HI = 1 << 20;
/** Bit 53: writes are caught by write protection although the hardware has a D bit. */
export const SPTE_TDP_AD_WRPROT_ONLY_HI = 1 << 21;
export const SPTE_TDP_AD_MASK_HI = SPTE_TDP_AD_DISABLED_HI | SPTE_TDP_AD_WRPROT_ONLY_HI;

export const SHADOW_NONPRESENT_LO = 0;
export const SHADOW_NONPRESENT_HI = 0x80000000 | 0;
export const FROZEN_SPTE_LO = 0x5a0;
export const FROZEN_SPTE_HI = 0x80000000 | 0;

const DEFAULT_HOST_WRITABLE = 1 << 9;
const DEFAULT_MMU_WRITABLE = 1 << 10;
const EPT_HOST_WRITABLE_HI = 1 << 25;
const EPT_MMU_WRITABLE_HI = 1 << 26;

/** R and X of an access-tracked EPT entry are kept 54 bits higher up (@kvm spte.h SHADOW_ACC_TRACK_SAVED_BITS_SHIFT). */
const ACC_TRACK_SAVED_BITS = EPT_READABLE_MASK | EPT_EXECUTABLE_MASK;
const ACC_TRACK_SAVED_HI_SHIFT = 54 - 32;

/** Generation of an MMIO entry: 19 bits, 8 in bits 10:3 and 11 in bits 62:52. */
export const MMIO_SPTE_GEN_MASK = 0x7ffff;
const MMIO_GEN_LOW_MASK = 0xff << 3;
const MMIO_GEN_HIGH_MASK_HI = 0x7ff << 20;

/** What the bits are in one machine's tables, as data (@kvm spte.c shadow_*_mask). */
export interface SpteMasks {
  readonly presentLo: number;
  readonly presentHi: number;
  readonly user: number;
  readonly x: number;
  readonly nxHi: number;
  /** 0 when the hardware sets no A/D bits. */
  readonly accessed: number;
  readonly dirty: number;
  readonly hostWritableLo: number;
  readonly hostWritableHi: number;
  readonly mmuWritableLo: number;
  readonly mmuWritableHi: number;
  /** Memory type of ordinary memory. */
  readonly memtype: number;
  /** Rights taken away from an access-tracked entry. */
  readonly accTrack: number;
  readonly mmioValueLo: number;
  readonly mmioValueHi: number;
  readonly mmioMaskLo: number;
  readonly mmioMaskHi: number;
  /** Rights that an MMIO entry remembers. */
  readonly mmioAccess: number;
  /** High half of the physical bits that L1TF mitigation sets in MMIO entries, where the gfn's own go 5 bits higher; 0 for none. */
  readonly nonpresentOrRsvdHi: number;
}

/**
 * Masks of nested page tables and shadow tables on a processor with `maxPhyAddr` physical bits (@kvm spte.c
 * kvm_mmu_reset_all_pte_masks).
 */
export function defaultSpteMasks(maxPhyAddr: number): SpteMasks {
  // Bit 51 must be reserved, or an MMIO entry would be an ordinary one.
  const mmio = maxPhyAddr < 52;
  return {
    presentLo: PT_PRESENT_MASK,
    presentHi: 0,
    user: PT_USER_MASK,
    x: 0,
    nxHi: PT64_NX_HI,
    accessed: PT_ACCESSED_MASK,
    dirty: PT_DIRTY_MASK,
    hostWritableLo: DEFAULT_HOST_WRITABLE,
    hostWritableHi: 0,
    mmuWritableLo: DEFAULT_MMU_WRITABLE,
    mmuWritableHi: 0,
    memtype: 0,
    accTrack: 0,
    mmioValueLo: mmio ? PT_PRESENT_MASK : 0,
    mmioValueHi: mmio ? 1 << 19 : 0,
    mmioMaskLo: mmio ? PT_PRESENT_MASK : 0,
    mmioMaskHi: mmio ? 1 << 19 : 0,
    mmioAccess: ACC_WRITE_MASK | ACC_USER_MASK,
    nonpresentOrRsvdHi: 0,
  };
}

/** Masks of EPT (@kvm spte.c kvm_mmu_set_ept_masks); `l1tfHi` as in SpteMasks.nonpresentOrRsvdHi. */
export function eptSpteMasks(ept: { hasAdBits: boolean; hasExecOnly: boolean; l1tfHi: number }): SpteMasks {
  const { hasAdBits, hasExecOnly, l1tfHi } = ept;
  return {
    presentLo: hasExecOnly ? 0 : EPT_READABLE_MASK,
    presentHi: EPT_SUPPRESS_VE_HI,
    user: EPT_READABLE_MASK,
    x: EPT_EXECUTABLE_MASK,
    nxHi: 0,
    accessed: hasAdBits ? EPT_ACCESSED_MASK : 0,
    dirty: hasAdBits ? EPT_DIRTY_MASK : 0,
    hostWritableLo: 0,
    hostWritableHi: EPT_HOST_WRITABLE_HI,
    mmuWritableLo: 0,
    mmuWritableHi: EPT_MMU_WRITABLE_HI,
    memtype: (6 << EPT_MT_SHIFT) | EPT_IPAT_MASK,
    accTrack: EPT_RWX_MASK,
    mmioValueLo: EPT_WRITABLE_MASK | EPT_EXECUTABLE_MASK,
    mmioValueHi: 0,
    mmioMaskLo: EPT_RWX_MASK,
    mmioMaskHi: EPT_SUPPRESS_VE_HI,
    mmioAccess: 0,
    nonpresentOrRsvdHi: l1tfHi,
  };
}

/** A 64-bit entry as a result: functions that make one leave it here. */
export class SpteWord {
  lo = 0;
  hi = 0;
}

/** @kvm spte.h is_shadow_present_pte. HOT */
export function isShadowPresent(lo: number): boolean {
  return (lo & SPTE_MMU_PRESENT_MASK) !== 0;
}

/** @kvm spte.h is_frozen_spte. HOT */
export function isFrozenSpte(lo: number, hi: number): boolean {
  return lo === FROZEN_SPTE_LO && hi === FROZEN_SPTE_HI;
}

/** Whether the bits are an MMIO entry's; callers also ask whether MMIO caching is on (@kvm spte.h is_mmio_spte). HOT */
export function isMmioSpte(m: SpteMasks, lo: number, hi: number): boolean {
  return (lo & m.mmioMaskLo) === m.mmioValueLo && (hi & m.mmioMaskHi) === m.mmioValueHi;
}

/** @kvm spte.h is_large_pte. HOT */
export function isLargePte(lo: number): boolean {
  return (lo & PT_PAGE_SIZE_MASK) !== 0;
}

/** @kvm spte.h is_last_spte. HOT */
export function isLastSpte(lo: number, level: number): boolean {
  return level === 1 || (lo & PT_PAGE_SIZE_MASK) !== 0;
}

/** @kvm spte.h spte_to_pfn. HOT */
export function sptePfn(lo: number, hi: number): number {
  return (hi & PT64_FRAME_HI) * 0x100000 + (lo >>> 12);
}

/** @kvm spte.h is_writable_pte. HOT */
export function isWritable(lo: number): boolean {
  return (lo & PT_WRITABLE_MASK) !== 0;
}

/** KVM itself allows writes; if the entry is not writable it was protected for dirty logging (@kvm spte.h is_mmu_writable_spte). HOT */
export function isMmuWritable(m: SpteMasks, lo: number, hi: number): boolean {
  return ((lo & m.mmuWritableLo) | (hi & m.mmuWritableHi)) !== 0;
}

/** @kvm spte.h is_executable_pte */
export function isExecutable(m: SpteMasks, lo: number, hi: number): boolean {
  return (lo & m.x) === m.x && (hi & m.nxHi) === 0;
}

/** @kvm spte.h spte_ad_enabled. HOT */
export function spteAdEnabled(hi: number): boolean {
  return (hi & SPTE_TDP_AD_MASK_HI) !== SPTE_TDP_AD_DISABLED_HI;
}

/** @kvm spte.h is_access_track_spte */
export function isAccessTrack(m: SpteMasks, lo: number, hi: number): boolean {
  return !spteAdEnabled(hi) && (lo & m.accTrack) === 0;
}

/** @kvm spte.h is_accessed_spte */
export function isAccessedSpte(m: SpteMasks, lo: number, hi: number): boolean {
  const accessed = spteAdEnabled(hi) ? m.accessed : 0;
  return accessed !== 0 ? (lo & accessed) !== 0 : !isAccessTrack(m, lo, hi);
}

/** @kvm spte.h is_dirty_spte */
export function isDirtySpte(m: SpteMasks, lo: number, hi: number): boolean {
  const dirty = spteAdEnabled(hi) ? m.dirty : 0;
  return (lo & (dirty !== 0 ? dirty : PT_WRITABLE_MASK)) !== 0;
}

/** Whether a writable entry is MMU-writable and an MMU-writable one host-writable (@kvm spte.h check_spte_writable_invariants). */
export function spteWritableInvariantsHold(m: SpteMasks, lo: number, hi: number): boolean {
  if (isMmuWritable(m, lo, hi)) return ((lo & m.hostWritableLo) | (hi & m.hostWritableHi)) !== 0;
  return !isWritable(lo);
}

/** @kvm spte.h get_mmio_spte_generation. HOT */
export function mmioSpteGeneration(lo: number, hi: number): number {
  return ((lo & MMIO_GEN_LOW_MASK) >>> 3) | ((hi & MMIO_GEN_HIGH_MASK_HI) >>> (20 - 8));
}

/** @kvm mmu.c get_mmio_spte_gfn */
export function mmioSpteGfn(m: SpteMasks, lo: number, hi: number): number {
  // Below the mitigation's bits the gfn is in place, the bits it took are 5 higher; bit 51 of the MMIO value is not part of it.
  const low =
    m.nonpresentOrRsvdHi === 0
      ? hi & PT64_FRAME_HI & ~m.mmioMaskHi
      : hi & ((m.nonpresentOrRsvdHi & -m.nonpresentOrRsvdHi) - 1);
  const moved = (hi >>> 5) & m.nonpresentOrRsvdHi;
  return (low | moved) * 0x100000 + (lo >>> 12);
}

/** @kvm mmu.c get_mmio_spte_access */
export function mmioSpteAccess(m: SpteMasks, lo: number): number {
  return lo & m.mmioAccess;
}

/** An entry that says "no memory here, emulate" (@kvm spte.c make_mmio_spte). HOT */
export function makeMmioSpte(m: SpteMasks, out: SpteWord, generation: number, gfn: number, access: number): void {
  const gfnHi = Math.floor(gfn / 0x100000);
  out.lo = ((generation << 3) & MMIO_GEN_LOW_MASK) | m.mmioValueLo | (access & m.mmioAccess) | (gfn << 12);
  out.hi =
    ((generation << (20 - 8)) & MMIO_GEN_HIGH_MASK_HI) |
    m.mmioValueHi |
    gfnHi |
    m.nonpresentOrRsvdHi |
    ((gfnHi & m.nonpresentOrRsvdHi) << 5);
}

/** An entry that points to the table in frame `childPfn` (@kvm spte.c make_nonleaf_spte). HOT */
export function makeNonleafSpte(m: SpteMasks, out: SpteWord, childPfn: number, adDisabled: boolean): void {
  out.lo =
    SPTE_MMU_PRESENT_MASK |
    (childPfn << 12) |
    m.presentLo |
    PT_WRITABLE_MASK |
    m.user |
    m.x |
    (adDisabled ? 0 : m.accessed);
  out.hi = Math.floor(childPfn / 0x100000) | m.presentHi | (adDisabled ? SPTE_TDP_AD_DISABLED_HI : 0);
}

/** Takes what makes the entry accessed: its A bit, or its rights (@kvm spte.c mark_spte_for_access_track). */
export function markSpteForAccessTrack(m: SpteMasks, spte: SpteWord): void {
  if (spteAdEnabled(spte.hi)) {
    spte.lo &= ~m.accessed;
    return;
  }
  if (isAccessTrack(m, spte.lo, spte.hi)) return;
  spte.hi |= (spte.lo & ACC_TRACK_SAVED_BITS) << ACC_TRACK_SAVED_HI_SHIFT;
  spte.lo &= ~m.accTrack;
}

/** Gives an access-tracked entry its rights back (@kvm spte.h restore_acc_track_spte). */
export function restoreAccTrackSpte(m: SpteMasks, spte: SpteWord): void {
  const saved = (spte.hi >>> ACC_TRACK_SAVED_HI_SHIFT) & ACC_TRACK_SAVED_BITS;
  spte.lo = (spte.lo & ~m.accTrack) | saved;
  spte.hi &= ~(ACC_TRACK_SAVED_BITS << ACC_TRACK_SAVED_HI_SHIFT);
}

/** @kvm spte.c make_spte_executable */
export function makeSpteExecutable(m: SpteMasks, spte: SpteWord): void {
  const tracked = isAccessTrack(m, spte.lo, spte.hi);
  if (tracked) restoreAccTrackSpte(m, spte);
  spte.hi &= ~m.nxHi;
  spte.lo |= m.x;
  if (tracked) markSpteForAccessTrack(m, spte);
}
