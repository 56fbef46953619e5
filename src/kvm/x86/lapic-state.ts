/** KVM_GET_LAPIC and KVM_SET_LAPIC (@kvm lapic.c kvm_apic_get_state, kvm_apic_set_state). */
import { EINVAL } from '../../host/errno.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { APIC_TMCCT, lapicAfterSetCpuid, lapicSetReg, lapicUpdatePpr } from './lapic.ts';
import { currentCount, startApicTimer, updateDivideCount } from './lapic-timer.ts';

const STATE_BYTES = 1024;

/** The register page, or -EINVAL without an APIC. @kvm lapic.c kvm_apic_get_state */
export function getLapicState(vcpu: VcpuState): Uint8Array | number {
  const apic = vcpu.x86.lapic;
  if (apic === null) return -EINVAL;
  lapicSetReg(apic, APIC_TMCCT, currentCount(apic));
  return new Uint8Array(apic.regs.buffer.slice(0, STATE_BYTES));
}

/** The page replaces the registers; 0 or -EINVAL. @kvm lapic.c kvm_apic_set_state */
export function setLapicState(vcpu: VcpuState, page: Uint8Array): number {
  const apic = vcpu.x86.lapic;
  if (apic === null) return -EINVAL;
  new Uint8Array(apic.regs.buffer).set(page.subarray(0, STATE_BYTES));
  lapicAfterSetCpuid(vcpu, apic);
  updateDivideCount(apic);
  startApicTimer(apic);
  lapicUpdatePpr(apic);
  return 0;
}
