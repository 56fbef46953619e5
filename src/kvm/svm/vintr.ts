/** KVM's interrupt window: a virtual interrupt that is never delivered but exits as soon as it could be (@kvm svm.c svm_set_vintr). */
import * as V from '../../arch/vmcb.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { clrIntercept, isIntercept, setIntercept, vmcb12Read, vmcbRead, vmcbWrite } from './vmcb-access.ts';

const V_INTR_PRIO_MASK = 0xf << V.V_INTR_PRIO_SHIFT;
/** @kvm svm.h V_IRQ_INJECTION_BITS_MASK */
export const V_IRQ_INJECTION_BITS = V.V_IRQ_MASK | V_INTR_PRIO_MASK | V.V_IGN_TPR_MASK;

/** @kvm svm.c svm_set_vintr */
export function svmSetVintr(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  setIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_VINTR);
  // While L2 runs, an L1 that had interrupts off has no window.
  if (!isIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_VINTR)) return;
  vmcbWrite(svm, V.VMCB_INT_VECTOR, 0);
  const ctl = vmcbRead(svm, V.VMCB_INT_CTL) & ~V_INTR_PRIO_MASK;
  vmcbWrite(svm, V.VMCB_INT_CTL, ctl | V.V_IRQ_MASK | V_INTR_PRIO_MASK);
}

/** @kvm svm.c svm_clear_vintr: L2's virtual interrupt is L1's again. */
export function svmClearVintr(vcpu: VcpuState): void {
  const svm = vcpu.svm;
  clrIntercept(svm, V.VMCB_INTERCEPT_WORD3, V.INTERCEPT_VINTR);
  let ctl = vmcbRead(svm, V.VMCB_INT_CTL) & ~V_IRQ_INJECTION_BITS;
  if (vcpu.guestMode) {
    svm.words[svm.vmcb01.word + (V.VMCB_INT_CTL >> 2)]! &= ~V_IRQ_INJECTION_BITS;
    ctl |= vmcb12Read(svm, V.VMCB_INT_CTL) & V_IRQ_INJECTION_BITS;
    vmcbWrite(svm, V.VMCB_INT_VECTOR, vmcb12Read(svm, V.VMCB_INT_VECTOR));
  }
  vmcbWrite(svm, V.VMCB_INT_CTL, ctl);
}
