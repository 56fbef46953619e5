/** System management mode and VMX operation (@kvm vmx.c vmx_enter_smm, vmx_leave_smm). */
import type { VcpuState } from '../../vcpu-state.ts';
import { clearHlt } from '../events.ts';
import { NVMX_VMENTRY_SUCCESS, nestedVmxEnterNonRootMode } from './enter.ts';
import { NO_EXIT_REASON, nestedVmxVmexit } from './vmexit.ts';

/** An SMI: L2 and VMX operation wait for RSM. @kvm vmx.c vmx_enter_smm */
export function vmxEnterSmm(vcpu: VcpuState): number {
  const { nested } = vcpu.vmx;
  nested.smm.guestMode = vcpu.guestMode;
  if (nested.smm.guestMode) nestedVmxVmexit(vcpu, NO_EXIT_REASON, 0, 0, 0);
  nested.smm.vmxon = nested.vmxon;
  nested.vmxon = false;
  clearHlt(vcpu);
  return 0;
}

/** RSM. @kvm vmx.c vmx_leave_smm */
export function vmxLeaveSmm(vcpu: VcpuState): number {
  const { nested } = vcpu.vmx;
  if (nested.smm.vmxon) {
    nested.vmxon = true;
    nested.smm.vmxon = false;
  }
  if (!nested.smm.guestMode) return 0;
  const r = nestedVmxEnterNonRootMode(vcpu, false);
  if (r !== NVMX_VMENTRY_SUCCESS) return r;
  nested.runPending = true;
  nested.smm.guestMode = false;
  return 0;
}
