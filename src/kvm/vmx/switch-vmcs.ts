/** Which VMCS a vCPU works with: the one that runs L1, or the one that runs L2 (@kvm nested.c vmx_switch_vmcs). */
import { RIP, RSP } from '../../arch/registers.ts';
import * as F from '../../arch/vmcs.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { LoadedVmcs } from './loaded-vmcs.ts';
import { vmcsRead, vmcsReadHi } from './vmcs-access.ts';

/** Makes `vmcs` the processor's current one. @kvm vmx.c vmx_vcpu_load_vmcs */
export function loadVmcs(vcpu: VcpuState, vmcs: LoadedVmcs): void {
  const { vmx } = vcpu;
  vmx.loaded = vmcs;
  vmx.vmcs = vmcs.pfn * 1024;
  vcpu.vm.processor.vmx.vmptrld(vmcs.pfn * 4096);
}

/** Loads `vmcs`, and with it the registers that are taken from a VMCS as long as nobody writes them. @kvm nested.c vmx_switch_vmcs */
export function switchVmcs(vcpu: VcpuState, vmcs: LoadedVmcs): void {
  const { vmx } = vcpu;
  loadVmcs(vcpu, vmcs);
  vcpu.regs[2 * RSP] = vmcsRead(vmx, F.VMCS_GUEST_RSP);
  vcpu.regs[2 * RSP + 1] = vmcsReadHi(vmx, F.VMCS_GUEST_RSP);
  vcpu.regs[2 * RIP] = vmcsRead(vmx, F.VMCS_GUEST_RIP);
  vcpu.regs[2 * RIP + 1] = vmcsReadHi(vmx, F.VMCS_GUEST_RIP);
}
