/** What is done about a write that no mapping can fix, before an emulator is asked (@kvm mmu.c kvm_mmu_write_protect_fault). */
import { PFERR_GUEST_PAGE_HI, PFERR_PRESENT, PFERR_WRITE } from '../../arch/error-code.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { EMULTYPE_ALLOW_RETRY_PF, EMULTYPE_PF } from '../x86/emul-type.ts';
import { eventNeedsReinjection } from '../x86/exceptions.ts';
import { forgetRetry, retriedBefore, unprotectForRetry, unprotectOnly } from '../x86/native-retry.ts';
import { mmioInfoInCache } from './mmio-page-fault.ts';
import { ROLE_DIRECT } from './role.ts';

/** Instead of an emulation type: something was dropped, let the guest try again. */
export const RETRY_NATIVELY = -1;

/** The processor wrote a page table of the guest while it walked (@kvm mmu.c is_write_to_guest_page_table). */
function isWriteToGuestPageTable(errorLo: number, errorHi: number): boolean {
  const mask = PFERR_WRITE | PFERR_PRESENT;
  return (errorLo & mask) === mask && (errorHi & PFERR_GUEST_PAGE_HI) !== 0;
}

/**
 * Drops the shadows that make a page read-only where that is likely to help. Asked for write-protected pages alone, or, before there was a
 * verdict for those, for everything that is to be emulated (rule writeProtectedVerdict).
 * @returns RETRY_NATIVELY, or the emulation type
 * @kvm mmu.c kvm_mmu_write_protect_fault; kvm_mmu_page_fault of Linux 6.11
 */
export function writeProtectFault(
  vcpu: VcpuState,
  addrLo: number,
  addrHi: number,
  errorLo: number,
  errorHi: number,
): number {
  const { rules } = vcpu.vm.revision;
  if (rules.retryGuardInFault) {
    if (retriedBefore(vcpu, addrLo, addrHi)) return EMULTYPE_PF;
    forgetRetry(vcpu);
  }
  const direct = (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0;
  const cached = mmioInfoInCache(vcpu, addrLo, addrHi, direct);
  if (cached && rules.writeProtectedMmioWarns) {
    vcpu.vm.log.warnOnOnce(true, 'kvm_mmu_write_protect_fault', 'a write-protected page is in the MMIO cache');
    return EMULTYPE_PF;
  }
  if (direct && isWriteToGuestPageTable(errorLo, errorHi)) {
    const dropped = rules.retryGuardInFault
      ? unprotectForRetry(vcpu, addrLo, addrHi)
      : unprotectOnly(vcpu, addrLo, addrHi);
    if (dropped || !rules.walkRetryNeedsZap) return RETRY_NATIVELY;
  }
  // What the emulator would run before the event is in would delay it.
  if (!direct && rules.reinjectionOnlyOnWrite && eventNeedsReinjection(vcpu)) {
    if (unprotectForRetry(vcpu, addrLo, addrHi)) return RETRY_NATIVELY;
  }
  // KVM shadows L1's tables: to drop one of them does not help L2. To retry MMIO helps nobody.
  return cached || vcpu.guestMode ? EMULTYPE_PF : EMULTYPE_PF | EMULTYPE_ALLOW_RETRY_PF;
}
