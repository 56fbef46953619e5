/** From control registers to the MMU's role, and what follows from it (@kvm mmu.c kvm_calc_cpu_role, init_kvm_tdp_mmu, kvm_init_mmu). */
import {
  CR0_PG,
  CR0_WP,
  CR4_LA57,
  CR4_PAE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LMA,
  EFER_NX,
} from '../../arch/registers.ts';
import { VMX_EPTP_PWL_5, VMX_EPTP_PWL_MASK } from '../../arch/vmx-controls.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_GBPAGES } from '../x86/cpuid-features.ts';
import { guestCpuidHas, guestCpuidIsIntelCompatible } from '../x86/guest-cpuid.ts';
import type { Mmu } from './mmu-context.ts';
import { mmuIsNested } from './mmu-is-nested.ts';
import { updatePermissionBitmask, updatePermissions } from './permission.ts';
import { resetRsvdBits, resetRsvdBitsEpt } from './reset-rsvd-bits.ts';
import {
  ACC_ALL,
  EXT_CR4_LA57,
  EXT_CR4_PKE,
  EXT_CR4_PSE,
  EXT_CR4_SMAP,
  EXT_CR4_SMEP,
  EXT_EFER_LMA,
  EXT_EXECONLY,
  EXT_VALID,
  ROLE_ACCESS_SHIFT,
  ROLE_AD_DISABLED,
  ROLE_CR0_WP,
  ROLE_DIRECT,
  ROLE_EFER_NX,
  ROLE_GUEST_MODE,
  ROLE_HAS_4_BYTE_GPTE,
  ROLE_INVALID,
  ROLE_LEVEL_MASK,
  ROLE_PASSTHROUGH,
  ROLE_SMAP_ANDNOT_WP,
  ROLE_SMEP_ANDNOT_WP,
  ROLE_SMM,
  roleLevel,
} from './role.ts';
import { isCr0Pg, isCr4Pse, isEferNx } from './role-bits.ts';
import { mmuNewPgd, mmuUnload } from './roots.ts';

/** Control registers that a role is made of: the vCPU's own, or those that L1's nested tables are for. @kvm mmu.c struct kvm_mmu_role_regs */
export interface RoleRegs {
  readonly cr0: number;
  readonly cr4: number;
  readonly efer: number;
}

/** The base word of a vCPU's role (@kvm mmu.c kvm_calc_cpu_role). */
function calcCpuRole(vcpu: VcpuState, regs: RoleRegs): number {
  let role = ACC_ALL << ROLE_ACCESS_SHIFT;
  if (vcpu.smm) role |= ROLE_SMM;
  if (vcpu.guestMode) role |= ROLE_GUEST_MODE;
  const { cr0, cr4, efer } = regs;
  if ((cr0 & CR0_PG) === 0) return role | ROLE_DIRECT;
  const wp = (cr0 & CR0_WP) !== 0;
  if ((efer & EFER_NX) !== 0) role |= ROLE_EFER_NX;
  if (wp) role |= ROLE_CR0_WP;
  else {
    if ((cr4 & CR4_SMEP) !== 0) role |= ROLE_SMEP_ANDNOT_WP;
    if ((cr4 & CR4_SMAP) !== 0) role |= ROLE_SMAP_ANDNOT_WP;
  }
  if ((cr4 & CR4_PAE) === 0) return role | ROLE_HAS_4_BYTE_GPTE | 2;
  if ((efer & EFER_LMA) === 0) return role | 3;
  return role | ((cr4 & CR4_LA57) !== 0 ? 5 : 4);
}

/** The extension word. */
function calcCpuRoleExt(regs: RoleRegs): number {
  if ((regs.cr0 & CR0_PG) === 0) return EXT_VALID;
  const { cr4, efer } = regs;
  let ext = EXT_VALID;
  if ((cr4 & CR4_SMEP) !== 0) ext |= EXT_CR4_SMEP;
  if ((cr4 & CR4_SMAP) !== 0) ext |= EXT_CR4_SMAP;
  if ((cr4 & CR4_PSE) !== 0) ext |= EXT_CR4_PSE;
  if ((efer & EFER_LMA) === 0) return ext;
  if ((cr4 & CR4_PKE) !== 0) ext |= EXT_CR4_PKE;
  if ((cr4 & CR4_LA57) !== 0) ext |= EXT_CR4_LA57;
  return ext | EXT_EFER_LMA;
}

