/** The in-kernel local APIC: registers, vectors, priorities, base (@kvm lapic.c). */
import { makeRequest, REQ_APF_READY, REQ_EVENT, type VcpuState } from '../vcpu-state.ts';
import { X86_FEATURE_TSC_DEADLINE_TIMER, X86_FEATURE_X2APIC } from './cpuid-features.ts';
import { guestCpuidHas } from './guest-cpuid.ts';
import { HrTimer } from './virtual-time.ts';
import { hasQuirk, KVM_X86_QUIRK_LINT0_REENABLED } from './vm-x86.ts';

/** Register offsets (@sdm 10.4.1). */
export const APIC_ID = 0x20;
export const APIC_LVR = 0x30;
export const APIC_TASKPRI = 0x80;
export const APIC_ARBPRI = 0x90;
export const APIC_PROCPRI = 0xa0;
export const APIC_EOI = 0xb0;
export const APIC_LDR = 0xd0;
export const APIC_DFR = 0xe0;
export const APIC_SPIV = 0xf0;
export const APIC_ISR = 0x100;
export const APIC_TMR = 0x180;
export const APIC_IRR = 0x200;
export const APIC_ESR = 0x280;
export const APIC_ICR = 0x300;
export const APIC_ICR2 = 0x310;
export const APIC_LVTT = 0x320;
export const APIC_LVTTHMR = 0x330;
export const APIC_LVTPC = 0x340;
export const APIC_LVT0 = 0x350;
export const APIC_LVT1 = 0x360;
export const APIC_LVTERR = 0x370;
export const APIC_TMICT = 0x380;
export const APIC_TMCCT = 0x390;
export const APIC_TDCR = 0x3e0;
export const APIC_SELF_IPI = 0x3f0;

export const APIC_LVT_MASKED = 1 << 16;
export const APIC_LVT_TIMER_PERIODIC = 1 << 17;
export const APIC_LVT_TIMER_TSCDEADLINE = 2 << 17;
export const APIC_SPIV_APIC_ENABLED = 1 << 8;
const APIC_VERSION = 0x14;
export const APIC_LVTS = [APIC_LVTT, APIC_LVTTHMR, APIC_LVTPC, APIC_LVT0, APIC_LVT1, APIC_LVTERR];
const APIC_MODE_EXTINT = 7;

/** Delivery modes, as in bits 10:8 of ICR and LVT entries. */
export const APIC_DM_FIXED = 0;
export const APIC_DM_LOWEST = 1;
export const APIC_DM_SMI = 2;
export const APIC_DM_NMI = 4;
export const APIC_DM_INIT = 5;
export const APIC_DM_STARTUP = 6;
export const APIC_DM_EXTINT = 7;

export const APICBASE_BSP = 1 << 8;
export const APICBASE_X2APIC = 1 << 10;
export const APICBASE_ENABLE = 1 << 11;
export const APIC_DEFAULT_PHYS_BASE = 0xfee00000;

export class Lapic {
  readonly vcpu: VcpuState;
  readonly regs = new Uint32Array(1024);
  baseAddress = APIC_DEFAULT_PHYS_BASE;
  pendingInit = false;
  pendingSipi = false;
  sipiVector = 0;
  readonly timer: HrTimer;
  /** Ticks between two firings of a periodic timer, 0 for one shot. */
  timerPeriod = 0;
  divideCount = 2;
  /** What the TSC-deadline timer waits for, halves; zero when it is off. */
  tscDeadlineLo = 0;
  tscDeadlineHi = 0;
  /** The mode that LVTT chose, in place there. */
  timerMode = 0;
  /** Bits of LVTT that choose the mode: TSC deadline only with its CPUID bit. */
  timerModeMask = APIC_LVT_TIMER_PERIODIC;

  /** @param timerFn is called when the timer's time has come */
  constructor(vcpu: VcpuState, timerFn: (apic: Lapic, at: number) => void) {
    this.vcpu = vcpu;
    this.timer = new HrTimer((at) => timerFn(this, at));
  }
}

export function lapicReg(apic: Lapic, off: number): number {
  return apic.regs[off >> 2]!;
}

/** @kvm lapic.c kvm_lapic_set_reg */
export function lapicSetReg(apic: Lapic, off: number, value: number): void {
  apic.regs[off >> 2] = value;
}

/** Enabled by IA32_APIC_BASE. @kvm lapic.h kvm_apic_hw_enabled */
export function lapicHwEnabled(vcpu: VcpuState): boolean {
  return (vcpu.apicBase & APICBASE_ENABLE) !== 0;
}

/** Registers are MSRs, ids have 32 bits. @kvm lapic.h apic_x2apic_mode */
export function x2apicMode(apic: Lapic): boolean {
  return (apic.vcpu.apicBase & APICBASE_X2APIC) !== 0;
}

