/** Replays permission-fault.txt: the permission check over every role and input (conformance/permission-fault.md). */
import { readFileSync } from 'node:fs';
import { PFERR_FETCH, PFERR_USER, PFERR_WRITE } from '../../arch/error-code.ts';
import { permissionFaultOf, pkruBitmask, updatePermissionBitmask } from '../../kvm/mmu/permission.ts';
import { EXT_CR4_PKE, EXT_CR4_SMAP, EXT_CR4_SMEP, ROLE_CR0_WP, ROLE_EFER_NX } from '../../kvm/mmu/role.ts';
import { InputError } from '../input-error.ts';

export interface PermissionReplay {
  readonly answers: number;
  readonly equal: number;
  /** Where the first difference is, in words. */
  readonly first?: string;
}

/** 32 roles of guest page tables, and nested EPT. */
const ROLES = 33;
const NESTED_EPT = 32;
const INPUTS = 1024;

/** @throws InputError */
export function replayPermissionFaults(path: string): PermissionReplay {
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
  if (lines.length !== ROLES || lines.some((line) => !/^[0-9a-f]{2048}$/.test(line)))
    throw new InputError(`${path}: expected ${ROLES} lines of ${INPUTS} two-digit hex answers`);
  let equal = 0;
  let first: string | undefined;
  for (const [role, line] of lines.entries()) {
    const ours = permissionAnswers(role);
    for (let i = 0; i < INPUTS; i++) {
      const theirs = Number.parseInt(line.slice(2 * i, 2 * i + 2), 16);
      if (ours[i] === theirs) equal++;
      else first ??= `role ${role}, input ${i}: ours ${ours[i]?.toString(16)}, theirs ${theirs.toString(16)}`;
    }
  }
  return { answers: ROLES * INPUTS, equal, ...(first === undefined ? {} : { first }) };
}

/** The answers for one role in the file's order: access, implicit, EFLAGS.AC, rights, key. */
function permissionAnswers(line: number): Uint8Array {
  const answers = new Uint8Array(INPUTS);
  const permissions = new Uint8Array(16);
  const ept = line === NESTED_EPT;
  const role = ept ? { cpuRole: 0, cpuRoleExt: 0 } : roleOf(line);
  updatePermissionBitmask(permissions, role, ept);
  const pkruMask = ept ? 0 : pkruBitmask(role);
  for (let i = 0; i < INPUTS; i++) {
    const key = i & 3;
    const rights = (i >> 2) & 7;
    const ac = ((i >> 5) & 1) !== 0;
    const implicit = ((i >> 6) & 1) !== 0;
    const kind = i >> 7;
    const access = (kind & 1 ? PFERR_WRITE : 0) | (kind & 2 ? PFERR_USER : 0) | (kind & 4 ? PFERR_FETCH : 0);
    answers[i] = permissionFaultOf(permissions, pkruMask, rights, access, ac && !implicit, key);
  }
  return answers;
}

function roleOf(r: number): { cpuRole: number; cpuRoleExt: number } {
  return {
    cpuRole: (r & 1 ? ROLE_CR0_WP : 0) | (r & 2 ? ROLE_EFER_NX : 0),
    cpuRoleExt: (r & 4 ? EXT_CR4_SMEP : 0) | (r & 8 ? EXT_CR4_SMAP : 0) | (r & 16 ? EXT_CR4_PKE : 0),
  };
}
