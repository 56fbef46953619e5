/** KVM_GET_MP_STATE and KVM_SET_MP_STATE (@kvm x86.c kvm_arch_vcpu_ioctl_set_mpstate). */
import { EINVAL } from '../../host/errno.ts';
import {
  MP_STATE_HALTED,
  MP_STATE_INIT_RECEIVED,
  MP_STATE_RUNNABLE,
  MP_STATE_SIPI_RECEIVED,
  MP_STATE_UNINITIALIZED,
  makeRequest,
  REQ_EVENT,
  type VcpuState,
} from '../vcpu-state.ts';
import { acceptApicEvents, initSipiAllowed } from './inject-events.ts';

const needApic = new Set([MP_STATE_UNINITIALIZED, MP_STATE_HALTED, MP_STATE_INIT_RECEIVED, MP_STATE_SIPI_RECEIVED]);

/** @kvm x86.c kvm_arch_vcpu_ioctl_get_mpstate */
export function getMpState(vcpu: VcpuState): number {
  vcpu.vm.vendor.vcpuLoad(vcpu);
  acceptApicEvents(vcpu);
  return vcpu.mpState === MP_STATE_HALTED && vcpu.x86.pvUnhalted ? MP_STATE_RUNNABLE : vcpu.mpState;
}

/** 0, or -EINVAL: no such state, or one that only a vCPU with an in-kernel APIC has. @kvm x86.c kvm_arch_vcpu_ioctl_set_mpstate */
export function setMpState(vcpu: VcpuState, state: number): number {
  if (needApic.has(state)) {
    if (vcpu.x86.lapic === null) return -EINVAL;
  } else if (state !== MP_STATE_RUNNABLE) {
    return -EINVAL;
  }
  const initOrSipi = state === MP_STATE_SIPI_RECEIVED || state === MP_STATE_INIT_RECEIVED;
  if (initOrSipi && (vcpu.x86.smiPending || !initSipiAllowed(vcpu))) return -EINVAL;
  if (state === MP_STATE_SIPI_RECEIVED) {
    vcpu.mpState = MP_STATE_INIT_RECEIVED;
    vcpu.x86.lapic!.pendingSipi = true;
  } else {
    vcpu.mpState = state;
  }
  makeRequest(vcpu, REQ_EVENT);
  return 0;
}
