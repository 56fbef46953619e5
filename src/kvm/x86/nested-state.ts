/** KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE: what the two vendors share (@kvm x86.c kvm_arch_vcpu_ioctl). */
import { EINVAL } from '../../host/errno.ts';
import type { VcpuState } from '../vcpu-state.ts';
import {
  KVM_STATE_NESTED_EVMCS,
  KVM_STATE_NESTED_GIF_SET,
  KVM_STATE_NESTED_GUEST_MODE,
  KVM_STATE_NESTED_MTF_PENDING,
  KVM_STATE_NESTED_RUN_PENDING,
  NESTED_STATE_HEADER,
} from './nested-ops.ts';

const KNOWN_FLAGS =
  KVM_STATE_NESTED_RUN_PENDING |
  KVM_STATE_NESTED_GUEST_MODE |
  KVM_STATE_NESTED_EVMCS |
  KVM_STATE_NESTED_MTF_PENDING |
  KVM_STATE_NESTED_GIF_SET;

/** Where the fields of the header are. */
export const NESTED_STATE_FLAGS = 0;
export const NESTED_STATE_FORMAT = 2;
export const NESTED_STATE_SIZE = 4;
export const NESTED_STATE_HDR = 8;

/**
 * Bytes of the vCPU's nested state, which `out` gets where it has room for all of them: a longer answer than `out` is E2BIG.
 * @kvm x86.c kvm_arch_vcpu_ioctl
 */
export function getNestedState(vcpu: VcpuState, out: Uint8Array): number {
  const r = vcpu.vm.vendor.nested.getState(vcpu, out);
  return r === 0 ? -EINVAL : r;
}

/** 0 or -EINVAL, -EFAULT, -ENOMEM. @kvm x86.c kvm_arch_vcpu_ioctl */
export function setNestedState(vcpu: VcpuState, state: Uint8Array): number {
  if (state.length < NESTED_STATE_HEADER) return -EINVAL;
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  if (view.getUint32(NESTED_STATE_SIZE, true) < NESTED_STATE_HEADER) return -EINVAL;
  const flags = view.getUint16(NESTED_STATE_FLAGS, true);
  if ((flags & ~KNOWN_FLAGS) !== 0) return -EINVAL;
  const pendingOutside = (flags & KVM_STATE_NESTED_RUN_PENDING) !== 0 && (flags & KVM_STATE_NESTED_GUEST_MODE) === 0;
  if (pendingOutside) return -EINVAL;
  return vcpu.vm.vendor.nested.setState(vcpu, state);
}