/** Levels of the TDP tables: as the host's own on SVM, five on VMX only where the guest can use them (@kvm mmu.c kvm_mmu_get_tdp_level). */
function tdpLevel(vcpu: VcpuState): number {
  const { vendor } = vcpu.vm;
  if (vendor.name === 'vmx' && vendor.maxTdpLevel === 5 && vcpu.maxPhyAddr <= 48) return 4;
  return vendor.maxTdpLevel;
}

/** @kvm mmu.c kvm_calc_tdp_mmu_root_page_role */
function calcTdpRootRole(vcpu: VcpuState, cpuRole: number): number {
  let role = (ACC_ALL << ROLE_ACCESS_SHIFT) | ROLE_CR0_WP | ROLE_EFER_NX | ROLE_DIRECT | tdpLevel(vcpu);
  role |= cpuRole & (ROLE_GUEST_MODE | ROLE_SMM);
  if (vcpu.vm.mmu.masks.accessed === 0) role |= ROLE_AD_DISABLED;
  return role;
}

/** The shadow tables have PAE's format or long mode's, and use NX whether the guest does or not. @kvm mmu.c kvm_init_shadow_mmu */
function calcShadowRootRole(cpuRole: number): number {
  const level = Math.max(roleLevel(cpuRole), 3);
  return (cpuRole & ~ROLE_LEVEL_MASK) | level | ROLE_EFER_NX;
}

/** Under TDP the processor walks the guest's tables and takes its 1 GiB pages whatever the guest's CPUID says. */
function hasGbPages(vcpu: VcpuState): boolean {
  const { vendor, profile } = vcpu.vm;
  return vendor.tdpEnabled ? profile.gbPages : guestCpuidHas(vcpu, X86_FEATURE_GBPAGES);
}

/** What walks of the guest's tables consult (@kvm mmu.c reset_guest_paging_metadata). */
function resetGuestPagingMetadata(vcpu: VcpuState, mmu: Mmu): void {
  if (!isCr0Pg(mmu)) return;
  resetRsvdBits(mmu.guestRsvd, {
    level: roleLevel(mmu.cpuRole),
    paBitsHi: vcpu.x86.reservedGpaBitsHi,
    nx: isEferNx(mmu),
    gbPages: hasGbPages(vcpu),
    pse: isCr4Pse(mmu),
    amd: !guestCpuidIsIntelCompatible(vcpu),
  });
  updatePermissions(mmu);
}

/** Brings the vCPU's MMU in line with its control registers (@kvm mmu.c kvm_init_mmu). */
export function initMmu(vcpu: VcpuState): void {
  const cpuRole = calcCpuRole(vcpu, vcpu);
  const ext = calcCpuRoleExt(vcpu);
  if (mmuIsNested(vcpu)) {
    const mmu = vcpu.mmu.nestedMmu;
    if (mmu.cpuRole === cpuRole && mmu.cpuRoleExt === ext) return;
    mmu.cpuRole = cpuRole;
    mmu.cpuRoleExt = ext;
    resetGuestPagingMetadata(vcpu, mmu);
    return;
  }
  const mmu = vcpu.mmu.rootMmu;
  const rootRole = vcpu.vm.vendor.tdpEnabled ? calcTdpRootRole(vcpu, cpuRole) : calcShadowRootRole(cpuRole);
  if (mmu.cpuRole === cpuRole && mmu.cpuRoleExt === ext && mmu.rootRole === rootRole) return;
  mmu.cpuRole = cpuRole;
  mmu.cpuRoleExt = ext;
  mmu.rootRole = rootRole;
  resetGuestPagingMetadata(vcpu, mmu);
}

