/** What the guest's control registers, and the place of its C-bit, make of a walk. */
import {
  PAE_RSVD_HI,
  PAGING_4LEVEL,
  PAGING_5LEVEL,
  PAGING_32BIT,
  PAGING_NONE,
  PAGING_PAE,
  PT64_FRAME_HI,
  PT64_NX_HI,
  rsvdPhysHi,
} from '../../arch/paging.ts';
import {
  CR0_PG,
  CR0_WP,
  CR4_LA57,
  CR4_PAE,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LMA,
  EFER_NX,
} from '../../arch/registers.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { HardwareProfile } from '../profile.ts';
import {
  WALK_MODE_AT,
  WALK_ROLE_AT,
  WALK_ROLE_CACHES,
  WALK_ROLE_PGE,
  WALK_ROLE_PSE,
  WALK_ROLE_SMAP,
  WALK_ROLE_WP,
  WALK_RSVD_HI_AT,
} from '../state.ts';
import type { WalkCache } from './walk-cache.ts';

/**
 * The part of the walker (GuestWalker) that changes with them and not with the address: the paging mode, what permissions go by, and which
 * bits are reserved.
 */
export class PagingRegisters {
  protected readonly i32: Int32Array;
  protected readonly profile: HardwareProfile;
  protected readonly upper: WalkCache;
  private readonly profilePhysHi: number;
  /** High half of the physical address bits that the processor does not have, or that do not mean an address: not the C-bit. */
  physHi: number;
  /** High half of the C-bit: 0 for guests without encrypted memory (@apm 15.34). */
  protected cBitHi = 0;
  protected frameHi = PT64_FRAME_HI;
  /** PAGING_*: what the guest's control registers select. */
  mode = PAGING_NONE;
  protected wp = false;
  protected smep = false;
  protected smap = false;
  protected pke = false;
  protected pse = false;
  protected pge = false;
  protected nxe = false;
  protected pkru = 0;
  /** What the above were made of. */
  private cr0 = 0;
  private cr4 = 0;
  private efer = 0;
  /** Reserved bits of the high half of every entry. */
  protected rsvdHi = 0;
  protected cr3Lo = 0;
  protected cr3Hi = 0;

  constructor(memory: PhysicalMemory, profile: HardwareProfile, upper: WalkCache) {
    this.i32 = memory.i32;
    this.profile = profile;
    this.upper = upper;
    this.profilePhysHi = rsvdPhysHi(profile.maxPhyAddr);
    this.physHi = this.profilePhysHi;
    this.share();
  }

  /** Guest physical addresses are of `bits` bits from the next `configure` on: a TD has its own width. */
  setPhysBits(bits: number): void {
    this.physHi = rsvdPhysHi(bits);
    // No control registers are these: what follows from them is computed again.
    this.cr0 = -1;
  }

  /** A guest is entered whose memory is encrypted where bit `cBit` of its entries says so, or (-1) one without. HOT */
  setEncryptionBit(cBit: number): void {
    const bitHi = cBit < 0 ? 0 : 1 << (cBit - 32);
    if (bitHi === this.cBitHi) return;
    this.cBitHi = bitHi;
    this.physHi = this.profilePhysHi & ~bitHi;
    this.frameHi = PT64_FRAME_HI & ~bitHi;
    // The next configure is not to find everything as it was.
    this.efer = -1;
  }

  /** Takes over the registers that select and modify paging; false when only CR3, or nothing, is new. HOT */
  configure(cr0: number, cr3Lo: number, cr3Hi: number, cr4: number, efer: number, pkru: number): boolean {
    this.cr3Lo = cr3Lo;
    this.cr3Hi = cr3Hi;
    if (cr0 === this.cr0 && cr4 === this.cr4 && efer === this.efer && pkru === this.pkru) return false;
    this.cr0 = cr0;
    this.cr4 = cr4;
    this.efer = efer;
    this.wp = (cr0 & CR0_WP) !== 0;
    this.smep = (cr4 & CR4_SMEP) !== 0;
    this.smap = (cr4 & CR4_SMAP) !== 0;
    this.pse = (cr4 & CR4_PSE) !== 0;
    this.pge = (cr4 & CR4_PGE) !== 0;
    this.pkru = pkru;
    const pae = (cr4 & CR4_PAE) !== 0;
    const long = (efer & EFER_LMA) !== 0;
    this.nxe = pae && (efer & EFER_NX) !== 0;
    this.pke = long && (cr4 & CR4_PKE) !== 0;
    this.rsvdHi = this.physHi | (this.nxe ? 0 : PT64_NX_HI) | (long ? 0 : PAE_RSVD_HI);
    if ((cr0 & CR0_PG) === 0) this.mode = PAGING_NONE;
    else if (long) this.mode = (cr4 & CR4_LA57) !== 0 ? PAGING_5LEVEL : PAGING_4LEVEL;
    else this.mode = pae ? PAGING_PAE : PAGING_32BIT;
    this.share();
    return true;
  }

  /** What the generated refill (refill.ts) has to know of all this. */
  private share(): void {
    const { i32, mode } = this;
    const levels = mode === PAGING_4LEVEL ? 4 : mode === PAGING_32BIT ? 2 : 0;
    // Not on a processor with EPT.
    const plain = this.profile.vendor !== 'intel' && !this.pke && this.cBitHi === 0;
    i32[WALK_MODE_AT >> 2] = plain ? levels : 0;
    i32[WALK_RSVD_HI_AT >> 2] = this.rsvdHi;
    i32[WALK_ROLE_AT >> 2] =
      (this.wp ? WALK_ROLE_WP : 0) |
      (this.smap ? WALK_ROLE_SMAP : 0) |
      (this.pge ? WALK_ROLE_PGE : 0) |
      (this.pse ? WALK_ROLE_PSE : 0) |
      (this.upper.enabled ? WALK_ROLE_CACHES : 0);
  }
}