/** Enabled by SPIV. @kvm lapic.h kvm_apic_sw_enabled */
export function lapicSwEnabled(apic: Lapic): boolean {
  return (lapicReg(apic, APIC_SPIV) & APIC_SPIV_APIC_ENABLED) !== 0;
}

/** @kvm lapic.c apic_enabled */
export function lapicEnabled(apic: Lapic): boolean {
  return lapicHwEnabled(apic.vcpu) && lapicSwEnabled(apic);
}

/** @kvm lapic.c apic_test_vector */
function testVector(apic: Lapic, base: number, vector: number): boolean {
  return (apic.regs[(base + (vector >> 5) * 16) >> 2]! & (1 << (vector & 31))) !== 0;
}

/** @kvm lapic.h kvm_lapic_set_vector */
export function setVector(apic: Lapic, base: number, vector: number, on: boolean): void {
  const at = (base + (vector >> 5) * 16) >> 2;
  if (on) apic.regs[at]! |= 1 << (vector & 31);
  else apic.regs[at]! &= ~(1 << (vector & 31));
}

/** Highest vector set in a 256-bit register, -1 for none. @kvm lapic.c find_highest_vector */
function highestVector(apic: Lapic, base: number): number {
  for (let i = 7; i >= 0; i--) {
    const word = apic.regs[(base + i * 16) >> 2]!;
    if (word !== 0) return i * 32 + 31 - Math.clz32(word);
  }
  return -1;
}

/** @kvm lapic.c __apic_update_ppr: a lower priority may let an interrupt through. */
export function lapicUpdatePpr(apic: Lapic): void {
  const tpr = lapicReg(apic, APIC_TASKPRI);
  const isr = highestVector(apic, APIC_ISR);
  const isrv = isr === -1 ? 0 : isr;
  const ppr = (tpr & 0xf0) >= (isrv & 0xf0) ? tpr & 0xff : isrv & 0xf0;
  const old = lapicReg(apic, APIC_PROCPRI);
  if (old !== ppr) lapicSetReg(apic, APIC_PROCPRI, ppr);
  if (ppr < old) makeRequest(apic.vcpu, REQ_EVENT);
}

/** Highest interrupt that may be delivered now, -1 for none. @kvm lapic.c kvm_apic_has_interrupt */
export function lapicHasInterrupt(apic: Lapic): number {
  if (!lapicHwEnabled(apic.vcpu)) return -1;
  const irr = highestVector(apic, APIC_IRR);
  if (irr === -1 || (irr & 0xf0) <= (lapicReg(apic, APIC_PROCPRI) & 0xf0)) return -1;
  return irr;
}

/** Moves the highest interrupt from IRR to ISR; -1 for none. @kvm lapic.c kvm_apic_ack_interrupt */
export function lapicGetInterrupt(apic: Lapic): number {
  const vector = lapicHasInterrupt(apic);
  if (vector === -1) return -1;
  setVector(apic, APIC_IRR, vector, false);
  setVector(apic, APIC_ISR, vector, true);
  lapicUpdatePpr(apic);
  return vector;
}

/** @kvm lapic.c apic_set_eoi */
export function lapicSetEoi(apic: Lapic): void {
  const vector = highestVector(apic, APIC_ISR);
  if (vector === -1) return;
  setVector(apic, APIC_ISR, vector, false);
  lapicUpdatePpr(apic);
  apic.vcpu.vm.x86.ioapic?.eoi(apic.vcpu.vm, vector, testVector(apic, APIC_TMR, vector));
  makeRequest(apic.vcpu, REQ_EVENT);
}

/** @kvm lapic.c kvm_lapic_set_tpr */
export function lapicSetTpr(apic: Lapic, cr8: number): void {
  const tpr = ((cr8 & 0x0f) << 4) | (lapicReg(apic, APIC_TASKPRI) & 4);
  if (lapicReg(apic, APIC_TASKPRI) === tpr) return;
  lapicSetReg(apic, APIC_TASKPRI, tpr);
  lapicUpdatePpr(apic);
}

/** @kvm lapic.c kvm_lapic_get_cr8. HOT */
export function lapicGetCr8(apic: Lapic): number {
  return (lapicReg(apic, APIC_TASKPRI) & 0xf0) >> 4;
}

/** For the CR8 intercept: the highest pending vector's class, -1 for none. @kvm lapic.c kvm_lapic_update_cr8_intercept */
export function lapicMaxIrr(apic: Lapic): number {
  const irr = highestVector(apic, APIC_IRR);
  return irr === -1 ? -1 : irr >> 4;
}

