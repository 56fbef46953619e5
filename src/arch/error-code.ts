/**
 * Page-fault error codes: what #PF pushes (@sdm 4.7), what #NPF reports in EXITINFO1 (@apm 15.25.6, 15.36.10) and the two
 * synthetic bits that KVM adds for itself.
 *
 *  63 ........ 49   48   47 ..... 37  36   35    34  33   32   31  30 ..... 16 15  14 ... 6  5  4    3    2 1 0
 *     reserved PRIV IMPL  reserved    VMPL SIZEM ENC PAGE FINAL RMP  reserved  SGX reserved  PK FETCH RSVD U W P
 */
import { type Flag, flag } from './flags.ts';

/** Low half: the legacy word. */
export const PFERR_PRESENT = 1 << 0;
export const PFERR_WRITE = 1 << 1;
export const PFERR_USER = 1 << 2;
export const PFERR_RSVD = 1 << 3;
export const PFERR_FETCH = 1 << 4;
export const PFERR_PK = 1 << 5;
export const PFERR_SGX = 1 << 15;
export const PFERR_GUEST_RMP = 1 << 31;

/** High half: bit 32 and up. */
export const PFERR_GUEST_FINAL_HI = 1 << 0;
export const PFERR_GUEST_PAGE_HI = 1 << 1;
export const PFERR_GUEST_ENC_HI = 1 << 2;
export const PFERR_GUEST_SIZEM_HI = 1 << 3;
export const PFERR_GUEST_VMPL_HI = 1 << 4;
/** Bit 48, set by KVM alone: an implicit supervisor access (descriptor tables), which EFLAGS.AC cannot exempt from SMAP. */
export const PFERR_IMPLICIT_ACCESS_HI = 1 << 16;
/** Bit 49, set by KVM alone: the access is to private memory. */
export const PFERR_PRIVATE_ACCESS_HI = 1 << 17;
/** Bits that hardware never sets, because KVM uses them for itself. */
export const PFERR_SYNTHETIC_MASK_HI = PFERR_IMPLICIT_ACCESS_HI | PFERR_PRIVATE_ACCESS_HI;

/** Every defined bit, in bit order: definition, printer and documentation in one. */
export const PFERR_FLAGS: readonly Flag[] = [
  flag('P', 0, 'the translation was present: a permission or reserved-bit violation, not a missing page'),
  flag('W', 1, 'the access was a write'),
  flag('U', 2, 'the access was made in user mode (guest page-table walks of a nested fault always say so)'),
  flag('RSVD', 3, 'a reserved bit was set in a paging entry'),
  flag('FETCH', 4, 'the access was an instruction fetch'),
  flag('PK', 5, 'a protection key refused the access'),
  flag('SGX', 15, 'SGX access control refused the access'),
  flag('RMP', 31, 'the RMP check failed (SEV-SNP)'),
  flag('GUEST_FINAL', 32, "the fault was on the guest's final access, after its own page tables had translated it"),
  flag('GUEST_PAGE', 33, "the fault was on an access to the guest's page tables"),
  flag('ENC', 34, 'the guest C-bit was 1: an encrypted access'),
  flag('SIZEM', 35, 'the page size of PVALIDATE or RMPADJUST did not match'),
  flag('VMPL', 36, 'the VMPL permission check failed'),
  flag('IMPLICIT_ACCESS', 48, 'an implicit supervisor access, emulated by KVM (synthetic, never from hardware)'),
  flag('PRIVATE_ACCESS', 49, 'an access to private memory (synthetic, never from hardware)'),
];
