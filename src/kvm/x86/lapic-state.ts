/** KVM_GET_LAPIC and KVM_SET_LAPIC (@kvm lapic.c kvm_apic_get_state, kvm_apic_set_state). */
import { EINVAL } from '../../host/errno.ts';
import type { VcpuState } from '../vcpu-state.ts';
import {
  APIC_ID,
  APIC_LDR,
  APIC_TMCCT,
  lapicAfterSetCpuid,
  lapicSetReg,
  lapicUpdatePpr,
  x2apicLdr,
  x2apicMode,
} from './lapic.ts';
import { currentCount, startApicTimer, updateDivideCount, updateTimerMode } from './lapic-timer.ts';

const STATE_BYTES = 1024;

/** The register page, or -EINVAL without an APIC. @kvm lapic.c kvm_apic_get_state */
export function getLapicState(vcpu: VcpuState): Uint8Array | number {
  const apic = vcpu.x86.lapic;
  if (apic === null) return -EINVAL;
  lapicSetReg(apic, APIC_TMCCT, currentCount(apic));
  const words = apic.regs.slice(0, STATE_BYTES / 4);
  if (x2apicMode(apic) && !vcpu.vm.x86.x2apicFormat) words[APIC_ID >> 2] = vcpu.id << 24;
  return new Uint8Array(words.buffer);
}

/** The page replaces the registers; 0 or -EINVAL. @kvm lapic.c kvm_apic_set_state */
export function setLapicState(vcpu: VcpuState, page: Uint8Array): number {
  const apic = vcpu.x86.lapic;
  if (apic === null) return -EINVAL;
  const id = new DataView(page.buffer, page.byteOffset).getUint32(APIC_ID, true);
  if (x2apicMode(apic) && vcpu.vm.x86.x2apicFormat && id !== vcpu.id) return -EINVAL;
  new Uint8Array(apic.regs.buffer, apic.regs.byteOffset, STATE_BYTES).set(page.subarray(0, STATE_BYTES));
  if (x2apicMode(apic)) {
    lapicSetReg(apic, APIC_ID, vcpu.id);
    lapicSetReg(apic, APIC_LDR, x2apicLdr(vcpu.id));
  }
  lapicAfterSetCpuid(vcpu, apic);
  updateTimerMode(apic);
  updateDivideCount(apic);
  startApicTimer(apic);
  lapicUpdatePpr(apic);
  return 0;
}
