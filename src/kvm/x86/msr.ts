/** MSRs that are no vendor's own (@kvm x86.c kvm_set_msr_common, kvm_get_msr_common). */

import { EFER_FFXSR, EFER_LMA, EFER_LME, EFER_NX, EFER_SCE, EFER_SVME } from '../../arch/registers.ts';
import { mmuResetContext } from '../mmu/roles.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { setAsyncPfEnable, setAsyncPfInt } from './async-pf-msr.ts';
import { checkAsyncPfCompletion } from './async-pf-ready.ts';
import * as F from './cpuid-features.ts';
import { guestCpuidHas, guestPvHas } from './guest-cpuid.ts';
import { lapicSetBase } from './lapic.ts';
import { readTscDeadline, writeTscDeadline } from './lapic-timer.ts';
import { isX2apicMsr, x2apicMsrRead, x2apicMsrWrite } from './lapic-x2apic.ts';
import { getMsrMce, isMceMsr, setMsrMce } from './machine-check.ts';
import * as M from './msr-index.ts';
import { KVM_MSR_RET_UNSUPPORTED } from './msr-index.ts';
import { isMtrr, mtrrGet, mtrrSet } from './mtrr.ts';
import { writeSystemTime, writeWallClock } from './pv-clock.ts';
import { isPaging } from './registers.ts';
import { readGuestTsc, readTsc, writeTsc, writeTscAdjust } from './tsc.ts';

/** Bits of EFER that exist; FFXSR and the others by CPUID. @kvm x86.c efer_reserved_bits */
const EFER_KNOWN = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX | EFER_SVME | EFER_FFXSR;

/** @kvm x86.c __kvm_valid_efer */
function eferFitsCpuid(vcpu: VcpuState, efer: number): boolean {
  if ((efer & EFER_FFXSR) !== 0 && !guestCpuidHas(vcpu, F.X86_FEATURE_FXSR_OPT)) return false;
  if ((efer & EFER_SVME) !== 0 && !guestCpuidHas(vcpu, F.X86_FEATURE_SVM)) return false;
  if ((efer & (EFER_LME | EFER_LMA)) !== 0 && !guestCpuidHas(vcpu, F.X86_FEATURE_LM)) return false;
  return (efer & EFER_NX) === 0 || guestCpuidHas(vcpu, F.X86_FEATURE_NX);
}

/** @kvm x86.c kvm_valid_efer */
export function validEfer(vcpu: VcpuState, lo: number, hi: number): boolean {
  return hi === 0 && (lo & ~EFER_KNOWN) === 0 && eferFitsCpuid(vcpu, lo);
}

/** @kvm x86.c set_efer */
function setEfer(vcpu: VcpuState, lo: number, hi: number, hostInitiated: boolean): number {
  if (hi !== 0 || (lo & ~EFER_KNOWN) !== 0) return 1;
  const old = vcpu.efer;
  if (!hostInitiated) {
    if (!eferFitsCpuid(vcpu, lo)) return 1;
    if (isPaging(vcpu) && ((old ^ lo) & EFER_LME) !== 0) return 1;
  }
  const efer = (lo & ~EFER_LMA) | (old & EFER_LMA);
  vcpu.vm.vendor.setEfer(vcpu, efer);
  if (((efer ^ old) & (EFER_NX | EFER_LMA)) !== 0) mmuResetContext(vcpu);
  return 0;
}

/** Every PAT entry is a memory type: 0, 1, 4, 5, 6 or 7. @kvm x86.h kvm_pat_valid */
export function patValid(lo: number, hi: number): boolean {
  for (const word of [lo, hi]) {
    for (let i = 0; i < 4; i++) {
      const type = (word >>> (8 * i)) & 0xff;
      if (type > 7 || type === 2 || type === 3) return false;
    }
  }
  return true;
}

/** Written and forgotten. */
const ignored = new Set([
  M.MSR_AMD64_NB_CFG,
  M.MSR_IA32_UCODE_WRITE,
  M.MSR_AMD64_PATCH_LOADER,
  M.MSR_AMD64_BU_CFG2,
  M.MSR_AMD64_DC_CFG,
  M.MSR_AMD64_TW_CFG,
  M.MSR_F15H_EX_CFG,
  M.MSR_IA32_BBL_CR_CTL3,
]);

