import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { permissionFaultOf, pkruBitmask, updatePermissionBitmask } from './permission.ts';
import { EXT_CR4_PKE, EXT_CR4_SMAP, EXT_CR4_SMEP, ROLE_CR0_WP, ROLE_EFER_NX } from './role.ts';

const lines = readFileSync(new URL('../../../conformance/permission-fault.txt', import.meta.url), 'utf8')
  .trim()
  .split('\n');

/** All 1,024 answers for one role, in the file's order. */
function answers(cpuRole: number, cpuRoleExt: number, ept: boolean): string {
  const permissions = new Uint8Array(16);
  const role = { cpuRole, cpuRoleExt };
  updatePermissionBitmask(permissions, role, ept);
  const mask = ept ? 0 : pkruBitmask(role);
  let text = '';
  for (let pf = 0; pf < 8; pf++) {
    const access = ((pf & 1) << 1) | ((pf & 2) << 1) | ((pf & 4) << 2);
    for (const implicit of [false, true]) {
      for (const ac of [false, true]) {
        for (let rights = 0; rights < 8; rights++) {
          for (let key = 0; key < 4; key++) {
            const code = permissionFaultOf(permissions, mask, rights, access, ac && !implicit, key);
            text += code.toString(16).padStart(2, '0');
          }
        }
      }
    }
  }
  return text;
}

describe('permission fault', () => {
  it('gives the kernel’s answer for every role, access, right and key', () => {
    expect(lines.length).toBe(33);
    for (let r = 0; r < 32; r++) {
      const role = (r & 1 ? ROLE_CR0_WP : 0) | (r & 2 ? ROLE_EFER_NX : 0);
      const ext = (r & 4 ? EXT_CR4_SMEP : 0) | (r & 8 ? EXT_CR4_SMAP : 0) | (r & 16 ? EXT_CR4_PKE : 0);
      expect(answers(role, ext, false), `role ${r}`).toBe(lines[r]);
    }
  });

  it('gives the kernel’s answer for nested EPT', () => {
    expect(answers(0, 0, true)).toBe(lines[32]);
  });
});
