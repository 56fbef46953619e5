/** The MSRs with which a guest asks for asynchronous page faults (@kvm x86.c kvm_pv_enable_async_pf). */
import { numberOf } from '../../arch/halves.ts';
import { gfnToHva } from '../memslots/hva.ts';
import { vcpuGfnToMemslot } from '../memslots/memslots.ts';
import { gpaToGfn } from '../mmu/gpa.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { asyncPfEnabled, clearAsyncPf, wakeAllAsyncPf } from './async-pf.ts';
import {
  KVM_ASYNC_PF_DELIVERY_AS_INT,
  KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT,
  KVM_ASYNC_PF_SEND_ALWAYS,
} from './async-pf-state.ts';
import { KVM_FEATURE_ASYNC_PF_INT, KVM_FEATURE_ASYNC_PF_VMEXIT } from './cpuid-features.ts';
import { guestPvHas } from './guest-cpuid.ts';

const RESERVED = 0x30;
const AREA_MASK = ~0x3f;

/** 0, or 1 for #GP. @kvm x86.c kvm_pv_enable_async_pf */
export function setAsyncPfEnable(vcpu: VcpuState, lo: number, hi: number): number {
  const x86 = vcpu.x86;
  if ((lo & RESERVED) !== 0) return 1;
  if ((lo & KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT) !== 0 && !guestPvHas(vcpu, KVM_FEATURE_ASYNC_PF_VMEXIT)) return 1;
  if ((lo & KVM_ASYNC_PF_DELIVERY_AS_INT) !== 0 && !guestPvHas(vcpu, KVM_FEATURE_ASYNC_PF_INT)) return 1;
  if (x86.lapic === null) return (lo | hi) !== 0 ? 1 : 0;
  x86.apfEnLo = lo;
  x86.apfEnHi = hi;
  if (!asyncPfEnabled(vcpu)) {
    clearAsyncPf(vcpu);
    return 0;
  }
  const apf = x86.asyncPf;
  const gpa = numberOf(lo & AREA_MASK, hi);
  const gfn = gpaToGfn(gpa);
  // The value stays although the area is refused: deliveries then fail.
  apf.areaGpa = gfnToHva(vcpuGfnToMemslot(vcpu, gfn), gfn, false) < 0 ? -1 : gpa;
  if (apf.areaGpa < 0) return 1;
  apf.sendUserOnly = (lo & KVM_ASYNC_PF_SEND_ALWAYS) === 0;
  wakeAllAsyncPf(vcpu);
  return 0;
}

/** @kvm x86.c kvm_pv_enable_async_pf_int */
export function setAsyncPfInt(vcpu: VcpuState, lo: number, hi: number): number {
  if (hi !== 0 || (lo & ~0xff) !== 0 || vcpu.x86.lapic === null) return 1;
  vcpu.x86.apfIntLo = lo;
  return 0;
}
