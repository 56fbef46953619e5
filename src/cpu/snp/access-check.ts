/**
 * The checks against the reverse map that follow a translation (@apm 15.36.10). Without the guest's C-bit, and for guests without SNP, a write
 * needs a page of the hypervisor's, and a read of another's page gets its ciphertext. With the C-bit the page must be the guest's own,
 * at this guest-physical address and of the size that nested tables map; then validated, else the guest gets #VC; then open to the guest's VMPL.
 */
import { PFERR_GUEST_SIZEM_HI, PFERR_GUEST_VMPL_HI } from '../../arch/error-code.ts';
import {
  RMP_2M,
  RMP_ASID_MASK,
  RMP_ASID_SHIFT,
  RMP_ASSIGNED,
  RMP_GFN_HI_MASK,
  RMP_GFN_LO_SHIFT,
  RMP_VALIDATED,
  VMPL_ALL,
  VMPL_EXECUTE_SUPERVISOR,
  VMPL_EXECUTE_USER,
  VMPL_READ,
  VMPL_WRITE,
} from '../../arch/rmp.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { Rmp } from './rmp.ts';

export const RMP_OK = 0;
/** #NPF with RMP, or of a host #PF with RMP; `errorHi` has more. */
export const RMP_VIOLATION = 1;
/** #VC with PAGE_NOT_VALIDATED. */
export const RMP_NOT_VALIDATED = 2;

export class AccessCheck {
  private readonly i32: Int32Array;
  private readonly rmp: Rmp;
  /** The guest that runs is an SNP guest; its ASID and VMPL. */
  snp = false;
  asid = 0;
  vmpl = 0;
  /** Asked by PVALIDATE and RMPADJUST: whether the page is the guest's, which is all that they need. */
  ownerOnly = false;
  /** After a check: SIZEM and VMPL of the error code's high half. */
  errorHi = 0;
  /** After RMP_OK: what the level may do with the page, VMPL_*. */
  permissions = VMPL_ALL;
  /** After RMP_OK: the page is another's, and what is read of it is ciphertext. */
  foreign = false;

  /** Physical address of the entry of frame 0. */
  get table(): number {
    return this.rmp.entry(0) * 4;
  }

  constructor(memory: PhysicalMemory, rmp: Rmp) {
    this.i32 = memory.i32;
    this.rmp = rmp;
  }

  /** Frame `pfn`, which nested tables map at `gfn` in a page of level `level`. HOT */
  check(
    pfn: number,
    gfn: number,
    level: number,
    encrypted: boolean,
    store: boolean,
    fetch: boolean,
    user: boolean,
  ): number {
    const word = this.rmp.entry(pfn);
    const first = this.i32[word]!;
    this.errorHi = 0;
    if (!encrypted || !this.snp) {
      this.foreign = (first & RMP_ASSIGNED) !== 0;
      this.permissions = this.foreign ? VMPL_READ | VMPL_EXECUTE_USER | VMPL_EXECUTE_SUPERVISOR : VMPL_ALL;
      return this.foreign && store ? RMP_VIOLATION : RMP_OK;
    }
    this.foreign = false;
    const second = this.i32[word + 1]!;
    const owner = (second >>> RMP_ASID_SHIFT) & RMP_ASID_MASK;
    if ((first & RMP_ASSIGNED) === 0 || owner !== this.asid) return RMP_VIOLATION;
    if ((second & RMP_GFN_HI_MASK) * 0x100000 + (first >>> RMP_GFN_LO_SHIFT) !== gfn) return RMP_VIOLATION;
    if (this.ownerOnly) return RMP_OK;
    if (((first & RMP_2M) !== 0) !== level > 1) {
      // A small mapping of a large page can be had by PSMASH.
      this.errorHi = level > 1 ? 0 : PFERR_GUEST_SIZEM_HI;
      return RMP_VIOLATION;
    }
    if ((second & RMP_VALIDATED) === 0) return RMP_NOT_VALIDATED;
    const permissions = (this.i32[word + 2]! >>> (this.vmpl * 8)) & 0xff;
    const needed = store
      ? VMPL_READ | VMPL_WRITE
      : fetch
        ? user
          ? VMPL_EXECUTE_USER
          : VMPL_EXECUTE_SUPERVISOR
        : VMPL_READ;
    this.permissions = permissions;
    if ((permissions & needed) === needed) return RMP_OK;
    this.errorHi = PFERR_GUEST_VMPL_HI;
    return RMP_VIOLATION;
  }
}
