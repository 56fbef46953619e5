/** Letting the guest write a page by giving up the shadows of the tables in it (@kvm mmu.c __kvm_mmu_unprotect_gfn_and_retry). */
import { numberOf } from '../../../arch/halves.ts';
import { RIP } from '../../../arch/registers.ts';
import { LOCK_MMU_WRITE } from '../../locks.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { gvaToGpaWrite } from '../../x86/guest-access.ts';
import { gpaToGfn } from '../gpa.ts';
import { isObsoleteSp } from '../obsolete.ts';
import { ROLE_DIRECT } from '../role.ts';
import type { ShadowPage } from '../shadow-page.ts';
import { spHasGptes } from './translation.ts';
import { commitZapPage, prepareZapPage } from './zap-page.ts';

function unprotect(vcpu: VcpuState, cr2Lo: number, cr2Hi: number): boolean {
  const vm = vcpu.vm;
  if (vm.mmu.indirectShadowPages === 0) return false;
  const direct = (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0;
  const gpa = direct ? numberOf(cr2Lo, cr2Hi) : gvaToGpaWrite(vcpu, cr2Lo, cr2Hi);
  if (gpa < 0) return false;
  const gfn = gpaToGfn(gpa);
  const invalid: ShadowPage[] = [];
  vm.locks.acquire(LOCK_MMU_WRITE);
  for (let sp = vm.mmu.pageHash.bucket(gfn); sp !== null; sp = sp.hashNext) {
    if (sp.gfn === gfn && spHasGptes(sp) && !isObsoleteSp(vm, sp)) prepareZapPage(vm, sp, invalid);
  }
  const zapped = invalid.length !== 0;
  commitZapPage(vm, invalid);
  vm.locks.release(LOCK_MMU_WRITE);
  return zapped;
}

/**
 * `cr2` is a gpa in a direct MMU, else linear. Address and RIP are remembered, so that one instruction is retried once. Answers whether
 * anything was dropped, and so the instruction should be retried.
 * @kvm mmu.c __kvm_mmu_unprotect_gfn_and_retry
 */
export function mmuUnprotectGfnAndRetry(vcpu: VcpuState, cr2Lo: number, cr2Hi: number, alwaysRetry = false): boolean {
  const zapped = unprotect(vcpu, cr2Lo, cr2Hi);
  if (zapped || alwaysRetry) {
    vcpu.x86.lastRetryEipLo = vcpu.regs[2 * RIP]!;
    vcpu.x86.lastRetryEipHi = vcpu.regs[2 * RIP + 1]!;
    vcpu.x86.lastRetryAddrLo = cr2Lo;
    vcpu.x86.lastRetryAddrHi = cr2Hi;
  }
  return zapped;
}
