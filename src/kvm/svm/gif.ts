/** The global interrupt flag (@apm 15.17; @kvm svm.c svm_set_gif). */
import * as V from '../../arch/vmcb.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import { cpuHasInjectableIntr } from '../x86/irq.ts';
import { svmClearVintr } from './vintr.ts';
import { isIntercept } from './vmcb-access.ts';

/** @kvm svm.c svm_set_gif: KVM keeps the flag itself, and sees what changes it. */
export function svmSetGif(vcpu: VcpuState, value: boolean): void {
  const { svm, x86 } = vcpu;
  svm.gif = value;
  if (!value) {
    // No window can open before STGI, which exits.
    svmClearVintr(vcpu);
    return;
  }
  if (isIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_VINTR)) svmClearVintr(vcpu);
  const apic = x86.lapic;
  const initOrSipi = apic !== null && (apic.pendingInit || apic.pendingSipi);
  if (x86.smiPending || x86.nmiPending > 0 || cpuHasInjectableIntr(vcpu) || initOrSipi) makeRequest(vcpu, REQ_EVENT);
}
