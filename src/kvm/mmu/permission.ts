/**
 * Whether an access is allowed by the rights that a walk found (@kvm mmu.h permission_fault). The answer for every error code and every
 * combination of rights is computed once a role, as 16 bytes and a mask for protection keys.
 */
import {
  PFERR_FETCH,
  PFERR_IMPLICIT_ACCESS_HI,
  PFERR_PK,
  PFERR_PRESENT,
  PFERR_RSVD,
  PFERR_USER,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import { CR0_WP, RFLAGS_AC } from '../../arch/registers.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { Mmu } from './mmu-context.ts';
import { ACC_EXEC_MASK, ACC_USER_MASK, ACC_WRITE_MASK, ROLE_CR0_WP } from './role.ts';
import { type CpuRole, isCr0Wp, isCr4Pke, isCr4Smap, isCr4Smep, isEferNx } from './role-bits.ts';

/** One bit for each of the eight combinations of rights that include `access` (@kvm mmu.c BYTE_MASK). */
function rightsWith(access: number): number {
  let mask = 0;
  for (let rights = 0; rights < 8; rights++) if ((rights & access) !== 0) mask |= 1 << rights;
  return mask;
}

const X = rightsWith(ACC_EXEC_MASK);
const W = rightsWith(ACC_WRITE_MASK);
const U = rightsWith(ACC_USER_MASK);

/** Byte n: which rights fault for the error code `2 * n`, where RSVD says that SMAP does not apply (@kvm mmu.c update_permission_bitmask). */
export function updatePermissionBitmask(permissions: Uint8Array, role: CpuRole, ept: boolean): void {
  const smep = isCr4Smep(role);
  const smap = isCr4Smap(role);
  const wp = isCr0Wp(role);
  const nx = isEferNx(role);
  for (let byte = 0; byte < permissions.length; byte++) {
    const pfec = byte << 1;
    const write = (pfec & PFERR_WRITE) !== 0;
    const user = (pfec & PFERR_USER) !== 0;
    const fetch = (pfec & PFERR_FETCH) !== 0;
    const notSmap = (pfec & PFERR_RSVD) !== 0;
    let faults = 0;
    if (write && (ept || wp || user)) faults |= ~W;
    if (user) faults |= ~U;
    if (fetch && (ept || nx)) faults |= ~X;
    if (!ept && !user) {
      if (smep && fetch) faults |= U;
      if (smap && !fetch && !notSmap) faults |= U;
    }
    permissions[byte] = faults;
  }
}

/**
 * Two bits for each error code, where RSVD stands for the entry's U: which of PKRU's AD and WD count (@kvm mmu.c update_pkru_bitmask).
 * 0 when keys are off.
 */
export function pkruBitmask(role: CpuRole): number {
  if (!isCr4Pke(role)) return 0;
  const wp = isCr0Wp(role);
  let mask = 0;
  for (let bit = 0; bit < 16; bit++) {
    const pfec = bit << 1;
    const checkKey = (pfec & PFERR_FETCH) === 0 && (pfec & PFERR_RSVD) !== 0;
    const checkWrite = checkKey && (pfec & PFERR_WRITE) !== 0 && ((pfec & PFERR_USER) !== 0 || wp);
    mask |= ((checkKey ? 1 : 0) | (checkWrite ? 2 : 0)) << pfec;
  }
  return mask;
}

/**
 * The check itself: the low error code of the fault, or 0.
 * @param access low error code of the access: W, U, FETCH
 * @param notSmap supervisor access that SMAP does not refuse: explicit, with EFLAGS.AC
 * @param pkru PKRU's two bits (AD, WD) for the entry's key
 * HOT
 * @kvm mmu.h permission_fault
 */
export function permissionFaultOf(
  permissions: Uint8Array,
  pkruMask: number,
  pteAccess: number,
  access: number,
  notSmap: boolean,
  pkru: number,
): number {
  const index = (access | (notSmap ? PFERR_RSVD : 0)) >>> 1;
  let fault = ((permissions[index]! >> pteAccess) & 1) !== 0;
  let errcode = PFERR_PRESENT;
  if (pkruMask !== 0) {
    const offset = (access & ~1) | ((pteAccess & ACC_USER_MASK) !== 0 ? PFERR_RSVD : 0);
    if ((pkru & (pkruMask >>> offset)) !== 0) {
      errcode |= PFERR_PK;
      fault = true;
    }
  }
  return fault ? errcode : 0;
}

/** CR0.WP may have changed without a new role, where the guest owns the bit (@kvm mmu.h kvm_mmu_refresh_passthrough_bits). */
function refreshPassthroughBits(vcpu: VcpuState, mmu: Mmu): void {
  if (!vcpu.vm.vendor.tdpEnabled || mmu === vcpu.mmu.guestMmu) return;
  const wp = (vcpu.cr0 & CR0_WP) !== 0;
  if (isCr0Wp(mmu) === wp || (mmu.cpuRole & 0xf) === 0) return;
  mmu.cpuRole = wp ? mmu.cpuRole | ROLE_CR0_WP : mmu.cpuRole & ~ROLE_CR0_WP;
  updatePermissions(mmu);
}

/** Recomputes what the MMU keeps for its role. @kvm mmu.c update_permission_bitmask, update_pkru_bitmask */
export function updatePermissions(mmu: Mmu): void {
  updatePermissionBitmask(mmu.permissions, mmu, false);
  mmu.pkruMask = pkruBitmask(mmu);
}

/** @param pteAccess ACC_* @returns the low error code, or 0. @kvm mmu.h permission_fault. HOT */
export function permissionFault(
  vcpu: VcpuState,
  mmu: Mmu,
  pteAccess: number,
  ptePkey: number,
  accessLo: number,
  accessHi: number,
): number {
  const ac = (vcpu.vm.vendor.getRflags(vcpu) & RFLAGS_AC) !== 0;
  refreshPassthroughBits(vcpu, mmu);
  vcpu.vm.log.warnOnOnce((accessLo & (PFERR_PK | PFERR_RSVD)) !== 0, 'permission_fault', 'PK or RSVD in an access');
  const notSmap = ac && (accessHi & PFERR_IMPLICIT_ACCESS_HI) === 0;
  const pkru = (vcpu.pkru >>> (2 * ptePkey)) & 3;
  return permissionFaultOf(mmu.permissions, mmu.pkruMask, pteAccess, accessLo, notSmap, pkru);
}