/** The logical id follows from the id. @kvm lapic.c kvm_apic_calc_x2apic_ldr */
export function x2apicLdr(id: number): number {
  return ((id >>> 4) << 16) | (1 << (id & 0xf));
}

/** @kvm lapic.c __kvm_apic_set_base */
function setBaseUnchecked(vcpu: VcpuState, value: number): void {
  const changed = vcpu.apicBase ^ value;
  vcpu.apicBase = value;
  const apic = vcpu.x86.lapic;
  if (apic === null) return;
  if ((changed & APICBASE_ENABLE) !== 0 && (value & APICBASE_ENABLE) !== 0) {
    lapicSetReg(apic, APIC_ID, vcpu.id << 24);
    makeRequest(vcpu, REQ_APF_READY);
  }
  if ((changed & APICBASE_X2APIC) !== 0) {
    if ((value & APICBASE_X2APIC) !== 0) {
      lapicSetReg(apic, APIC_ID, vcpu.id);
      lapicSetReg(apic, APIC_LDR, x2apicLdr(vcpu.id));
    } else if ((value & APICBASE_ENABLE) !== 0) {
      lapicSetReg(apic, APIC_ID, vcpu.id << 24);
    }
  }
  apic.baseAddress = value - (value % 4096);
}

const MODE = APICBASE_ENABLE | APICBASE_X2APIC;

/** 0, or 1 for #GP. @kvm lapic.c kvm_apic_set_base */
export function lapicSetBase(vcpu: VcpuState, lo: number, hi: number, hostInitiated: boolean): number {
  const reserved = 0x2ff | (guestCpuidHas(vcpu, X86_FEATURE_X2APIC) ? 0 : APICBASE_X2APIC);
  if ((lo & reserved) !== 0 || (hi & vcpu.x86.reservedGpaBitsHi) !== 0) return 1;
  const mode = lo & MODE;
  if (mode === APICBASE_X2APIC) return 1;
  if (!hostInitiated) {
    // Only by way of the disabled state back to xAPIC, only from xAPIC on to x2APIC.
    const old = vcpu.apicBase & MODE;
    if (old === MODE && mode === APICBASE_ENABLE) return 1;
    if (old === 0 && mode === MODE) return 1;
  }
  setBaseUnchecked(vcpu, (hi >>> 0) * 0x1_0000_0000 + (lo >>> 0));
  return 0;
}

/** @kvm lapic.c kvm_apic_set_version */
export function lapicAfterSetCpuid(vcpu: VcpuState, apic: Lapic): void {
  const deadline = guestCpuidHas(vcpu, X86_FEATURE_TSC_DEADLINE_TIMER) ? APIC_LVT_TIMER_TSCDEADLINE : 0;
  apic.timerModeMask = APIC_LVT_TIMER_PERIODIC | deadline;
  lapicSetReg(apic, APIC_LVR, APIC_VERSION | ((APIC_LVTS.length - 1) << 16));
}

/** @kvm lapic.c kvm_lapic_reset */
export function lapicReset(vcpu: VcpuState, initEvent: boolean): void {
  if (!initEvent) setBaseUnchecked(vcpu, APIC_DEFAULT_PHYS_BASE + APICBASE_ENABLE + (vcpu.id === 0 ? APICBASE_BSP : 0));
  const apic = vcpu.x86.lapic;
  if (apic === null) return;
  vcpu.vm.x86.timers.cancel(apic.timer);
  apic.timerMode = 0;
  apic.tscDeadlineLo = 0;
  apic.tscDeadlineHi = 0;
  if (!initEvent) lapicSetReg(apic, APIC_ID, vcpu.id << 24);
  lapicAfterSetCpuid(vcpu, apic);
  for (const off of APIC_LVTS) lapicSetReg(apic, off, APIC_LVT_MASKED);
  if (vcpu.id === 0 && hasQuirk(vcpu.vm.x86, KVM_X86_QUIRK_LINT0_REENABLED)) {
    lapicSetReg(apic, APIC_LVT0, APIC_MODE_EXTINT << 8);
  }
  lapicSetReg(apic, APIC_DFR, 0xffffffff);
  lapicSetReg(apic, APIC_SPIV, 0xff);
  if (!x2apicMode(apic)) lapicSetReg(apic, APIC_LDR, 0);
  for (const off of [APIC_TASKPRI, APIC_ESR, APIC_ICR, APIC_ICR2, APIC_TDCR, APIC_TMICT]) {
    lapicSetReg(apic, off, 0);
  }
  for (const base of [APIC_IRR, APIC_ISR, APIC_TMR]) for (let i = 0; i < 8; i++) lapicSetReg(apic, base + 16 * i, 0);
  apic.divideCount = 2;
  lapicUpdatePpr(apic);
}
