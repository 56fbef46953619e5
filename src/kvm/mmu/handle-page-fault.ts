/** An intercepted legacy #PF (@kvm mmu.c kvm_handle_page_fault). */
import { hex64 } from '../../arch/flags.ts';
import { RIP } from '../../arch/registers.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { eventNeedsReinjection } from '../x86/exceptions.ts';
import { unprotectOnly } from '../x86/native-retry.ts';
import { mmuPageFault } from './page-fault.ts';
import { ROLE_DIRECT } from './role.ts';

/** A legacy #PF that was intercepted: shadow paging. @kvm mmu.c kvm_handle_page_fault */
export function handlePageFault(
  vcpu: VcpuState,
  errorLo: number,
  errorHi: number,
  addrLo: number,
  addrHi: number,
): number {
  let codeHi = errorHi;
  if (errorHi !== 0 && vcpu.vm.revision.rules.pfDropsUpperBits) {
    vcpu.vm.log.warnOnOnce(true, 'kvm_handle_page_fault', 'a #PF error code has upper bits');
    codeHi = 0;
  }
  const trace = vcpu.vm.trace;
  if (trace.enabled) {
    trace.emit('kvm_page_fault', {
      vcpu: vcpu.id,
      rip: hex64(vcpu.regs[2 * RIP]!, vcpu.regs[2 * RIP + 1]!),
      address: hex64(addrLo, addrHi),
      error_code: hex64(errorLo, codeHi),
    });
  }
  const direct = (vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0;
  if (!direct && !vcpu.vm.revision.rules.reinjectionOnlyOnWrite && eventNeedsReinjection(vcpu)) {
    unprotectOnly(vcpu, addrLo, addrHi);
  }
  return mmuPageFault(vcpu, addrLo, addrHi, errorLo, codeHi);
}
