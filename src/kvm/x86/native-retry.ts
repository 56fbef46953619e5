/**
 * Instructions that the guest may try again by itself instead of being emulated, because what made the page read-only was dropped
 * (@kvm x86.c x86_emulate_instruction, kvm_unprotect_and_retry_on_failure).
 */
import { numberOf } from '../../arch/halves.ts';
import { RIP } from '../../arch/registers.ts';
import type { EmulateCtxt } from '../emulate/ctxt.ts';
import { x86PageTableWritingInsn } from '../emulate/emulate.ts';
import { gfnToPfn } from '../hva-to-pfn.ts';
import { gpaToGfn } from '../mmu/gpa.ts';
import { ROLE_DIRECT } from '../mmu/role.ts';
import { mmuUnprotectGfnAndRetry } from '../mmu/shadow/unprotect.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { EMULTYPE_ALLOW_RETRY_PF, EMULTYPE_WRITE_PF_TO_SP } from './emul-type.ts';
import { gvaToGpaWrite } from './guest-access.ts';

/** The last instruction that was let go for this address is at RIP again: to let it go once more would be for ever. */
export function retriedBefore(vcpu: VcpuState, addrLo: number, addrHi: number): boolean {
  const { x86, regs } = vcpu;
  return (
    x86.lastRetryEipLo === regs[2 * RIP] &&
    x86.lastRetryEipHi === regs[2 * RIP + 1] &&
    x86.lastRetryAddrLo === addrLo &&
    x86.lastRetryAddrHi === addrHi
  );
}

function remember(vcpu: VcpuState, eipLo: number, eipHi: number, addrLo: number, addrHi: number): void {
  const { x86 } = vcpu;
  x86.lastRetryEipLo = eipLo;
  x86.lastRetryEipHi = eipHi;
  x86.lastRetryAddrLo = addrLo;
  x86.lastRetryAddrHi = addrHi;
}

/** The next fault may be retried natively, wherever it is. */
export function forgetRetry(vcpu: VcpuState): void {
  remember(vcpu, 0, 0, 0, 0);
}

/** Drops what makes the page read-only; RIP and address are remembered when there was anything. @kvm mmu.c kvm_mmu_unprotect_gfn_and_retry */
export function unprotectForRetry(vcpu: VcpuState, addrLo: number, addrHi: number): boolean {
  return mmuUnprotectGfnAndRetry(vcpu, addrLo, addrHi);
}

/** The same, and nothing is remembered. @kvm mmu.c kvm_mmu_unprotect_page of Linux 6.11 */
export function unprotectOnly(vcpu: VcpuState, addrLo: number, addrHi: number): boolean {
  const { lastRetryEipLo, lastRetryEipHi, lastRetryAddrLo, lastRetryAddrHi } = vcpu.x86;
  const dropped = mmuUnprotectGfnAndRetry(vcpu, addrLo, addrHi);
  remember(vcpu, lastRetryEipLo, lastRetryEipHi, lastRetryAddrLo, lastRetryAddrHi);
  return dropped;
}

/**
 * Before a decoded instruction is emulated: one that writes no page table may run natively once the page is no longer protected.
 * @kvm x86.c x86_emulate_instruction; retry_instruction of Linux 6.11
 */
export function retryDecoded(
  vcpu: VcpuState,
  addrLo: number,
  addrHi: number,
  emulType: number,
  ctxt: EmulateCtxt,
): boolean {
  const { rules } = vcpu.vm.revision;
  let looped = false;
  if (!rules.retryGuardInFault) {
    looped = retriedBefore(vcpu, addrLo, addrHi);
    forgetRetry(vcpu);
  }
  if ((emulType & EMULTYPE_ALLOW_RETRY_PF) === 0 || x86PageTableWritingInsn(ctxt) || looped) return false;
  if (unprotectForRetry(vcpu, addrLo, addrHi)) return true;
  if (rules.retryNeedsZap) return false;
  remember(vcpu, vcpu.regs[2 * RIP]!, vcpu.regs[2 * RIP + 1]!, addrLo, addrHi);
  return true;
}

/**
 * After an emulation that failed: the processor may know the instruction.
 * @kvm x86.c kvm_unprotect_and_retry_on_failure; reexecute_instruction of Linux 6.11
 */
export function retryFailed(vcpu: VcpuState, addrLo: number, addrHi: number, emulType: number): boolean {
  if ((emulType & EMULTYPE_ALLOW_RETRY_PF) === 0) return false;
  const { vm } = vcpu;
  const { rules } = vm.revision;
  const ownTable = (emulType & EMULTYPE_WRITE_PF_TO_SP) !== 0;
  // Zapping a page table that translates the access itself would only bring the fault back.
  if (ownTable && rules.ownTableFailsFirst) return false;
  if (rules.failedRetryNeedsPage) {
    const direct = (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0;
    const gpa = direct ? numberOf(addrLo, addrHi) : gvaToGpaWrite(vcpu, addrLo, addrHi);
    // The guest's tables have changed: the guest's own fault comes of it.
    if (gpa < 0) return true;
    if (gfnToPfn(vm, gpaToGfn(gpa)) < 0) return false;
  }
  if (rules.failedRetryRemembers === 'never') unprotectOnly(vcpu, addrLo, addrHi);
  else mmuUnprotectGfnAndRetry(vcpu, addrLo, addrHi, rules.failedRetryRemembers === 'always');
  return !ownTable;
}
