/** RDMSR and WRMSR, counters, and the MSRs that a guest may reach without its hypervisor (@apm 3.2, 15.11; @sdm volume 4). */
import {
  MSR_AMD64_SEV,
  MSR_AMD64_SEV_ES_GHCB,
  MSR_CSTAR,
  MSR_EFER,
  MSR_FS_BASE,
  MSR_GS_BASE,
  MSR_IA32_CR_PAT,
  MSR_IA32_DEBUGCTL,
  MSR_IA32_SYSENTER_CS,
  MSR_IA32_SYSENTER_EIP,
  MSR_IA32_SYSENTER_ESP,
  MSR_IA32_TSC,
  MSR_KERNEL_GS_BASE,
  MSR_LSTAR,
  MSR_STAR,
  MSR_SYSCALL_MASK,
  MSR_TSC_AUX,
  SEV_STATUS_ENABLED,
  SEV_STATUS_ES_ENABLED,
  SEV_STATUS_SNP_ENABLED,
} from '../../arch/msr.ts';
import {
  CR0_PG,
  CR4_PCE,
  CR4_TSD,
  EFER_FFXSR,
  EFER_LMA,
  EFER_LME,
  EFER_NX,
  EFER_SCE,
  EFER_SVME,
  FS,
  GS,
  RAX,
  RCX,
  RDX,
} from '../../arch/registers.ts';
import {
  INTERCEPT_MSR_PROT,
  INTERCEPT_RDPMC,
  INTERCEPT_RDPRU,
  INTERCEPT_RDTSC,
  INTERCEPT_RDTSCP,
  SVM_EXIT_MSR,
  SVM_EXIT_RDPMC,
  SVM_EXIT_RDPRU,
  SVM_EXIT_RDTSC,
  SVM_EXIT_RDTSCP,
  VMCB_GHCB,
} from '../../arch/vmcb.ts';
import { recordRm } from '../decode/record.ts';
import {
  CSTAR_AT,
  DBGCTL_AT,
  INSNS_AT,
  KERNEL_GS_BASE_AT,
  LSTAR_AT,
  PAT_AT,
  SFMASK_AT,
  STAR_AT,
  STATUS_OK,
  SYSENTER_CS_AT,
  SYSENTER_EIP_AT,
  SYSENTER_ESP_AT,
  TSC_AUX_AT,
  TSC_OFFSET_AT,
  VMSA_BLOCK,
} from '../state.ts';
import { msrBitmapExits, rdtscpAllowed } from '../vmx/instruction-exits.ts';
import type { Core } from './core.ts';
import { gprLo, setGpr } from './operands.ts';
import { W_CR0, W_CR4, W_EFER } from './words.ts';

/** Byte address in the state of an MSR that is plain storage, or 0. */
function storage(core: Core, msr: number): number {
  switch (msr) {
    case MSR_STAR:
      return STAR_AT;
    case MSR_LSTAR:
      return LSTAR_AT;
    case MSR_CSTAR:
      return CSTAR_AT;
    case MSR_SYSCALL_MASK:
      return SFMASK_AT;
    case MSR_KERNEL_GS_BASE:
      return KERNEL_GS_BASE_AT;
    case MSR_FS_BASE:
      return core.segment(FS) << 2;
    case MSR_GS_BASE:
      return core.segment(GS) << 2;
    case MSR_IA32_SYSENTER_CS:
      return SYSENTER_CS_AT;
    case MSR_IA32_SYSENTER_ESP:
      return SYSENTER_ESP_AT;
    case MSR_IA32_SYSENTER_EIP:
      return SYSENTER_EIP_AT;
    case MSR_IA32_CR_PAT:
      return PAT_AT;
    case MSR_IA32_DEBUGCTL:
      return DBGCTL_AT;
    case MSR_TSC_AUX:
      return TSC_AUX_AT;
    default:
      return 0;
  }
}

