/** What KVM keeps of a TD and of its vCPUs (@kvm tdx.h struct kvm_tdx, struct vcpu_tdx). */
import type { SeamArgs } from '../../../arch/tdx.ts';

export const TD_STATE_UNINITIALIZED = 0;
export const TD_STATE_INITIALIZED = 1;
export const TD_STATE_RUNNABLE = 2;

export const VCPU_TD_STATE_UNINITIALIZED = 0;
export const VCPU_TD_STATE_INITIALIZED = 1;

/** A TD. */
export class VmTdx {
  state = TD_STATE_UNINITIALIZED;
  attributes = 0;
  xfam = 0;
  /** Key id, -1 while there is none. */
  hkid = -1;
  /** Frame of the TDR, -1; and of the TDCS. */
  tdr = -1;
  tdcs: number[] = [];
  /** Pages in the mirror that wait for TDH.MEM.PAGE.ADD. */
  nrPremapped = 0;
  /** Registers of the SEAMCALLs for it, one set for all. */
  readonly args: SeamArgs = { rcx: 0, rdx: 0, r8: 0, r9: 0 };
}

/** A vCPU of a TD. */
export class VcpuTdx {
  state = VCPU_TD_STATE_UNINITIALIZED;
  /** Frame of the TDVPR, -1; and of the pages behind it. */
  tdvpr = -1;
  tdcx: number[] = [];
  /** Registers of TDH.VP.ENTER: halves of the sixteen. @kvm tdx.h vp_enter_args */
  readonly enterArgs = new Int32Array(32);
  /** What it answered. */
  enterRet = 0;
  /** The exit reason as VMX has it, or -1. */
  exitReason = -1;
  /** MapGPA, in pieces: the next one and the end. */
  mapGpaNext = 0;
  mapGpaEnd = 0;
}
