/** The local APIC's registers as MSRs 0x800 to 0x8ff (@kvm lapic.c kvm_x2apic_msr_read, kvm_x2apic_msr_write). */
import type { VcpuState } from '../vcpu-state.ts';
import { APIC_ICR, APIC_ICR2, type Lapic, lapicReg, lapicSetReg, x2apicMode } from './lapic.ts';
import { lapicSendIpi } from './lapic-delivery.ts';
import { lapicRegRead, lapicRegWrite, traceApic } from './lapic-registers.ts';

const APIC_BASE_MSR = 0x800;
const ICR_RESERVED = 0xfff32000 | 0;
const ICR_BUSY = 1 << 12;

export function isX2apicMsr(msr: number): boolean {
  return msr >= APIC_BASE_MSR && msr <= APIC_BASE_MSR + 0xff;
}

/** ICR is one register of 64 bits. @kvm lapic.c kvm_x2apic_icr_write */
function writeIcr(apic: Lapic, value: number, dest: number): number {
  if ((value & ICR_RESERVED) !== 0) return 1;
  const lo = value & ~ICR_BUSY;
  lapicSendIpi(apic, lo, dest);
  lapicSetReg(apic, APIC_ICR, lo);
  lapicSetReg(apic, APIC_ICR2, dest);
  traceApic(apic.vcpu, true, APIC_ICR, lo, dest);
  return 0;
}

/** 0, or 1 for #GP. @kvm lapic.c kvm_x2apic_msr_write */
export function x2apicMsrWrite(vcpu: VcpuState, msr: number, lo: number, hi: number): number {
  const apic = vcpu.x86.lapic;
  if (apic === null || !x2apicMode(apic)) return 1;
  const reg = (msr - APIC_BASE_MSR) << 4;
  if (reg === APIC_ICR) return writeIcr(apic, lo, hi);
  return hi !== 0 ? 1 : lapicRegWrite(apic, reg, lo);
}

/** 0 and the value in `vcpu.x86.msrValue`, or 1 for #GP. @kvm lapic.c kvm_x2apic_msr_read */
export function x2apicMsrRead(vcpu: VcpuState, msr: number): number {
  const apic = vcpu.x86.lapic;
  if (apic === null || !x2apicMode(apic)) return 1;
  const out = vcpu.x86.msrValue;
  const reg = (msr - APIC_BASE_MSR) << 4;
  if (reg === APIC_ICR) {
    out[0] = lapicReg(apic, APIC_ICR);
    out[1] = lapicReg(apic, APIC_ICR2);
    return 0;
  }
  const value = lapicRegRead(apic, reg, 4);
  if (value < 0) return 1;
  out[0] = value;
  out[1] = 0;
  return 0;
}