/** Whether the permission map intercepts `msr`: three ranges of 8192, two bits each; anything else always is (@apm 15.11). */
function mapIntercepts(core: Core, msr: number, isWrite: boolean): boolean {
  if (core.vmx) return msrBitmapExits(core, msr, isWrite);
  let offset: number;
  if (msr < 0x2000) offset = msr * 2;
  else if (msr >= 0xc0000000 && msr < 0xc0002000) offset = 0x4000 + (msr - 0xc0000000) * 2;
  else if (msr >= 0xc0010000 && msr < 0xc0012000) offset = 0x8000 + (msr - 0xc0010000) * 2;
  else return true;
  const bit = offset + (isWrite ? 1 : 0);
  return ((core.u8[core.msrpmBase + (bit >>> 3)]! >>> (bit & 7)) & 1) !== 0;
}

/** RDMSR (`isWrite` false) or WRMSR. */
export function accessMsr(core: Core, isWrite: boolean): number {
  if (core.cpl() !== 0) return core.gp(0);
  const msr = gprLo(core, RCX) >>> 0;
  if (core.encryptedState && (msr === MSR_AMD64_SEV_ES_GHCB || msr === MSR_AMD64_SEV))
    return sevMsr(core, msr, isWrite);
  if ((core.intercept3 & INTERCEPT_MSR_PROT) !== 0 && mapIntercepts(core, msr, isWrite)) {
    return core.exit(SVM_EXIT_MSR, isWrite ? 1 : 0);
  }
  return isWrite ? writeMsr(core, msr, gprLo(core, RAX), gprLo(core, RDX)) : readMsr(core, msr);
}

/** GHCB, which is a field of the control block, and the read-only status; neither is intercepted (@apm 15.34.10, 15.35.8). */
function sevMsr(core: Core, msr: number, isWrite: boolean): number {
  const { i32 } = core;
  if (msr === MSR_AMD64_SEV) {
    if (isWrite) return core.gp(0);
    setGpr(core, RAX, 4, SEV_STATUS_ENABLED | SEV_STATUS_ES_ENABLED | SEV_STATUS_SNP_ENABLED, 0);
    setGpr(core, RDX, 4, 0, 0);
    return STATUS_OK;
  }
  const at = (VMSA_BLOCK + VMCB_GHCB) >> 2;
  if (isWrite) {
    i32[at] = gprLo(core, RAX);
    i32[at + 1] = gprLo(core, RDX);
  } else {
    setGpr(core, RAX, 4, i32[at]!, 0);
    setGpr(core, RDX, 4, i32[at + 1]!, 0);
  }
  return STATUS_OK;
}

function readMsr(core: Core, msr: number): number {
  if (msr === MSR_IA32_TSC) readTsc(core);
  else if (msr === MSR_EFER) {
    core.lo = core.i32[W_EFER]!;
    core.hi = 0;
  } else {
    const at = storage(core, msr) >> 2;
    if (at === 0) return core.gp(0);
    core.lo = core.i32[at]!;
    core.hi = core.i32[at + 1]!;
  }
  setGpr(core, RAX, 4, core.lo, 0);
  setGpr(core, RDX, 4, core.hi, 0);
  return STATUS_OK;
}

function writeMsr(core: Core, msr: number, lo: number, hi: number): number {
  const i32 = core.i32;
  if (msr === MSR_EFER) return writeEfer(core, lo, hi);
  if (msr === MSR_IA32_TSC) {
    // The offset moves, as the time stamp itself is virtual time.
    i32[TSC_OFFSET_AT >> 2] = 0;
    i32[(TSC_OFFSET_AT >> 2) + 1] = 0;
    readTsc(core);
    const low = (lo >>> 0) - (core.lo >>> 0);
    i32[TSC_OFFSET_AT >> 2] = low | 0;
    i32[(TSC_OFFSET_AT >> 2) + 1] = (hi - core.hi - (low < 0 ? 1 : 0)) | 0;
    return STATUS_OK;
  }
  const at = storage(core, msr) >> 2;
  if (at === 0) return core.gp(0);
  const address =
    msr === MSR_LSTAR || msr === MSR_CSTAR || msr === MSR_KERNEL_GS_BASE || msr === MSR_FS_BASE || msr === MSR_GS_BASE;
  // AMD, whose SYSENTER is for 32-bit code, takes anything.
  const entry = core.profile.vendor === 'intel' && (msr === MSR_IA32_SYSENTER_ESP || msr === MSR_IA32_SYSENTER_EIP);
  if ((address || entry) && !core.canonicalBase(hi)) return core.gp(0);
  if (msr === MSR_TSC_AUX && hi !== 0) return core.gp(0);
  if (msr === MSR_IA32_CR_PAT && (badPat(lo) || badPat(hi))) return core.gp(0);
  i32[at] = lo;
  i32[at + 1] = hi;
  return STATUS_OK;
}