/**
 * Makes `guestMmu` the shadow of L1's nested tables on SVM, whose format L1's own control registers decide, and looks for a root at
 * `nestedCr3` (halves) that there is already. The caller has set `vcpu.mmu.mmu` to it. @kvm mmu.c kvm_init_shadow_npt_mmu
 */
export function initShadowNptMmu(vcpu: VcpuState, regs: RoleRegs, nestedCr3Lo: number, nestedCr3Hi: number): void {
  const withoutKeys = { cr0: regs.cr0, cr4: regs.cr4 & ~CR4_PKE, efer: regs.efer };
  const cpuRole = calcCpuRole(vcpu, withoutKeys);
  const level = tdpLevel(vcpu);
  let rootRole = (cpuRole & ~ROLE_LEVEL_MASK) | level;
  if (level === 5 && roleLevel(cpuRole) === 4) rootRole |= ROLE_PASSTHROUGH;
  initShadowContext(vcpu, vcpu.mmu.guestMmu, cpuRole, calcCpuRoleExt(withoutKeys), rootRole);
  mmuNewPgd(vcpu, nestedCr3Lo, nestedCr3Hi);
}

/** How L1's EPT is to be read. */
export interface ShadowEptMode {
  readonly executeOnly: boolean;
  /** Largest page: 1, 2 or 3. */
  readonly hugePageLevel: number;
  /** L1's pointer turns accessed and dirty bits on. */
  readonly accessedDirty: boolean;
  readonly eptpLo: number;
  readonly eptpHi: number;
}

/** Makes `guestMmu` the shadow of L1's EPT, and looks for a root that there is already. @kvm mmu.c kvm_init_shadow_ept_mmu */
export function initShadowEptMmu(vcpu: VcpuState, mode: ShadowEptMode): void {
  const mmu = vcpu.mmu.guestMmu;
  const level = (mode.eptpLo & VMX_EPTP_PWL_MASK) === VMX_EPTP_PWL_5 ? 5 : 4;
  const role = level | (mode.accessedDirty ? 0 : ROLE_AD_DISABLED) | ROLE_GUEST_MODE | (ACC_ALL << ROLE_ACCESS_SHIFT);
  const ext = EXT_VALID | (mode.executeOnly ? EXT_EXECONLY : 0);
  if (mmu.cpuRole !== role || mmu.cpuRoleExt !== ext) {
    mmu.cpuRole = role;
    mmu.cpuRoleExt = ext;
    mmu.rootRole = role;
    mmu.ept = true;
    mmu.guestAd = mode.accessedDirty;
    updatePermissionBitmask(mmu.permissions, mmu, true);
    mmu.pkruMask = 0;
    resetRsvdBitsEpt(mmu.guestRsvd, vcpu.x86.reservedGpaBitsHi, mode.executeOnly, mode.hugePageLevel);
  }
  mmuNewPgd(vcpu, mode.eptpLo, mode.eptpHi);
}

/** @kvm mmu.c shadow_mmu_init_context */
function initShadowContext(vcpu: VcpuState, mmu: Mmu, cpuRole: number, ext: number, rootRole: number): void {
  if (mmu.cpuRole === cpuRole && mmu.cpuRoleExt === ext && mmu.rootRole === rootRole) return;
  mmu.cpuRole = cpuRole;
  mmu.cpuRoleExt = ext;
  mmu.rootRole = rootRole;
  resetGuestPagingMetadata(vcpu, mmu);
}

/** Drops all roots and recomputes the role (@kvm mmu.c kvm_mmu_reset_context). */
export function mmuResetContext(vcpu: VcpuState): void {
  mmuUnload(vcpu);
  initMmu(vcpu);
}

/** CPUID is part of what decides reserved bits: nothing computed before counts (@kvm mmu.c kvm_mmu_after_set_cpuid). */
export function afterSetCpuid(vcpu: VcpuState): void {
  for (const mmu of [vcpu.mmu.rootMmu, vcpu.mmu.guestMmu, vcpu.mmu.nestedMmu]) {
    mmu.rootRole |= ROLE_INVALID;
    mmu.cpuRoleExt &= ~EXT_VALID;
  }
  mmuResetContext(vcpu);
}
