/** The log of modified pages that the processor keeps while some slot's dirty pages are logged (@kvm vmx.c vmx_flush_pml_buffer). */
import { VMCS_GUEST_PML_INDEX } from '../../arch/vmcs.ts';
import { SECONDARY_EXEC_ENABLE_PML } from '../../arch/vmx-controls.ts';
import { markPageDirty } from '../dirty/mark-dirty.ts';
import { gpaToGfn } from '../mmu/gpa.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { changeSecondaryExecControls, vmcsRead, vmcsWrite } from './vmcs-access.ts';

/** @kvm vmx.h PML_ENTITY_NUM */
export const PML_ENTITY_NUM = 512;

/** Everything in the log is marked dirty, newest first. @kvm vmx.c vmx_flush_pml_buffer */
export function vmxFlushPmlBuffer(vcpu: VcpuState): void {
  const vmx = vcpu.vmx;
  const index = vmcsRead(vmx, VMCS_GUEST_PML_INDEX) & 0xffff;
  if (index === PML_ENTITY_NUM - 1) return;
  const { i32 } = vcpu.vm.memory;
  for (let i = index >= PML_ENTITY_NUM ? 0 : index + 1; i < PML_ENTITY_NUM; i++) {
    const at = vmx.pmlPfn * 1024 + 2 * i;
    markPageDirty(vcpu, gpaToGfn((i32[at + 1]! >>> 0) * 0x1_0000_0000 + (i32[at]! >>> 0)));
  }
  vmcsWrite(vmx, VMCS_GUEST_PML_INDEX, PML_ENTITY_NUM - 1);
}

/** @kvm vmx.c vmx_update_cpu_dirty_logging */
export function vmxUpdateCpuDirtyLogging(vcpu: VcpuState): void {
  if (vcpu.guestMode) {
    vcpu.vmx.nested.updateVmcs01CpuDirtyLogging = true;
    return;
  }
  changeSecondaryExecControls(vcpu.vmx, SECONDARY_EXEC_ENABLE_PML, vcpu.vm.slots.nrDirtyLogging > 0);
}
