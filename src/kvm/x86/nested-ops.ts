/**
 * What a vendor module knows of guests that run guests: L1 is KVM's guest, L2 the guest of L1 (@kvm kvm_host.h struct
 * kvm_x86_nested_ops). One object a vendor, as `vendor.nested`; the rest of KVM asks it only while `vcpu.guestMode` is set, but for the
 * state calls.
 */
import { REQ_TRIPLE_FAULT, type VcpuState } from '../vcpu-state.ts';

/** Header of struct kvm_nested_state: flags (2 bytes), format (2), size (4), then 120 bytes of the vendor's. Its data follow. */
export const NESTED_STATE_HEADER = 128;
export const KVM_STATE_NESTED_FORMAT_VMX = 0;
export const KVM_STATE_NESTED_FORMAT_SVM = 1;
export const KVM_STATE_NESTED_GUEST_MODE = 1 << 0;
export const KVM_STATE_NESTED_RUN_PENDING = 1 << 1;
export const KVM_STATE_NESTED_EVMCS = 1 << 2;
export const KVM_STATE_NESTED_MTF_PENDING = 1 << 3;
export const KVM_STATE_NESTED_GIF_SET = 1 << 8;

export interface NestedOps {
  /** Ends guest mode by force, without an exit that L1 would see: RESET, INIT, a failed RSM. @kvm kvm_host.h leave_nested */
  leaveNested(vcpu: VcpuState): void;
  /** L1 wants an exit rather than that L2 gets this exception. @kvm kvm_host.h is_exception_vmexit */
  isExceptionVmexit(vcpu: VcpuState, vector: number, errorCode: number): boolean;
  /** Makes the exit to L1 that a pending event asks for. 0, or -EBUSY: only after the next entry. @kvm kvm_host.h check_events */
  checkEvents(vcpu: VcpuState): number;
  /** There are events of L2's alone. @kvm kvm_host.h has_events */
  hasEvents(vcpu: VcpuState, forInjection: boolean): boolean;
  /** L2 has triple-faulted: where L1 wants to hear of it, takes the request back and exits to L1. @kvm kvm_host.h triple_fault */
  tripleFault(vcpu: VcpuState): void;
  /** Bytes of the state; they are filled in when `out` has room for them. A null vCPU asks for the most there can be. */
  getState(vcpu: VcpuState | null, out: Uint8Array): number;
  /** 0, -EINVAL, -EFAULT or -ENOMEM. `state` holds at least the header, whose common fields were checked. */
  setState(vcpu: VcpuState, state: Uint8Array): number;
  /** What has to be read from L1's memory before L2 goes on. False when it is not there. @kvm kvm_host.h get_nested_state_pages */
  getNestedStatePages(vcpu: VcpuState): boolean;
}

/** A vendor without nested virtualization: never in guest mode, and without state. */
export const NO_NESTED: NestedOps = {
  leaveNested: () => {},
  isExceptionVmexit: () => false,
  checkEvents: () => 0,
  hasEvents: () => false,
  tripleFault: () => {},
  getState: () => 0,
  setState: () => 0,
  getNestedStatePages: () => true,
};

/** @kvm kvm_cache_regs.h enter_guest_mode */
export function enterGuestMode(vcpu: VcpuState): void {
  vcpu.guestMode = true;
  vcpu.stats.guest_mode = 1;
}

/** @kvm kvm_cache_regs.h leave_guest_mode */
export function leaveGuestMode(vcpu: VcpuState): void {
  vcpu.guestMode = false;
  vcpu.stats.guest_mode = 0;
}

/** @kvm x86.h kvm_leave_nested */
export function leaveNested(vcpu: VcpuState): void {
  vcpu.vm.vendor.nested.leaveNested(vcpu);
}

/** Exits to L1 for whatever is due, in guest mode. 1 or 0, or -EBUSY when the entry under way must come first. @kvm x86.c kvm_check_nested_events */
export function checkNestedEvents(vcpu: VcpuState): number {
  const { nested } = vcpu.vm.vendor;
  if ((vcpu.requests & REQ_TRIPLE_FAULT) !== 0) {
    nested.tripleFault(vcpu);
    return 1;
  }
  return nested.checkEvents(vcpu);
}