/** A memory type that does not exist: 2, 3 and above 7 (@apm 7.8.2). */
function badPat(half: number): boolean {
  for (let i = 0; i < 4; i++) {
    const type = (half >>> (i * 8)) & 0xff;
    if (type > 7 || type === 2 || type === 3) return true;
  }
  return false;
}

function writeEfer(core: Core, lo: number, hi: number): number {
  const known = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX | EFER_SVME | EFER_FFXSR;
  const i32 = core.i32;
  const old = i32[W_EFER]!;
  if (hi !== 0 || (lo & ~known) !== 0) return core.gp(0);
  if (((lo ^ old) & EFER_LME) !== 0 && (i32[W_CR0]! & CR0_PG) !== 0) return core.gp(0);
  i32[W_EFER] = (lo & ~EFER_LMA) | (old & EFER_LMA);
  core.updatePaging();
  core.updateMode();
  return STATUS_OK;
}

/** Time stamp: retired instructions plus the control block's offset, into `core.lo` and `core.hi`. */
function readTsc(core: Core): void {
  const i32 = core.i32;
  const low = (i32[INSNS_AT >> 2]! >>> 0) + (i32[TSC_OFFSET_AT >> 2]! >>> 0);
  core.lo = low | 0;
  core.hi = (i32[(INSNS_AT >> 2) + 1]! + i32[(TSC_OFFSET_AT >> 2) + 1]! + (low >= 0x1_0000_0000 ? 1 : 0)) | 0;
}

/** RDTSC, or RDTSCP when `withAux`. */
export function rdtsc(core: Core, withAux: boolean): number {
  if (withAux && !rdtscpAllowed(core)) return core.ud();
  if (core.cpl() !== 0 && (core.i32[W_CR4]! & CR4_TSD) !== 0) return core.gp(0);
  if (withAux && (core.intercept4 & INTERCEPT_RDTSCP) !== 0) return core.exit(SVM_EXIT_RDTSCP);
  if (!withAux && (core.intercept3 & INTERCEPT_RDTSC) !== 0) return core.exit(SVM_EXIT_RDTSC);
  readTsc(core);
  setGpr(core, RAX, 4, core.lo, 0);
  setGpr(core, RDX, 4, core.hi, 0);
  if (withAux) setGpr(core, RCX, 4, core.i32[TSC_AUX_AT >> 2]!, 0);
  return STATUS_OK;
}

/** RDPID; `rm` gets all of TSC_AUX. */
export function rdpid(core: Core, record: number): number {
  if (!rdtscpAllowed(core)) return core.ud();
  setGpr(core, recordRm(core.u8, record), core.mode64() ? 8 : 4, core.i32[TSC_AUX_AT >> 2]!, 0);
  return STATUS_OK;
}

/** RDPMC: there are no performance counters, so what is not intercepted is #GP. */
export function rdpmc(core: Core): number {
  if (core.cpl() !== 0 && (core.i32[W_CR4]! & CR4_PCE) === 0) return core.gp(0);
  if ((core.intercept3 & INTERCEPT_RDPMC) !== 0) return core.exit(SVM_EXIT_RDPMC);
  return core.gp(0);
}

/** RDPRU: not in any profile's CPUID. */
export function rdpru(core: Core): number {
  if ((core.intercept4 & INTERCEPT_RDPRU) !== 0) return core.exit(SVM_EXIT_RDPRU);
  return core.ud();
}
