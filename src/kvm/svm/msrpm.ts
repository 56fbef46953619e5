/**
 * The MSR permission map: two bits an MSR, read then write, 1 means exit (@apm 15.11). Three ranges of 0x2000 MSRs, 2 KiB each.
 */
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_MSR_FILTER_READ, KVM_MSR_FILTER_WRITE, msrAllowed } from '../x86/msr-filter.ts';

export const MSRPM_PAGES = 2;

const ranges = [0x0000_0000, 0xc000_0000, 0xc001_0000];
const RANGE_MSRS = 0x2000;
const RANGE_BYTES = 0x800;

/** MSRs the guest always reaches directly, because VMLOAD and VMSAVE switch them (@kvm svm.c direct_access_msrs). */
const alwaysDirect = [
  0xc0000081, // STAR
  0x174, // SYSENTER_CS
  0xc0000101, // GS_BASE
  0xc0000100, // FS_BASE
  0xc0000102, // KERNEL_GS_BASE
  0xc0000082, // LSTAR
  0xc0000083, // CSTAR
  0xc0000084, // SYSCALL_MASK
];

/** Byte of the map that has the two bits of `msr`; -1 when the map does not cover it. @kvm svm.c svm_msrpm_offset */
export function msrpmByte(msr: number): number {
  for (let i = 0; i < ranges.length; i++) {
    const n = msr - ranges[i]!;
    if (n >= 0 && n < RANGE_MSRS) return i * RANGE_BYTES + (n >> 2);
  }
  return -1;
}

/** Lets reads and writes of `msr` through as far as the filter allows, or makes them exit. @kvm svm.c set_msr_interception */
export function setMsrInterception(vcpu: VcpuState, msr: number, read: boolean, write: boolean): void {
  vcpu.svm.directMsrs.set(msr, { read, write });
  const { vm } = vcpu;
  setBits(
    vcpu,
    msr,
    read && msrAllowed(vm, msr, KVM_MSR_FILTER_READ),
    write && msrAllowed(vm, msr, KVM_MSR_FILTER_WRITE),
  );
}

/** @kvm svm.c svm_msr_filter_changed */
export function svmMsrFilterChanged(vcpu: VcpuState): void {
  for (const [msr, { read, write }] of vcpu.svm.directMsrs) setMsrInterception(vcpu, msr, read, write);
}

function setBits(vcpu: VcpuState, msr: number, read: boolean, write: boolean): void {
  const off = msrpmByte(msr);
  if (off < 0) return;
  const at = vcpu.svm.msrpmPfn * 4096 + off;
  const shift = (msr & 3) * 2;
  const u8 = vcpu.vm.memory.u8;
  const exits = (read ? 0 : 1) | (write ? 0 : 2);
  u8[at] = (u8[at]! & ~(3 << shift)) | (exits << shift);
}

/** @kvm svm.c svm_vcpu_init_msrpm */
export function initMsrpm(vcpu: VcpuState): void {
  const start = vcpu.svm.msrpmPfn * 4096;
  vcpu.vm.memory.u8.fill(0xff, start, start + MSRPM_PAGES * 4096);
  for (const msr of alwaysDirect) setMsrInterception(vcpu, msr, true, true);
}
