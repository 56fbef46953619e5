/** Debug registers of guest and userspace (@kvm regs.c kvm_set_dr, kvm_update_dr7). */
import { UD_VECTOR } from '../../arch/exceptions.ts';
import { CR4_DE } from '../../arch/registers.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { guestCpuidHas } from './cpuid.ts';
import { X86_FEATURE_BUS_LOCK_DETECT, X86_FEATURE_RTM } from './cpuid-features.ts';
import { queueException } from './exceptions.ts';

/** Bits of KVM_SET_GUEST_DEBUG's control word. */
export const KVM_GUESTDBG_ENABLE = 1 << 0;
export const KVM_GUESTDBG_SINGLESTEP = 1 << 1;
export const KVM_GUESTDBG_USE_SW_BP = 1 << 16;
export const KVM_GUESTDBG_USE_HW_BP = 1 << 17;
export const KVM_GUESTDBG_INJECT_DB = 1 << 18;
export const KVM_GUESTDBG_INJECT_BP = 1 << 19;
export const KVM_GUESTDBG_BLOCKIRQ = 1 << 20;

/** Bits of `switchDbRegs`. */
export const KVM_DEBUGREG_BP_ENABLED = 1;
export const KVM_DEBUGREG_WONT_EXIT = 2;

export const DR6_BUS_LOCK = 1 << 11;
export const DR6_BD = 1 << 13;
export const DR6_BS = 1 << 14;
export const DR6_BT = 1 << 15;
export const DR6_RTM = 1 << 16;
export const DR6_ACTIVE_LOW = 0xffff0ff0 | 0;
export const DR6_FIXED_1 = 0xfffe07f0 | 0;
const DR6_VOLATILE = 0x0001e80f;
export const DR7_FIXED_1 = 0x400;
export const DR7_BP_EN_MASK = 0xff;
export const DR7_GD = 1 << 13;
const DR7_VOLATILE = 0xffff2bff | 0;

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

/** DR4 and DR5 are aliases unless CR4.DE makes them #UD. @kvm x86.c kvm_require_dr */
export function requireDr(vcpu: VcpuState, dr: number): boolean {
  if ((dr !== 4 && dr !== 5) || (vcpu.cr4 & CR4_DE) === 0) return true;
  queueException(vcpu, UD_VECTOR);
  return false;
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
