/** Pages that have become ready: the fault is done again, and the guest told (@kvm async_pf.c kvm_check_async_pf_completion). */
import { mmuDoPageFault } from '../mmu/do-page-fault.ts';
import { RET_PF_FIXED } from '../mmu/ret-pf.ts';
import { ROLE_DIRECT } from '../mmu/role.ts';
import { mmuReload } from '../mmu/roots.ts';
import { MP_STATE_RUNNABLE, type VcpuState } from '../vcpu-state.ts';
import { canDequeueReady, isPrivateWork, pagePresent } from './async-pf.ts';
import type { AsyncPfWork } from './async-pf-state.ts';
import { APIC_INT_ASSERT, lapicAcceptIrq } from './lapic-delivery.ts';

/** Maps the page ahead of the guest's next try. @kvm mmu.c kvm_arch_async_page_ready */
function pageReady(vcpu: VcpuState, work: AsyncPfWork): void {
  const { log, revision } = vcpu.vm;
  const keepsCode = revision.rules.pageReadyKeepsErrorCode;
  const isPrivate = keepsCode && isPrivateWork(work);
  if (log.warnOnOnce(isPrivate, 'kvm_arch_async_page_ready', 'a private page is ready') || work.wakeupAll) return;
  if (((vcpu.mmu.mmu.rootRole & ROLE_DIRECT) !== 0) !== work.directMap) return;
  if (mmuReload(vcpu) !== 0) return;
  const errorLo = keepsCode ? work.errorLo : 0;
  const errorHi = keepsCode ? work.errorHi : 0;
  const r = mmuDoPageFault(vcpu, work.addrLo, work.addrHi, errorLo, errorHi, true);
  if (r === RET_PF_FIXED) vcpu.stats.pf_fixed++;
}

/** @kvm async_pf.c kvm_check_async_pf_completion */
export function checkAsyncPfCompletion(vcpu: VcpuState): void {
  const x86 = vcpu.x86;
  const apf = x86.asyncPf;
  while (apf.done.length > 0 && canDequeueReady(vcpu)) {
    const work = apf.done.shift()!;
    pageReady(vcpu, work);
    if (pagePresent(vcpu, work) && x86.lapic !== null) {
      lapicAcceptIrq(x86.lapic, APIC_INT_ASSERT | (x86.apfIntLo & 0xff));
    }
    x86.apfHalted = false;
    vcpu.mpState = MP_STATE_RUNNABLE;
    apf.queued--;
  }
}
