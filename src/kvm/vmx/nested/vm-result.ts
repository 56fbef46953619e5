/** What a VMX instruction of L1's leaves in RFLAGS (@sdm 32.2; @kvm nested.c nested_vmx_succeed, nested_vmx_fail). */
import { RFLAGS_AF, RFLAGS_CF, RFLAGS_OF, RFLAGS_PF, RFLAGS_SF, RFLAGS_ZF } from '../../../arch/registers.ts';
import { VMCS_VM_INSTRUCTION_ERROR } from '../../../arch/vmcs.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { skipEmulatedInstruction } from '../../x86/skip.ts';
import { vmxGetRflags, vmxSetRflags } from '../events.ts';
import { INVALID_VMPTR } from './nested-vmx.ts';

const FLAGS = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;

function finish(vcpu: VcpuState, flags: number): number {
  vmxSetRflags(vcpu, (vmxGetRflags(vcpu) & ~FLAGS) | flags);
  return skipEmulatedInstruction(vcpu);
}

/** @kvm nested.c nested_vmx_succeed */
export function nestedVmxSucceed(vcpu: VcpuState): number {
  return finish(vcpu, 0);
}

/** There is no current VMCS to keep an error. @kvm nested.c nested_vmx_failInvalid */
export function nestedVmxFailInvalid(vcpu: VcpuState): number {
  return finish(vcpu, RFLAGS_CF);
}

/** @kvm nested.c nested_vmx_fail */
export function nestedVmxFail(vcpu: VcpuState, error: number): number {
  const { nested } = vcpu.vmx;
  if (nested.currentVmptr === INVALID_VMPTR) return nestedVmxFailInvalid(vcpu);
  nested.vmcs12.set(VMCS_VM_INSTRUCTION_ERROR, error);
  return finish(vcpu, RFLAGS_ZF);
}
