/** The MSRs with which a guest asks for asynchronous page faults (@kvm x86.c kvm_pv_enable_async_pf). */
import type { VcpuState } from '../vcpu-state.ts';
import { KVM_FEATURE_ASYNC_PF_INT, KVM_FEATURE_ASYNC_PF_VMEXIT } from './cpuid-features.ts';
import { guestPvHas } from './guest-cpuid.ts';

const KVM_ASYNC_PF_ENABLED = 1 << 0;
const KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT = 1 << 2;
const KVM_ASYNC_PF_DELIVERY_AS_INT = 1 << 3;
const RESERVED = 0x30;

/** Both bits it takes: enabled, and delivered as an interrupt. @kvm x86.c kvm_pv_async_pf_enabled */
export function asyncPfEnabled(vcpu: VcpuState): boolean {
  const mask = KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT;
  return (vcpu.x86.apfEnLo & mask) === mask;
}

/** 0, or 1 for #GP. Page faults that wait are then handled synchronously all the same. */
export function setAsyncPfEnable(vcpu: VcpuState, lo: number, hi: number): number {
  if ((lo & RESERVED) !== 0) return 1;
  if ((lo & KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT) !== 0 && !guestPvHas(vcpu, KVM_FEATURE_ASYNC_PF_VMEXIT)) return 1;
  if ((lo & KVM_ASYNC_PF_DELIVERY_AS_INT) !== 0 && !guestPvHas(vcpu, KVM_FEATURE_ASYNC_PF_INT)) return 1;
  if (vcpu.x86.lapic === null) return (lo | hi) !== 0 ? 1 : 0;
  vcpu.x86.apfEnLo = lo;
  vcpu.x86.apfEnHi = hi;
  return 0;
}

/** @kvm x86.c kvm_pv_enable_async_pf_int */
export function setAsyncPfInt(vcpu: VcpuState, lo: number, hi: number): number {
  if (hi !== 0 || (lo & ~0xff) !== 0) return 1;
  if (vcpu.x86.lapic === null) return 1;
  vcpu.x86.apfIntLo = lo;
  return 0;
}
