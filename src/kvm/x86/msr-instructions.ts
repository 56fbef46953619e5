/** RDMSR and WRMSR of a guest, and MSR access with the checks they share (@kvm x86.c kvm_emulate_rdmsr, __kvm_set_msr). */
import { canonicalHi } from '../../arch/linear-address.ts';
import { RAX, RCX, RDX } from '../../arch/registers.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { isNoncanonicalBase } from './canonical.ts';
import { X86_FEATURE_RDPID, X86_FEATURE_RDTSCP } from './cpuid-features.ts';
import { guestCpuidHas } from './guest-cpuid.ts';
import { KVM_MSR_FILTER_READ, KVM_MSR_FILTER_WRITE, KVM_MSR_RET_FILTERED, msrAllowed } from './msr-filter.ts';
import * as M from './msr-index.ts';
import { KVM_MSR_RET_UNSUPPORTED } from './msr-index.ts';
import { readInUserspace, writeInUserspace } from './msr-user-space.ts';
import { writeEdxEax } from './registers.ts';
import { completeInsnGp } from './skip.ts';

/** #GP. */
export const MSR_FAULT = 1;
/** Userspace answers. */
export const MSR_EXIT = 2;

function tscAuxAllowed(vcpu: VcpuState, hostInitiated: boolean): boolean {
  return hostInitiated || guestCpuidHas(vcpu, X86_FEATURE_RDTSCP) || guestCpuidHas(vcpu, X86_FEATURE_RDPID);
}

/** 0, 1 or KVM_MSR_RET_* for #GP, negative for an errno; the value is in `vcpu.x86.msrValue`. @kvm x86.c __kvm_get_msr */
export function getMsr(vcpu: VcpuState, msr: number, hostInitiated: boolean): number {
  const index = msr >>> 0;
  if (index === M.MSR_TSC_AUX && !tscAuxAllowed(vcpu, hostInitiated)) return 1;
  const ret = vcpu.vm.vendor.getMsr(vcpu, index, hostInitiated);
  if (ret !== KVM_MSR_RET_UNSUPPORTED) return ret;
  vcpu.x86.msrValue.fill(0);
  return vcpu.vm.params.ignoreMsrs ? 0 : ret;
}

/** @kvm x86.c __kvm_set_msr */
export function setMsr(vcpu: VcpuState, msr: number, lo: number, hi: number, hostInitiated: boolean): number {
  const index = msr >>> 0;
  let low = lo;
  let high = hi;
  switch (index) {
    case M.MSR_FS_BASE:
    case M.MSR_GS_BASE:
    case M.MSR_KERNEL_GS_BASE:
    case M.MSR_CSTAR:
    case M.MSR_LSTAR:
      if (isNoncanonicalBase(vcpu, hi)) return 1;
      break;
    case M.MSR_IA32_SYSENTER_EIP:
    case M.MSR_IA32_SYSENTER_ESP:
      // AMD takes anything; what is kept is made canonical.
      high = canonicalHi(hi, vcpu.vm.profile.la57);
      break;
    case M.MSR_TSC_AUX:
      if (!tscAuxAllowed(vcpu, hostInitiated)) return 1;
      high = 0;
      break;
    default:
      low = lo;
      break;
  }
  const ret = vcpu.vm.vendor.setMsr(vcpu, index, low, high, hostInitiated);
  return ret === KVM_MSR_RET_UNSUPPORTED && vcpu.vm.params.ignoreMsrs ? 0 : ret;
}

function trace(vcpu: VcpuState, write: boolean, msr: number, lo: number, hi: number, failed: boolean): void {
  const events = vcpu.vm.trace;
  if (!events.enabled) return;
  const data = hi === 0 ? (lo >>> 0).toString(16) : (hi >>> 0).toString(16) + (lo >>> 0).toString(16).padStart(8, '0');
  const text = `msr_${write ? 'write' : 'read'} ${(msr >>> 0).toString(16)} = 0x${data}${failed ? ' (#GP)' : ''}`;
  events.emit('kvm_msr', { text });
}

/** @kvm x86.c kvm_get_msr_with_filter */
function getFiltered(vcpu: VcpuState, msr: number): number {
  return msrAllowed(vcpu.vm, msr, KVM_MSR_FILTER_READ) ? getMsr(vcpu, msr, false) : KVM_MSR_RET_FILTERED;
}

/**
 * A read by the guest: 0 and the value in `vcpu.x86.msrValue`, MSR_FAULT, MSR_EXIT or a negative errno.
 * @kvm x86.c kvm_emulate_rdmsr, emulator_get_msr_with_filter
 */
export function guestReadMsr(vcpu: VcpuState, msr: number, emulated: boolean): number {
  const r = getFiltered(vcpu, msr);
  if (r !== 0 && readInUserspace(vcpu, msr, r, emulated)) return MSR_EXIT;
  if (r < 0) return r;
  const [lo, hi] = vcpu.x86.msrValue as unknown as [number, number];
  trace(vcpu, false, msr, r === 0 ? lo : 0, r === 0 ? hi : 0, r !== 0);
  return r === 0 ? 0 : MSR_FAULT;
}

/** A write by the guest: 0, MSR_FAULT, MSR_EXIT or a negative errno. @kvm x86.c kvm_emulate_wrmsr, emulator_set_msr_with_filter */
export function guestWriteMsr(vcpu: VcpuState, msr: number, lo: number, hi: number, emulated: boolean): number {
  const allowed = msrAllowed(vcpu.vm, msr, KVM_MSR_FILTER_WRITE);
  const r = allowed ? setMsr(vcpu, msr, lo, hi, false) : KVM_MSR_RET_FILTERED;
  if (r !== 0 && writeInUserspace(vcpu, msr, lo, hi, r, emulated)) return MSR_EXIT;
  if (r < 0) return r;
  trace(vcpu, true, msr, lo, hi, r !== 0);
  return r === 0 ? 0 : MSR_FAULT;
}

/** @kvm x86.c kvm_emulate_rdmsr */
export function emulateRdmsr(vcpu: VcpuState): number {
  const r = guestReadMsr(vcpu, vcpu.regs[2 * RCX]!, false);
  if (r === MSR_EXIT) return 0;
  if (r === 0) writeEdxEax(vcpu, vcpu.x86.msrValue[0]!, vcpu.x86.msrValue[1]!);
  return completeInsnGp(vcpu, r);
}

/** @kvm x86.c kvm_emulate_wrmsr */
export function emulateWrmsr(vcpu: VcpuState): number {
  const r = guestWriteMsr(vcpu, vcpu.regs[2 * RCX]!, vcpu.regs[2 * RAX]!, vcpu.regs[2 * RDX]!, false);
  if (r === MSR_EXIT) return 0;
  return r < 0 ? r : completeInsnGp(vcpu, r);
}