/** Read as zero. */
const zeros = new Set([
  M.MSR_IA32_PLATFORM_ID,
  M.MSR_IA32_EBL_CR_POWERON,
  M.MSR_AMD64_SYSCFG,
  M.MSR_K8_TSEG_ADDR,
  M.MSR_K8_TSEG_MASK,
  M.MSR_K8_INT_PENDING_MSG,
  M.MSR_AMD64_NB_CFG,
  M.MSR_FAM10H_MMIO_CONF_BASE,
  M.MSR_AMD64_BU_CFG2,
  M.MSR_IA32_PERF_CTL,
  M.MSR_AMD64_DC_CFG,
  M.MSR_AMD64_TW_CFG,
  M.MSR_F15H_EX_CFG,
]);

/** Kept as written, by whoever may write it. */
const kept = new Set([M.MSR_IA32_POWER_CTL, M.MSR_IA32_MISC_ENABLE]);

/** Kept as written, by userspace only. */
const keptForHost = new Set([M.MSR_IA32_UCODE_REV, M.MSR_IA32_ARCH_CAPABILITIES, M.MSR_SMI_COUNT, M.MSR_PLATFORM_INFO]);

function isPerfCounter(msr: number): boolean {
  return (
    (msr >= M.MSR_K7_EVNTSEL0 && msr <= M.MSR_K7_PERFCTR3) ||
    msr === 0xc1 ||
    msr === 0xc2 ||
    msr === 0x186 ||
    msr === 0x187
  );
}

function store(vcpu: VcpuState, msr: number, lo: number, hi: number): number {
  vcpu.x86.msrStore.set(msr, { lo, hi });
  return 0;
}

/** MSRs of the paravirtual clock, async page faults, steal time; -1 when it is none of them. */
function setKvmMsr(vcpu: VcpuState, msr: number, lo: number, hi: number): number {
  const need = (feature: number): boolean => guestPvHas(vcpu, feature);
  switch (msr) {
    case M.MSR_KVM_WALL_CLOCK:
    case M.MSR_KVM_WALL_CLOCK_NEW:
      if (!need(msr === M.MSR_KVM_WALL_CLOCK ? F.KVM_FEATURE_CLOCKSOURCE : F.KVM_FEATURE_CLOCKSOURCE2)) {
        return KVM_MSR_RET_UNSUPPORTED;
      }
      writeWallClock(vcpu, lo, hi);
      return 0;
    case M.MSR_KVM_SYSTEM_TIME:
    case M.MSR_KVM_SYSTEM_TIME_NEW:
      if (!need(msr === M.MSR_KVM_SYSTEM_TIME ? F.KVM_FEATURE_CLOCKSOURCE : F.KVM_FEATURE_CLOCKSOURCE2)) {
        return KVM_MSR_RET_UNSUPPORTED;
      }
      writeSystemTime(vcpu, lo, hi);
      return 0;
    case M.MSR_KVM_ASYNC_PF_EN:
      return need(F.KVM_FEATURE_ASYNC_PF) ? setAsyncPfEnable(vcpu, lo, hi) : KVM_MSR_RET_UNSUPPORTED;
    case M.MSR_KVM_ASYNC_PF_INT:
      return need(F.KVM_FEATURE_ASYNC_PF_INT) ? setAsyncPfInt(vcpu, lo, hi) : KVM_MSR_RET_UNSUPPORTED;
    case M.MSR_KVM_ASYNC_PF_ACK:
      if (!need(F.KVM_FEATURE_ASYNC_PF_INT)) return KVM_MSR_RET_UNSUPPORTED;
      if ((lo & 1) !== 0) {
        vcpu.x86.asyncPf.pageReadyPending = false;
        checkAsyncPfCompletion(vcpu);
      }
      return 0;
    case M.MSR_KVM_STEAL_TIME:
      // Without scheduling statistics the kernel refuses as well.
      return need(F.KVM_FEATURE_STEAL_TIME) ? 1 : KVM_MSR_RET_UNSUPPORTED;
    case M.MSR_KVM_PV_EOI_EN:
      if (!need(F.KVM_FEATURE_PV_EOI)) return KVM_MSR_RET_UNSUPPORTED;
      return (lo & 3) > 1 ? 1 : store(vcpu, msr, lo, hi);
    case M.MSR_KVM_POLL_CONTROL:
      if (!need(F.KVM_FEATURE_POLL_CONTROL)) return KVM_MSR_RET_UNSUPPORTED;
      return hi !== 0 || (lo & ~1) !== 0 ? 1 : store(vcpu, msr, lo, hi);
    default:
      return -1;
  }
}

