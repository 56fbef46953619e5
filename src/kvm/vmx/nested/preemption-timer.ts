/**
 * The VMX-preemption timer that L1 gives L2 (@sdm 27.5.1): a timer of KVM's, which counts once in 32 ticks of L1's time-stamp counter (@kvm nested.c
 * vmx_calc_preemption_timer_value, vmx_start_preemption_timer).
 */
import { numberOf } from '../../../arch/halves.ts';
import { VMCS_VMX_PREEMPTION_TIMER_VALUE } from '../../../arch/vmcs.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../../vcpu-state.ts';
import { virtualNow } from '../../x86/virtual-time.ts';
import { PREEMPTION_TIMER_RATE } from './nested-msrs.ts';

const TICKS = 1 << PREEMPTION_TIMER_RATE;

/** L1's TSC in units of the timer. A guest's offset makes it start near zero, so that it stays a number. */
function scaledL1Tsc(vcpu: VcpuState): number {
  const { tscOffsetLo, tscOffsetHi } = vcpu.x86;
  const now = virtualNow(vcpu.vm);
  const low = (now % 0x1_0000_0000) + (tscOffsetLo >>> 0);
  const hi = (Math.floor(now / 0x1_0000_0000) + tscOffsetHi + (low >= 0x1_0000_0000 ? 1 : 0)) | 0;
  return Math.floor(numberOf(low | 0, hi) / TICKS);
}

/** Time is up. @kvm nested.c vmx_preemption_timer_fn */
export function preemptionTimerFn(vcpu: VcpuState): void {
  vcpu.vmx.nested.preemptionTimerExpired = true;
  makeRequest(vcpu, REQ_EVENT);
}

/** L2 is entered. @kvm nested.c vmx_calc_preemption_timer_value, vmx_start_preemption_timer */
export function startPreemptionTimer(vcpu: VcpuState): void {
  const { nested } = vcpu.vmx;
  const tsc = scaledL1Tsc(vcpu);
  if (!nested.hasPreemptionTimerDeadline) {
    nested.preemptionTimerDeadline = (nested.vmcs12.lo(VMCS_VMX_PREEMPTION_TIMER_VALUE) >>> 0) + tsc;
    nested.hasPreemptionTimerDeadline = true;
  }
  const left = nested.preemptionTimerDeadline - tsc;
  if (left <= 0) preemptionTimerFn(vcpu);
  else vcpu.vm.x86.timers.start(nested.preemptionTimer, virtualNow(vcpu.vm) + left * TICKS);
}

/** L2 is left. */
export function cancelPreemptionTimer(vcpu: VcpuState): void {
  vcpu.vm.x86.timers.cancel(vcpu.vmx.nested.preemptionTimer);
}

/** What is left of it. @kvm nested.c vmx_get_preemption_timer_value */
export function preemptionTimerValue(vcpu: VcpuState): number {
  const { expires } = vcpu.vmx.nested.preemptionTimer;
  if (expires < 0) return 0;
  return Math.floor(Math.max(0, expires - virtualNow(vcpu.vm)) / TICKS);
}
