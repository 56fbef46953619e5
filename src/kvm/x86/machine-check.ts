/** The guest's machine-check banks: what it reads and writes there, and errors that userspace puts in (@kvm x86.c kvm_arch_vcpu). */
import { MC_VECTOR } from '../../arch/exceptions.ts';
import {
  MSR_IA32_MC0_CTL,
  MSR_IA32_MCG_CAP,
  MSR_IA32_MCG_CTL,
  MSR_IA32_MCG_STATUS,
  MSR_IA32_P5_MC_ADDR,
  MSR_IA32_P5_MC_TYPE,
  MSR_K7_HWCR,
} from '../../arch/msr.ts';
import { CR4_MCE } from '../../arch/registers.ts';
import { EINVAL } from '../../host/errno.ts';
import { makeRequest, REQ_TRIPLE_FAULT, type VcpuState } from '../vcpu-state.ts';
import { queueException } from './exceptions.ts';
import { BANK_COUNT, BANK_WORDS, KVM_MAX_MCE_BANKS, type MachineCheck } from './machine-check-state.ts';

/** IA32_MCG_CAP: a global control register; errors that software can recover from. @apm 9.3 */
export const MCG_CTL_P = 1 << 8;
export const MCG_SER_P = 1 << 24;
/** Bits of IA32_MCG_CAP that KVM_X86_SETUP_MCE may set besides the number of banks. */
export const SUPPORTED_MCE_CAP = MCG_CTL_P | MCG_SER_P;
const EXTENDED_COUNT = 0xff0000;

/** IA32_MCG_STATUS. */
const MCG_STATUS_MCIP = 1 << 2;
/** High halves of IA32_MCi_STATUS. */
const STATUS_VAL_HI = 1 << 31;
const STATUS_OVER_HI = 1 << 30;
const STATUS_UC_HI = 1 << 29;
const STATUS_PCC_HI = 1 << 25;
const STATUS_S_HI = 1 << 24;
const STATUS_AR_HI = 1 << 23;
/** HWCR: a guest of AMD may write any status. */
const MC_STATUS_WR_EN = 1 << 18;

const STATUS = 2;
const ADDR = 4;
const MISC = 6;

/** struct kvm_x86_mce, in halves. */
export interface MceRecord {
  readonly bank: number;
  readonly statusLo: number;
  readonly statusHi: number;
  readonly addrLo: number;
  readonly addrHi: number;
  readonly miscLo: number;
  readonly miscHi: number;
  readonly mcgStatusLo: number;
  readonly mcgStatusHi: number;
}

/** The MSR is one of a bank, or global. */
export function isMceMsr(msr: number): boolean {
  if (msr === MSR_IA32_P5_MC_ADDR || msr === MSR_IA32_P5_MC_TYPE) return true;
  if (msr >= MSR_IA32_MCG_CAP && msr <= MSR_IA32_MCG_CTL) return true;
  return msr >= MSR_IA32_MC0_CTL && msr < MSR_IA32_MC0_CTL + 4 * KVM_MAX_MCE_BANKS;
}

/** Where a bank's MSR is kept, or -1: there is no such bank. */
function bankWord(mce: MachineCheck, msr: number): number {
  const n = msr - MSR_IA32_MC0_CTL;
  return n < 4 * mce.bankCount ? 2 * n : -1;
}

/** 0, or 1 for #GP. @kvm x86.c set_msr_mce @partial no CMCI, so no control of its thresholds */
export function setMsrMce(vcpu: VcpuState, msr: number, lo: number, hi: number, hostInitiated: boolean): number {
  const { mce } = vcpu.x86;
  const zero = (lo | hi) === 0;
  if (msr === MSR_IA32_MCG_STATUS) {
    mce.statusLo = lo;
    mce.statusHi = hi;
    return 0;
  }
  if (msr === MSR_IA32_MCG_CTL) {
    if ((mce.capLo & MCG_CTL_P) === 0 && (!zero || !hostInitiated)) return 1;
    if (!zero && (lo & hi) !== -1) return 1;
    mce.ctl = lo;
    return 0;
  }
  if (msr < MSR_IA32_MC0_CTL) return 1;
  const at = bankWord(mce, msr);
  if (at < 0) return 1;
  const which = msr & 3;
  // Guests clear a bit of bank 4 (a GART bug) or of bank 1 (correctable errors): let them.
  if (which === 0 && !zero && ((lo | 0x401) !== -1 || hi !== -1)) return 1;
  if (which === 1 && !zero && !hostInitiated && !canSetStatus(vcpu)) return 1;
  mce.banks[at] = lo;
  mce.banks[at + 1] = hi;
  return 0;
}

/** @kvm x86.c can_set_mci_status */
function canSetStatus(vcpu: VcpuState): boolean {
  const hwcr = vcpu.x86.msrStore.get(MSR_K7_HWCR);
  return vcpu.x86.isAmdCompatible && hwcr !== undefined && (hwcr.lo & MC_STATUS_WR_EN) !== 0;
}

