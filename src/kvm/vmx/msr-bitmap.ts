/**
 * The MSR bitmap: a page of reads of the low and the high 8192 MSRs, then writes of both; 1 means exit (@sdm 26.6.9; @kvm vmx.c
 * vmx_disable_intercept_for_msr).
 */
import {
  MSR_FS_BASE,
  MSR_GS_BASE,
  MSR_IA32_SYSENTER_CS,
  MSR_IA32_SYSENTER_EIP,
  MSR_IA32_SYSENTER_ESP,
  MSR_IA32_TSC,
  MSR_KERNEL_GS_BASE,
} from '../../arch/msr.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_MSR_FILTER_READ, KVM_MSR_FILTER_WRITE, msrAllowed } from '../x86/msr-filter.ts';

const WRITES = 0x800;
const HIGH = 0x400;

/** MSRs the guest always reaches directly, for reads and for writes (@kvm vmx.c vmx_vcpu_create). */
const alwaysDirect = [
  MSR_FS_BASE,
  MSR_GS_BASE,
  MSR_KERNEL_GS_BASE,
  MSR_IA32_SYSENTER_CS,
  MSR_IA32_SYSENTER_ESP,
  MSR_IA32_SYSENTER_EIP,
];

function setBit(vcpu: VcpuState, msr: number, part: number, exits: boolean): void {
  const high = msr >= 0xc0000000;
  const at = vcpu.vmx.vmcs01.msrBitmapPfn * 4096 + part + (high ? HIGH : 0) + ((msr & 0x1fff) >>> 3);
  const mask = 1 << (msr & 7);
  const u8 = vcpu.vm.memory.u8;
  u8[at] = exits ? u8[at]! | mask : u8[at]! & ~mask;
}

/** Lets reads and writes of `msr` through as far as the filter allows, or makes them exit. @kvm vmx.h vmx_set_intercept_for_msr */
export function setMsrDirect(vcpu: VcpuState, msr: number, read: boolean, write: boolean): void {
  vcpu.vmx.directMsrs.set(msr, { read, write });
  const { vm } = vcpu;
  setBit(vcpu, msr, 0, !(read && msrAllowed(vm, msr, KVM_MSR_FILTER_READ)));
  setBit(vcpu, msr, WRITES, !(write && msrAllowed(vm, msr, KVM_MSR_FILTER_WRITE)));
}

/** @kvm vmx.c vmx_msr_filter_changed */
export function vmxMsrFilterChanged(vcpu: VcpuState): void {
  for (const [msr, { read, write }] of vcpu.vmx.directMsrs) setMsrDirect(vcpu, msr, read, write);
}

/** All ones, but for what every guest gets. */
export function initMsrBitmap(vcpu: VcpuState): void {
  const start = vcpu.vmx.vmcs01.msrBitmapPfn * 4096;
  vcpu.vm.memory.u8.fill(0xff, start, start + 4096);
  setMsrDirect(vcpu, MSR_IA32_TSC, true, false);
  for (const msr of alwaysDirect) setMsrDirect(vcpu, msr, true, true);
}
