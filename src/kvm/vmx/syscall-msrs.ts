/**
 * The MSRs of SYSCALL and SWAPGS, which no VMCS holds: KVM puts the guest's into the processor and leaves them there until another vCPU
 * comes (@kvm vmx.c vmx_prepare_switch_to_guest, vmx_setup_uret_msrs).
 */
import { CSTAR_AT, KERNEL_GS_BASE_AT, LSTAR_AT, SFMASK_AT, STAR_AT } from '../../cpu/state.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { MSR_CSTAR, MSR_KERNEL_GS_BASE, MSR_LSTAR, MSR_STAR, MSR_SYSCALL_MASK } from '../x86/msr-index.ts';

const places = [STAR_AT, LSTAR_AT, CSTAR_AT, SFMASK_AT, KERNEL_GS_BASE_AT];
const msrs = [MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK, MSR_KERNEL_GS_BASE];

/** Byte address of `msr` in the processor's state, or -1. The vCPU is the processor's owner whenever somebody asks. */
export function syscallMsrAt(msr: number): number {
  const n = msrs.indexOf(msr);
  return n === -1 ? -1 : places[n]!;
}

/** Another vCPU gets the processor. */
export function saveSyscallMsrs(vcpu: VcpuState): void {
  const { i32 } = vcpu.vm.memory;
  places.forEach((at, n) => {
    vcpu.vmx.syscallMsrs[2 * n] = i32[at >> 2]!;
    vcpu.vmx.syscallMsrs[2 * n + 1] = i32[(at >> 2) + 1]!;
  });
}

/** The vCPU gets the processor. */
export function loadSyscallMsrs(vcpu: VcpuState): void {
  const { i32 } = vcpu.vm.memory;
  places.forEach((at, n) => {
    i32[at >> 2] = vcpu.vmx.syscallMsrs[2 * n]!;
    i32[(at >> 2) + 1] = vcpu.vmx.syscallMsrs[2 * n + 1]!;
  });
}
