/** The guest's time-stamp counter: virtual time plus an offset that the guest and userspace move (@kvm x86.c kvm_set_msr_common). */
import { hiOf, loOf } from '../../arch/halves.ts';
import { makeRequest, REQ_CLOCK_UPDATE, type VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_TSC_ADJUST } from './cpuid-features.ts';
import { guestCpuidHas } from './guest-cpuid.ts';
import { virtualNow } from './virtual-time.ts';

/** High half of a sum whose low half came out as `low` after `addend` was added. */
function carry(low: number, addend: number): number {
  return low >>> 0 < addend >>> 0 ? 1 : 0;
}

/** @kvm x86.c adjust_tsc_offset_guest */
function adjustOffset(vcpu: VcpuState, lo: number, hi: number): void {
  const x86 = vcpu.x86;
  const low = (x86.tscOffsetLo + lo) | 0;
  x86.tscOffsetHi = (x86.tscOffsetHi + hi + carry(low, lo)) | 0;
  x86.tscOffsetLo = low;
  vcpu.vm.vendor.setTscOffset(vcpu);
  makeRequest(vcpu, REQ_CLOCK_UPDATE);
}

/** The counter that the guest reads, into `vcpu.x86.msrValue`: L2's own while it runs. */
export function readGuestTsc(vcpu: VcpuState): void {
  const { x86 } = vcpu;
  readTsc(vcpu);
  if (!vcpu.guestMode) return;
  const low = (x86.msrValue[0]! + x86.l2TscOffsetLo) | 0;
  x86.msrValue[1] = x86.msrValue[1]! + x86.l2TscOffsetHi + carry(low, x86.l2TscOffsetLo);
  x86.msrValue[0] = low;
}

/** L1's counter into `vcpu.x86.msrValue`. @kvm x86.c read_tsc */
export function readTsc(vcpu: VcpuState): void {
  const x86 = vcpu.x86;
  const now = virtualNow(vcpu.vm);
  const low = (loOf(now) + x86.tscOffsetLo) | 0;
  x86.msrValue[0] = low;
  x86.msrValue[1] = hiOf(now) + x86.tscOffsetHi + carry(low, x86.tscOffsetLo);
}

/** MSR_IA32_TSC is written. What the guest writes shows in TSC_ADJUST as well. */
export function writeTsc(vcpu: VcpuState, lo: number, hi: number, hostInitiated: boolean): void {
  const x86 = vcpu.x86;
  readTsc(vcpu);
  const low = (lo - x86.msrValue[0]!) | 0;
  const high = (hi - x86.msrValue[1]! - (lo >>> 0 < x86.msrValue[0]! >>> 0 ? 1 : 0)) | 0;
  adjustOffset(vcpu, low, high);
  if (hostInitiated) return;
  const sum = (x86.tscAdjustLo + low) | 0;
  x86.tscAdjustHi = (x86.tscAdjustHi + high + carry(sum, low)) | 0;
  x86.tscAdjustLo = sum;
}

/** MSR_IA32_TSC_ADJUST is written: the counter moves as far as the register does, unless userspace only restores it. */
export function writeTscAdjust(vcpu: VcpuState, lo: number, hi: number, hostInitiated: boolean): void {
  const x86 = vcpu.x86;
  if (!guestCpuidHas(vcpu, X86_FEATURE_TSC_ADJUST)) return;
  if (!hostInitiated) {
    const low = (lo - x86.tscAdjustLo) | 0;
    adjustOffset(vcpu, low, (hi - x86.tscAdjustHi - (lo >>> 0 < x86.tscAdjustLo >>> 0 ? 1 : 0)) | 0);
  }
  x86.tscAdjustLo = lo;
  x86.tscAdjustHi = hi;
}