/** 0, 1 for #GP, or KVM_MSR_RET_UNSUPPORTED. @kvm x86.c kvm_set_msr_common @partial steal time is refused; counters are dropped */
export function setMsrCommon(vcpu: VcpuState, msr: number, lo: number, hi: number, hostInitiated: boolean): number {
  const x86 = vcpu.x86;
  const pv = setKvmMsr(vcpu, msr, lo, hi);
  if (pv >= 0) return pv;
  if (ignored.has(msr)) return 0;
  if (kept.has(msr)) return store(vcpu, msr, lo, hi);
  if (keptForHost.has(msr)) {
    if (hostInitiated) return store(vcpu, msr, lo, hi);
    return msr === M.MSR_IA32_UCODE_REV ? 0 : 1;
  }
  if (isX2apicMsr(msr)) return x2apicMsrWrite(vcpu, msr, lo, hi);
  if (isMtrr(msr)) return mtrrSet(vcpu, msr, lo, hi);
  if (isMceMsr(msr)) return setMsrMce(vcpu, msr, lo, hi, hostInitiated);
  if (isPerfCounter(msr)) return 0;
  switch (msr) {
    case M.MSR_EFER:
      return setEfer(vcpu, lo, hi, hostInitiated);
    case M.MSR_K7_HWCR: {
      const value = lo & ~0x148;
      return hi !== 0 || (value & ~((1 << 18) | (1 << 24))) !== 0 ? 1 : store(vcpu, msr, value, 0);
    }
    case M.MSR_FAM10H_MMIO_CONF_BASE:
      return (lo | hi) !== 0 ? 1 : 0;
    case M.MSR_IA32_CR_PAT:
      if (!patValid(lo, hi)) return 1;
      x86.patLo = lo;
      x86.patHi = hi;
      return 0;
    case M.MSR_IA32_SMBASE:
      if (!hostInitiated) return 1;
      x86.smbase = lo >>> 0;
      return 0;
    case M.MSR_IA32_APICBASE:
      return lapicSetBase(vcpu, lo, hi, hostInitiated);
    case M.MSR_IA32_TSC_DEADLINE:
      writeTscDeadline(vcpu, lo, hi);
      return 0;
    case M.MSR_IA32_TSC:
      writeTsc(vcpu, lo, hi, hostInitiated);
      return 0;
    case M.MSR_IA32_TSC_ADJUST:
      writeTscAdjust(vcpu, lo, hi, hostInitiated);
      return 0;
    case M.MSR_IA32_XSS:
      if (!hostInitiated && !guestCpuidHas(vcpu, F.X86_FEATURE_XSAVES)) return 1;
      return (lo | hi) !== 0 ? 1 : 0;
    case M.MSR_MISC_FEATURES_ENABLES:
      return hi !== 0 || (lo & ~1) !== 0 ? 1 : store(vcpu, msr, lo, hi);
    case M.MSR_AMD64_OSVW_ID_LENGTH:
    case M.MSR_AMD64_OSVW_STATUS:
      return guestCpuidHas(vcpu, F.X86_FEATURE_OSVW) ? store(vcpu, msr, lo, hi) : 1;
    default:
      return KVM_MSR_RET_UNSUPPORTED;
  }
}

