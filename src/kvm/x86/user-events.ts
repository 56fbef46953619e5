/** KVM_INTERRUPT and KVM_NMI: events that userspace makes (@kvm x86.c kvm_vcpu_ioctl_interrupt, kvm_vcpu_ioctl_nmi). */
import { EINVAL, ENXIO } from '../../host/errno.ts';
import { makeRequest, REQ_EVENT, REQ_NMI, type VcpuState } from '../vcpu-state.ts';
import { queueInterrupt } from './exceptions.ts';

/** 0, -EINVAL (no such vector), -ENXIO (the interrupt controllers are KVM's). @kvm x86.c kvm_vcpu_ioctl_interrupt */
export function vcpuInterrupt(vcpu: VcpuState, vector: number): number {
  if (vector < 0 || vector > 255) return -EINVAL;
  if (vcpu.vm.x86.irqchipKernel) return -ENXIO;
  queueInterrupt(vcpu, vector, false);
  makeRequest(vcpu, REQ_EVENT);
  return 0;
}

/** @kvm x86.c kvm_inject_nmi */
export function injectNmi(vcpu: VcpuState): void {
  vcpu.x86.nmiQueued++;
  makeRequest(vcpu, REQ_NMI);
}