/** 0, or 1 for #GP; the value goes into `vcpu.x86.msrValue`, which is zero before. @kvm x86.c get_msr_mce @partial no CMCI */
export function getMsrMce(vcpu: VcpuState, msr: number, hostInitiated: boolean): number {
  const { mce, msrValue } = vcpu.x86;
  switch (msr) {
    case MSR_IA32_P5_MC_ADDR:
    case MSR_IA32_P5_MC_TYPE:
      return 0;
    case MSR_IA32_MCG_CAP:
      msrValue[0] = mce.capLo;
      return 0;
    case MSR_IA32_MCG_CTL:
      if ((mce.capLo & MCG_CTL_P) === 0 && !hostInitiated) return 1;
      msrValue.fill(mce.ctl);
      return 0;
    case MSR_IA32_MCG_STATUS:
      msrValue[0] = mce.statusLo;
      msrValue[1] = mce.statusHi;
      return 0;
    default: {
      const at = bankWord(mce, msr);
      if (at < 0) return 1;
      msrValue[0] = mce.banks[at]!;
      msrValue[1] = mce.banks[at + 1]!;
      return 0;
    }
  }
}

/** KVM_X86_SETUP_MCE: the number of banks and what they can. 0 or -EINVAL. @kvm x86.c kvm_vcpu_ioctl_x86_setup_mce @partial no CMCI */
export function setupMce(vcpu: VcpuState, capLo: number, capHi: number): number {
  const { mce } = vcpu.x86;
  const count = capLo & BANK_COUNT;
  if (count === 0 || count > KVM_MAX_MCE_BANKS) return -EINVAL;
  if (capHi !== 0 || (capLo & ~(SUPPORTED_MCE_CAP | BANK_COUNT | EXTENDED_COUNT)) !== 0) return -EINVAL;
  mce.capLo = capLo;
  if ((capLo & MCG_CTL_P) !== 0) mce.ctl = -1;
  for (let bank = 0; bank < count; bank++) mce.banks.fill(-1, bank * BANK_WORDS, bank * BANK_WORDS + 2);
  return 0;
}

function putError(mce: MachineCheck, at: number, e: MceRecord): void {
  const { banks } = mce;
  const overwritten = (banks[at + STATUS + 1]! & STATUS_VAL_HI) !== 0 ? STATUS_OVER_HI : 0;
  banks[at + ADDR] = e.addrLo;
  banks[at + ADDR + 1] = e.addrHi;
  banks[at + MISC] = e.miscLo;
  banks[at + MISC + 1] = e.miscHi;
  banks[at + STATUS] = e.statusLo;
  banks[at + STATUS + 1] = e.statusHi | overwritten;
}

/** An uncorrected error that asks for nothing. @kvm x86.c is_ucna */
function isUcna(e: MceRecord): boolean {
  const asks = (e.statusHi & (STATUS_PCC_HI | STATUS_S_HI | STATUS_AR_HI)) !== 0;
  return (e.mcgStatusLo | e.mcgStatusHi) === 0 && !asks && (e.statusHi & STATUS_UC_HI) !== 0;
}

/**
 * KVM_X86_SET_MCE: an error is logged in its bank, and one that was not corrected raises #MC. A guest that has not switched machine checks
 * on, or is busy with one, shuts down. 0 or -EINVAL. @kvm x86.c kvm_vcpu_ioctl_x86_set_mce
 */
export function setMce(vcpu: VcpuState, e: MceRecord): number {
  const { mce } = vcpu.x86;
  if (e.bank >= mce.bankCount || (e.statusHi & STATUS_VAL_HI) === 0) return -EINVAL;
  const at = e.bank * BANK_WORDS;
  const { banks } = mce;
  if (isUcna(e)) {
    // A CMCI would say so.
    banks[at + STATUS + 1] = 0;
    putError(mce, at, e);
    mce.statusLo = e.mcgStatusLo;
    mce.statusHi = e.mcgStatusHi;
    return 0;
  }
  if ((e.statusHi & STATUS_UC_HI) !== 0) {
    if ((mce.capLo & MCG_CTL_P) !== 0 && mce.ctl !== -1) return 0;
    if ((banks[at]! & banks[at + 1]!) !== -1) return 0;
    if ((mce.statusLo & MCG_STATUS_MCIP) !== 0 || (vcpu.cr4 & CR4_MCE) === 0) {
      makeRequest(vcpu, REQ_TRIPLE_FAULT);
      return 0;
    }
    putError(mce, at, e);
    mce.statusLo = e.mcgStatusLo;
    mce.statusHi = e.mcgStatusHi;
    queueException(vcpu, MC_VECTOR);
    return 0;
  }
  const logged = banks[at + STATUS + 1]!;
  if ((logged & STATUS_VAL_HI) === 0 || (logged & STATUS_UC_HI) === 0) putError(mce, at, e);
  else banks[at + STATUS + 1] = logged | STATUS_OVER_HI;
  return 0;
}
