/** The local APIC's registers as memory (@kvm lapic.c apic_mmio_read, apic_mmio_write). */
import { EOPNOTSUPP } from '../../host/errno.ts';
import type { VcpuState } from '../vcpu-state.ts';
import * as A from './lapic.ts';
import { lapicRegRead, lapicRegWrite } from './lapic-registers.ts';
import { hasQuirk, KVM_X86_QUIRK_LAPIC_MMIO_HOLE } from './vm-x86.ts';

function inRange(apic: A.Lapic, gpa: number): boolean {
  return gpa >= apic.baseAddress && gpa < apic.baseAddress + 4096;
}

/**
 * Switched off by IA32_APIC_BASE, or reached through MSRs: the page is a hole, which by default swallows what is done to it. 1 a live
 * APIC, 0 swallowed.
 */
function liveness(vcpu: VcpuState): number {
  if (A.lapicHwEnabled(vcpu) && !A.x2apicMode(vcpu.x86.lapic!)) return 1;
  return hasQuirk(vcpu.vm.x86, KVM_X86_QUIRK_LAPIC_MMIO_HOLE) ? 0 : -EOPNOTSUPP;
}

/** 0 answered, -EOPNOTSUPP not the APIC's. A read it cannot answer leaves `buf` as it is. @kvm lapic.c apic_mmio_read */
export function lapicMmioRead(vcpu: VcpuState, gpa: number, len: number, buf: Uint8Array, off: number): number {
  const apic = vcpu.x86.lapic!;
  if (!inRange(apic, gpa)) return -EOPNOTSUPP;
  const live = liveness(vcpu);
  if (live < 0) return live;
  if (live === 0) {
    buf.fill(0xff, off, off + len);
    return 0;
  }
  const value = lapicRegRead(apic, gpa - apic.baseAddress, len);
  for (let i = 0; value >= 0 && i < len; i++) buf[off + i] = value >>> (8 * i);
  return 0;
}

/** @kvm lapic.c apic_mmio_write: only aligned 32-bit writes do anything. */
export function lapicMmioWrite(vcpu: VcpuState, gpa: number, len: number, buf: Uint8Array, off: number): number {
  const apic = vcpu.x86.lapic!;
  if (!inRange(apic, gpa)) return -EOPNOTSUPP;
  const live = liveness(vcpu);
  if (live <= 0) return live;
  const offset = gpa - apic.baseAddress;
  if (len !== 4 || (offset & 0xf) !== 0) return 0;
  const value = buf[off]! | (buf[off + 1]! << 8) | (buf[off + 2]! << 16) | (buf[off + 3]! << 24);
  lapicRegWrite(apic, offset & 0xff0, value);
  return 0;
}
