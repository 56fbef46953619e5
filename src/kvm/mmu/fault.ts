/** One page fault on its way through the stages (@kvm mmu_internal.h struct kvm_page_fault). One object a vCPU, filled anew each time. */
import {
  PFERR_FETCH,
  PFERR_PRESENT,
  PFERR_PRIVATE_ACCESS_HI,
  PFERR_RSVD,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import { PG_LEVEL_1G, PG_LEVEL_4K } from '../../arch/paging.ts';
import { KVM_HVA_ERR_BAD } from '../memslots/hva.ts';
import type { Memslot } from '../memslots/memslots.ts';
import { gpaHalvesToGfn } from './gpa.ts';
import { KVM_PFN_ERR_FAULT } from './pfn.ts';
import { ACC_ALL } from './role.ts';

export class PageFault {
  /** Faulting address in halves: a gpa in a direct MMU. */
  addrLo = 0;
  addrHi = 0;
  errorLo = 0;
  errorHi = 0;
  /** Made by KVM itself, ahead of an access. */
  prefetch = false;

  // Decoded once from the error code.
  exec = false;
  write = false;
  present = false;
  rsvd = false;
  user = false;
  isPrivate = false;

  /** The tables are those of two-dimensional paging, and the address is the guest's physical one. */
  isTdp = false;
  /** ... and the TDP MMU's own, rather than the shadow MMU's. */
  inTdpMmu = false;
  nxHugePageWorkaroundEnabled = false;
  hugePageDisallowed = false;

  /** Largest level that the mapping may have. */
  maxLevel = PG_LEVEL_1G;
  /** Level that host mapping and slot allow. */
  reqLevel = PG_LEVEL_4K;
  /** Level that will be mapped. */
  goalLevel = PG_LEVEL_4K;

  gfn = 0;
  /** Rights that the guest's own tables give, ACC_*: all where KVM does not shadow them. */
  ptAccess = ACC_ALL;
  slot: Memslot | null = null;
  /** mmu_invalidate_seq when it was snapshot. */
  mmuSeq = 0;
  /** Frame, or a negative KVM_PFN_*. */
  pfn = KVM_PFN_ERR_FAULT;
  hva = KVM_HVA_ERR_BAD;
  mapWritable = false;
  writeFaultToShadowPgtable = false;

  /**
   * Fills every field for a new fault.
   * @param startsWithErrors pfn and hva are error values until they are known, rather than 0
   * HOT
   */
  reset(
    addrLo: number,
    addrHi: number,
    errorLo: number,
    errorHi: number,
    prefetch: boolean,
    startsWithErrors: boolean,
  ): void {
    this.addrLo = addrLo;
    this.addrHi = addrHi;
    this.errorLo = errorLo;
    this.errorHi = errorHi;
    this.prefetch = prefetch;
    this.exec = (errorLo & PFERR_FETCH) !== 0;
    this.write = (errorLo & PFERR_WRITE) !== 0;
    this.present = (errorLo & PFERR_PRESENT) !== 0;
    this.rsvd = (errorLo & PFERR_RSVD) !== 0;
    this.user = (errorLo & PFERR_USER) !== 0;
    this.isPrivate = (errorHi & PFERR_PRIVATE_ACCESS_HI) !== 0;
    this.isTdp = false;
    this.inTdpMmu = false;
    this.nxHugePageWorkaroundEnabled = false;
    this.hugePageDisallowed = false;
    this.maxLevel = PG_LEVEL_1G;
    this.reqLevel = PG_LEVEL_4K;
    this.goalLevel = PG_LEVEL_4K;
    this.gfn = gpaHalvesToGfn(addrLo, addrHi);
    this.ptAccess = ACC_ALL;
    this.slot = null;
    this.mmuSeq = 0;
    this.pfn = startsWithErrors ? KVM_PFN_ERR_FAULT : 0;
    this.hva = startsWithErrors ? KVM_HVA_ERR_BAD : 0;
    this.mapWritable = false;
    this.writeFaultToShadowPgtable = false;
  }
}
