/** Debug registers of guest and userspace (@kvm regs.c kvm_set_dr, kvm_update_dr7). */
import {
  DR6_BUS_LOCK,
  DR6_FIXED_1,
  DR6_RTM,
  DR6_VOLATILE,
  DR7_BP_EN_MASK,
  DR7_FIXED_1,
  DR7_VOLATILE,
} from '../../arch/debug-registers.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_BUS_LOCK_DETECT, X86_FEATURE_RTM } from './cpuid-features.ts';
import { guestCpuidHas } from './guest-cpuid.ts';
import { KVM_GUESTDBG_USE_HW_BP } from './guest-debug-bits.ts';

/** Bits of `switchDbRegs`. */
export const KVM_DEBUGREG_BP_ENABLED = 1;
export const KVM_DEBUGREG_WONT_EXIT = 2;

/** @kvm regs.c kvm_update_dr0123 */
export function updateDr0123(vcpu: VcpuState): void {
  if ((vcpu.x86.guestDebug & KVM_GUESTDBG_USE_HW_BP) === 0) vcpu.x86.effDb.set(vcpu.x86.db);
}

/** @kvm regs.c kvm_update_dr7 */
export function updateDr7(vcpu: VcpuState): void {
  const x86 = vcpu.x86;
  const dr7 = (x86.guestDebug & KVM_GUESTDBG_USE_HW_BP) !== 0 ? x86.guestDebugDr7 : x86.dr7;
  vcpu.vm.vendor.setDr7(vcpu, dr7);
  x86.switchDbRegs &= ~KVM_DEBUGREG_BP_ENABLED;
  if ((dr7 & DR7_BP_EN_MASK) !== 0) x86.switchDbRegs |= KVM_DEBUGREG_BP_ENABLED;
}

/** @kvm regs.c kvm_dr6_fixed */
function dr6Fixed(vcpu: VcpuState): number {
  let fixed = DR6_FIXED_1;
  if (!guestCpuidHas(vcpu, X86_FEATURE_RTM)) fixed |= DR6_RTM;
  if (!guestCpuidHas(vcpu, X86_FEATURE_BUS_LOCK_DETECT)) fixed |= DR6_BUS_LOCK;
  return fixed;
}

/** 0, or 1 for #GP. @kvm regs.c kvm_set_dr */
export function setDr(vcpu: VcpuState, dr: number, lo: number, hi: number): number {
  const x86 = vcpu.x86;
  if (dr < 4) {
    x86.db[2 * dr] = lo;
    x86.db[2 * dr + 1] = hi;
    if ((x86.guestDebug & KVM_GUESTDBG_USE_HW_BP) === 0) {
      x86.effDb[2 * dr] = lo;
      x86.effDb[2 * dr + 1] = hi;
    }
    return 0;
  }
  if (hi !== 0) return 1;
  if (dr === 4 || dr === 6) {
    x86.dr6 = (lo & DR6_VOLATILE) | dr6Fixed(vcpu);
  } else {
    x86.dr7 = (lo & DR7_VOLATILE) | DR7_FIXED_1;
    updateDr7(vcpu);
  }
  return 0;
}

/** Low half of DR`dr`; @kvm regs.c kvm_get_dr */
export function getDrLo(vcpu: VcpuState, dr: number): number {
  if (dr < 4) return vcpu.x86.db[2 * dr]!;
  return dr === 4 || dr === 6 ? vcpu.x86.dr6 : vcpu.x86.dr7;
}

export function getDrHi(vcpu: VcpuState, dr: number): number {
  return dr < 4 ? vcpu.x86.db[2 * dr + 1]! : 0;
}

/** Breakpoints of kind `type` (RW and LEN bits) at a linear address: their bits of DR6. @kvm x86.c kvm_vcpu_check_hw_bp */
export function checkHwBp(lo: number, hi: number, type: number, dr7: number, db: Int32Array): number {
  let dr6 = 0;
  let enable = dr7;
  let rwlen = dr7 >>> 16;
  for (let i = 0; i < 4; i++, enable >>>= 2, rwlen >>>= 4) {
    if ((enable & 3) !== 0 && (rwlen & 15) === type && db[2 * i] === lo && db[2 * i + 1] === hi) dr6 |= 1 << i;
  }
  return dr6;
}
