/**
 * Reading and writing fields of the vCPU's VMCS, by the constants of src/arch/vmcs.ts. KVM does it with VMREAD and VMWRITE; this
 * processor keeps nothing of a VMCS outside memory, so that here it is a load or a store (@kvm vmx_ops.h vmcs_read32, vmcs_write64).
 */
import {
  VMCS_CPU_BASED_VM_EXEC_CONTROL,
  VMCS_SECONDARY_VM_EXEC_CONTROL,
  VMCS_VM_ENTRY_CONTROLS,
} from '../../arch/vmcs.ts';
import type { VcpuVmx } from './vcpu-vmx.ts';

/** Low half of a field, signed; fields of 16 bits are zero-extended. HOT */
export function vmcsRead(vmx: VcpuVmx, field: number): number {
  return vmx.words[vmx.vmcs + (field >> 2)]!;
}

/** High half of a 64-bit or natural-width field. HOT */
export function vmcsReadHi(vmx: VcpuVmx, field: number): number {
  return vmx.words[vmx.vmcs + (field >> 2) + 1]!;
}

/** HOT */
export function vmcsWrite(vmx: VcpuVmx, field: number, value: number): void {
  vmx.words[vmx.vmcs + (field >> 2)] = value;
}

/** Writes a 64-bit or natural-width field. HOT */
export function vmcsWrite64(vmx: VcpuVmx, field: number, lo: number, hi: number): void {
  const at = vmx.vmcs + (field >> 2);
  vmx.words[at] = lo;
  vmx.words[at + 1] = hi;
}

/** @kvm vmx_ops.h vmcs_set_bits */
export function vmcsSetBits(vmx: VcpuVmx, field: number, mask: number): void {
  vmx.words[vmx.vmcs + (field >> 2)]! |= mask;
}

/** @kvm vmx_ops.h vmcs_clear_bits */
export function vmcsClearBits(vmx: VcpuVmx, field: number, mask: number): void {
  vmx.words[vmx.vmcs + (field >> 2)]! &= ~mask;
}

/** @kvm vmx.h exec_controls_setbit, exec_controls_clearbit */
export function changeExecControls(vmx: VcpuVmx, mask: number, on: boolean): void {
  (on ? vmcsSetBits : vmcsClearBits)(vmx, VMCS_CPU_BASED_VM_EXEC_CONTROL, mask);
}

/** @kvm vmx.h secondary_exec_controls_setbit, secondary_exec_controls_clearbit */
export function changeSecondaryExecControls(vmx: VcpuVmx, mask: number, on: boolean): void {
  (on ? vmcsSetBits : vmcsClearBits)(vmx, VMCS_SECONDARY_VM_EXEC_CONTROL, mask);
}

/** @kvm vmx.h vm_entry_controls_setbit, vm_entry_controls_clearbit */
export function changeEntryControls(vmx: VcpuVmx, mask: number, on: boolean): void {
  (on ? vmcsSetBits : vmcsClearBits)(vmx, VMCS_VM_ENTRY_CONTROLS, mask);
}
