/** Memory type range registers: kept and checked, and of no further effect (@kvm mtrr.c). */
import type { VcpuState } from '../vcpu-state.ts';
import * as M from './msr-index.ts';

const KVM_NR_VAR_MTRR = 8;
const fixed = new Set([0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f]);

export function isMtrr(msr: number): boolean {
  return (
    msr === M.MSR_MTRRcap ||
    msr === M.MSR_MTRRdefType ||
    (msr >= M.MSR_MTRR_PHYS_BASE0 && msr <= M.MSR_MTRR_PHYS_END) ||
    fixed.has(msr)
  );
}

/** Uncached, write-combining, write-through, write-protected, write-back. */
function validType(type: number): boolean {
  return type <= 6 && type !== 2 && type !== 3;
}

/** @kvm mtrr.c kvm_mtrr_valid */
function valid(vcpu: VcpuState, msr: number, lo: number, hi: number): boolean {
  if (msr === M.MSR_MTRRdefType) return hi === 0 && (lo & ~0xcff) === 0 && validType(lo & 0xff);
  if (fixed.has(msr)) {
    for (const word of [lo, hi]) for (let i = 0; i < 4; i++) if (!validType((word >>> (8 * i)) & 0xff)) return false;
    return true;
  }
  if ((hi & vcpu.x86.reservedGpaBitsHi) !== 0) return false;
  const base = (msr & 1) === 0;
  return base ? validType(lo & 0xff) && (lo & 0xf00) === 0 : (lo & 0x7ff) === 0;
}

/** @kvm mtrr.c kvm_mtrr_set_msr */
export function mtrrSet(vcpu: VcpuState, msr: number, lo: number, hi: number): number {
  if (msr === M.MSR_MTRRcap || !valid(vcpu, msr, lo, hi)) return 1;
  vcpu.x86.msrStore.set(msr, { lo, hi });
  return 0;
}

/** @kvm mtrr.c kvm_mtrr_get_msr: into `vcpu.x86.msrValue`. */
export function mtrrGet(vcpu: VcpuState, msr: number): number {
  const out = vcpu.x86.msrValue;
  const value = vcpu.x86.msrStore.get(msr);
  out[0] = msr === M.MSR_MTRRcap ? 0x500 | KVM_NR_VAR_MTRR : (value?.lo ?? 0);
  out[1] = value?.hi ?? 0;
  return 0;
}
