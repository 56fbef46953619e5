/** Whose task priority L2 changes (@kvm svm.h nested_svm_virtualize_tpr). */
import { V_INTR_MASKING_MASK, VMCB_INT_CTL } from '../../arch/vmcb.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { vmcb12Read } from './vmcb-access.ts';

/** L2 has a task priority of its own, in its VMCB. @kvm svm.h nested_svm_virtualize_tpr */
export function nestedVirtualizeTpr(vcpu: VcpuState): boolean {
  return vcpu.guestMode && (vmcb12Read(vcpu.svm, VMCB_INT_CTL) & V_INTR_MASKING_MASK) !== 0;
}