/** Into `out`; false when the MSR is none of KVM's own. */
function getKvmMsr(vcpu: VcpuState, msr: number, out: Int32Array): boolean {
  const x86 = vcpu.x86;
  switch (msr) {
    case M.MSR_KVM_WALL_CLOCK:
    case M.MSR_KVM_WALL_CLOCK_NEW:
      out[0] = vcpu.vm.x86.wallClockLo;
      out[1] = vcpu.vm.x86.wallClockHi;
      return true;
    case M.MSR_KVM_SYSTEM_TIME:
    case M.MSR_KVM_SYSTEM_TIME_NEW:
      out[0] = x86.systemTimeLo;
      out[1] = x86.systemTimeHi;
      return true;
    case M.MSR_KVM_ASYNC_PF_EN:
      out[0] = x86.apfEnLo;
      out[1] = x86.apfEnHi;
      return true;
    case M.MSR_KVM_ASYNC_PF_INT:
      out[0] = x86.apfIntLo;
      return true;
    case M.MSR_KVM_ASYNC_PF_ACK:
    case M.MSR_KVM_STEAL_TIME:
      return true;
    default:
      return false;
  }
}

/** The value goes into `vcpu.x86.msrValue`. @kvm x86.c kvm_get_msr_common @partial counters read 0 */
export function getMsrCommon(vcpu: VcpuState, msr: number, hostInitiated: boolean): number {
  const x86 = vcpu.x86;
  const out = x86.msrValue;
  out.fill(0);
  if (getKvmMsr(vcpu, msr, out) || zeros.has(msr) || isPerfCounter(msr)) return 0;
  if (isMtrr(msr)) return mtrrGet(vcpu, msr);
  if (isX2apicMsr(msr)) return x2apicMsrRead(vcpu, msr);
  if (isMceMsr(msr)) return getMsrMce(vcpu, msr, hostInitiated);
  if (msr === M.MSR_IA32_SMBASE && !hostInitiated) return 1;
  switch (msr) {
    case M.MSR_EFER:
      out[0] = vcpu.efer;
      return 0;
    case M.MSR_IA32_CR_PAT:
      out[0] = x86.patLo;
      out[1] = x86.patHi;
      return 0;
    case M.MSR_IA32_APICBASE:
      out[0] = vcpu.apicBase | 0;
      out[1] = Math.floor(vcpu.apicBase / 0x1_0000_0000);
      return 0;
    case M.MSR_IA32_TSC_DEADLINE:
      readTscDeadline(vcpu);
      return 0;
    case M.MSR_IA32_TSC:
      if (hostInitiated) readTsc(vcpu);
      else readGuestTsc(vcpu);
      return 0;
    case M.MSR_IA32_TSC_ADJUST:
      out[0] = x86.tscAdjustLo;
      out[1] = x86.tscAdjustHi;
      return 0;
    case M.MSR_FSB_FREQ:
      out[0] = 3;
      return 0;
    case M.MSR_IA32_PERF_STATUS:
      out[0] = 1000;
      out[1] = 4 << 8;
      return 0;
    case M.MSR_IA32_BBL_CR_CTL3:
      out[0] = 0xbe702111 | 0;
      return 0;
    case M.MSR_KVM_POLL_CONTROL:
      out[0] = 1;
      break;
    case M.MSR_AMD64_OSVW_ID_LENGTH:
    case M.MSR_AMD64_OSVW_STATUS:
      if (!guestCpuidHas(vcpu, F.X86_FEATURE_OSVW)) return 1;
      break;
    case M.MSR_IA32_ARCH_CAPABILITIES:
      if (!hostInitiated && !guestCpuidHas(vcpu, F.X86_FEATURE_ARCH_CAPABILITIES)) return 1;
      break;
    case M.MSR_IA32_SMBASE:
      out[0] = x86.smbase | 0;
      return 0;
    case M.MSR_IA32_UCODE_REV:
      out[0] = 0x01000065;
      break;
    default:
      break;
  }
  const known = kept.has(msr) || keptForHost.has(msr);
  const other = [
    M.MSR_K7_HWCR,
    M.MSR_IA32_XSS,
    M.MSR_MISC_FEATURES_ENABLES,
    M.MSR_KVM_PV_EOI_EN,
    M.MSR_KVM_POLL_CONTROL,
    M.MSR_AMD64_OSVW_ID_LENGTH,
    M.MSR_AMD64_OSVW_STATUS,
  ].includes(msr);
  if (!known && !other) return KVM_MSR_RET_UNSUPPORTED;
  const value = x86.msrStore.get(msr);
  if (value !== undefined) {
    out[0] = value.lo;
    out[1] = value.hi;
  }
  return 0;
}
