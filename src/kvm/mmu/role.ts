/**
 * A shadow page's role: everything that makes two page tables for the same gfn different (@kvm kvm_host.h union
 * kvm_mmu_page_role). One 32-bit word, compared whole.
 *
 *  31 .... 24  23..20  19   18    17    16    15    14    13  12   11   10..8   7    6..5   4    3..0
 *     smm        0   mirr pass  guest  !ad  smap! smep!  wp  nxe  inv  access direct quad 4byte level
 */
export const ROLE_LEVEL_MASK = 0xf;
export const ROLE_HAS_4_BYTE_GPTE = 1 << 4;
export const ROLE_QUADRANT_SHIFT = 5;
export const ROLE_QUADRANT_MASK = 3 << 5;
export const ROLE_DIRECT = 1 << 7;
export const ROLE_ACCESS_SHIFT = 8;
export const ROLE_ACCESS_MASK = 7 << 8;
/** The page is no longer used for translation and waits to be freed. */
export const ROLE_INVALID = 1 << 11;
export const ROLE_EFER_NX = 1 << 12;
export const ROLE_CR0_WP = 1 << 13;
export const ROLE_SMEP_ANDNOT_WP = 1 << 14;
export const ROLE_SMAP_ANDNOT_WP = 1 << 15;
export const ROLE_AD_DISABLED = 1 << 16;
export const ROLE_GUEST_MODE = 1 << 17;
export const ROLE_PASSTHROUGH = 1 << 18;
/** The processor does not walk the page: it mirrors one that the TDX module owns. */
export const ROLE_IS_MIRROR = 1 << 19;
export const ROLE_SMM = 1 << 24;

/** Rights of a translation (@kvm spte.h ACC_*). */
export const ACC_EXEC_MASK = 1;
export const ACC_WRITE_MASK = 2;
export const ACC_USER_MASK = 4;
export const ACC_ALL = 7;

/** Level of the table: 1 holds 4 KiB mappings. */
export function roleLevel(role: number): number {
  return role & ROLE_LEVEL_MASK;
}

/** ACC_* of everything the table maps. */
export function roleAccess(role: number): number {
  return (role & ROLE_ACCESS_MASK) >> ROLE_ACCESS_SHIFT;
}

/** Address space of the page: 1 for SMM (@kvm mmu_internal.h kvm_mmu_role_as_id). */
export function roleAsId(role: number): number {
  return role >>> 24 !== 0 ? 1 : 0;
}

/*
 * The other half of a vCPU's role: paging modes that do not change shadow pages of their own but do change the walk (@kvm
 * kvm_host.h union kvm_mmu_extended_role). A fresh word is 0, so a valid one is never 0.
 */
export const EXT_VALID = 1 << 0;
export const EXT_EXECONLY = 1 << 1;
export const EXT_CR4_PSE = 1 << 2;
export const EXT_CR4_PKE = 1 << 3;
export const EXT_CR4_SMAP = 1 << 4;
export const EXT_CR4_SMEP = 1 << 5;
export const EXT_CR4_LA57 = 1 << 6;
export const EXT_EFER_LMA = 1 << 7;

const ACCESS_TEXT = ['---', '--x', 'w--', 'w-x', '-u-', '-ux', 'wu-', 'wux'] as const;

/** The text of a shadow page in kvmmmu events (@kvm mmutrace.h KVM_MMU_PAGE_PRINTK). */
export function shadowPageText(
  role: number,
  gfn: number,
  validGen: number,
  rootCount: number,
  unsync: boolean,
): string {
  const level = roleLevel(role);
  const bytes = (role & ROLE_HAS_4_BYTE_GPTE) !== 0 ? 4 : 8;
  const quadrant = (role & ROLE_QUADRANT_MASK) >> ROLE_QUADRANT_SHIFT;
  const direct = (role & ROLE_DIRECT) !== 0 ? ' direct' : '';
  const access = ACCESS_TEXT[roleAccess(role)];
  const invalid = (role & ROLE_INVALID) !== 0 ? ' invalid' : '';
  const nx = (role & ROLE_EFER_NX) !== 0 ? '' : '!';
  const ad = (role & ROLE_AD_DISABLED) !== 0 ? '!' : '';
  return (
    `sp gen ${validGen} gfn ${gfn.toString(16)} l${level} ${bytes}-byte q${quadrant}${direct} ${access}${invalid}` +
    ` ${nx}nxe ${ad}ad root ${rootCount} ${unsync ? 'unsync' : 'sync'}`
  );
}
