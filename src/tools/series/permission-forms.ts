/**
 * Row 2: the permission check forms the index into its table in two ways, before and after the patch. Both are put next to the product's
 * own over every input.
 */
import { PFERR_FETCH, PFERR_PK, PFERR_PRESENT, PFERR_RSVD, PFERR_USER, PFERR_WRITE } from '../../arch/error-code.ts';
import { permissionFaultOf, pkruBitmask, updatePermissionBitmask } from '../../kvm/mmu/permission.ts';
import {
  ACC_USER_MASK,
  EXT_CR4_PKE,
  EXT_CR4_SMAP,
  EXT_CR4_SMEP,
  ROLE_CR0_WP,
  ROLE_EFER_NX,
} from '../../kvm/mmu/role.ts';
import type { EqualityResult } from './demonstration.ts';

/** RSVD's number, by which the form before the patch shifts. */
const RSVD_BIT = 3;
const USER_SHIFT = 2;

/** How a code, "SMAP does not apply" and the entry's U become one index: by addition of shifted bits, or by masks. */
export interface IndexForm {
  readonly index: (access: number, notSmap: boolean) => number;
  readonly pkruOffset: (access: number, pteAccess: number) => number;
}

/** Linux 6.9: RSVD is never in `access`, so that nothing carries. */
export const bySum: IndexForm = {
  index: (access, notSmap) => (access + (Number(notSmap) << RSVD_BIT)) >>> 1,
  pkruOffset: (access, pteAccess) => (access & ~1) + ((pteAccess & ACC_USER_MASK) << (RSVD_BIT - USER_SHIFT)),
};

/** After 63b6206e2f9a. */
export const byMask: IndexForm = {
  index: (access, notSmap) => (access | (notSmap ? PFERR_RSVD : 0)) >>> 1,
  pkruOffset: (access, pteAccess) => (access & ~1) | ((pteAccess & ACC_USER_MASK) !== 0 ? PFERR_RSVD : 0),
};

function answer(
  form: IndexForm,
  permissions: Uint8Array,
  pkruMask: number,
  pteAccess: number,
  access: number,
  notSmap: boolean,
  pkru: number,
): number {
  let fault = ((permissions[form.index(access, notSmap)]! >> pteAccess) & 1) !== 0;
  let code = PFERR_PRESENT;
  if (pkruMask !== 0 && (pkru & (pkruMask >>> form.pkruOffset(access, pteAccess))) !== 0) {
    code |= PFERR_PK;
    fault = true;
  }
  return fault ? code : 0;
}

/** Roles of a guest's page tables, and those of nested EPT. */
function roles(): { readonly permissions: Uint8Array; readonly pkruMask: number }[] {
  const found = [];
  for (let r = 0; r < 32; r++) {
    const role = {
      cpuRole: (r & 1 ? ROLE_CR0_WP : 0) | (r & 2 ? ROLE_EFER_NX : 0),
      cpuRoleExt: (r & 4 ? EXT_CR4_SMEP : 0) | (r & 8 ? EXT_CR4_SMAP : 0) | (r & 16 ? EXT_CR4_PKE : 0),
    };
    const permissions = new Uint8Array(16);
    updatePermissionBitmask(permissions, role, false);
    found.push({ permissions, pkruMask: pkruBitmask(role) });
  }
  const permissions = new Uint8Array(16);
  updatePermissionBitmask(permissions, { cpuRole: 0, cpuRoleExt: 0 }, true);
  found.push({ permissions, pkruMask: 0 });
  return found;
}

/** Every access: P, W, U and FETCH in every combination. RSVD and PK are no accesses: the check warns of them. */
const ACCESSES = Array.from({ length: 16 }, (_, i) => {
  const [p, w, u, f] = [i & 1, i & 2, i & 4, i & 8];
  return (p ? PFERR_PRESENT : 0) | (w ? PFERR_WRITE : 0) | (u ? PFERR_USER : 0) | (f ? PFERR_FETCH : 0);
});

/** Compares both forms with each other and with the product's answer, over access x AC x implicit x role x rights x key. */
export function permissionFormsAgree(before: IndexForm = bySum, after: IndexForm = byMask): EqualityResult {
  let inputs = 0;
  let different = 0;
  for (const { permissions, pkruMask } of roles()) {
    for (const access of ACCESSES) {
      for (let i = 0; i < 4; i++) {
        const [ac, implicit] = [(i & 1) !== 0, (i & 2) !== 0];
        const notSmap = ac && !implicit;
        for (let rights = 0; rights < 8; rights++) {
          for (let pkru = 0; pkru < 4; pkru++) {
            inputs++;
            const a = answer(before, permissions, pkruMask, rights, access, notSmap, pkru);
            const b = answer(after, permissions, pkruMask, rights, access, notSmap, pkru);
            const ours = permissionFaultOf(permissions, pkruMask, rights, access, notSmap, pkru);
            if (a !== b || a !== ours) different++;
          }
        }
      }
    }
  }
  return {
    inputs,
    different,
    announced: 0,
    equal: different === 0,
    words:
      'access (P, W, U, FETCH) x EFLAGS.AC x implicit x role (32 of guest tables, nested EPT) x rights x protection key: both forms of the index, and permissionFaultOf, answer the same',
  };
}
