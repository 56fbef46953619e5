/** What a vCPU's role says of its paging (@kvm mmu.c is_cr0_wp, is_cr4_smep, ... on struct kvm_mmu). */
import {
  EXT_CR4_PKE,
  EXT_CR4_PSE,
  EXT_CR4_SMAP,
  EXT_CR4_SMEP,
  ROLE_CR0_WP,
  ROLE_EFER_NX,
  ROLE_HAS_4_BYTE_GPTE,
  ROLE_LEVEL_MASK,
} from './role.ts';

/** The two words of a role. */
export interface CpuRole {
  readonly cpuRole: number;
  readonly cpuRoleExt: number;
}

/** Paging is on: a guest without paging has no level. @kvm mmu.c is_cr0_pg */
export function isCr0Pg(role: CpuRole): boolean {
  return (role.cpuRole & ROLE_LEVEL_MASK) > 0;
}

/** @kvm mmu.c is_cr0_wp */
export function isCr0Wp(role: CpuRole): boolean {
  return (role.cpuRole & ROLE_CR0_WP) !== 0;
}

/** Entries are 8 bytes. @kvm mmu.c is_cr4_pae */
export function isCr4Pae(role: CpuRole): boolean {
  return (role.cpuRole & ROLE_HAS_4_BYTE_GPTE) === 0;
}

/** @kvm mmu.c is_efer_nx */
export function isEferNx(role: CpuRole): boolean {
  return (role.cpuRole & ROLE_EFER_NX) !== 0;
}

/** @kvm mmu.c is_cr4_pse */
export function isCr4Pse(role: CpuRole): boolean {
  return (role.cpuRoleExt & EXT_CR4_PSE) !== 0;
}

/** @kvm mmu.c is_cr4_pke */
export function isCr4Pke(role: CpuRole): boolean {
  return (role.cpuRoleExt & EXT_CR4_PKE) !== 0;
}

/** @kvm mmu.c is_cr4_smap */
export function isCr4Smap(role: CpuRole): boolean {
  return (role.cpuRoleExt & EXT_CR4_SMAP) !== 0;
}

/** @kvm mmu.c is_cr4_smep */
export function isCr4Smep(role: CpuRole): boolean {
  return (role.cpuRoleExt & EXT_CR4_SMEP) !== 0;
}
