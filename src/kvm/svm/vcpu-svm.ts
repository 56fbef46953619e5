/** A vCPU's state that belongs to SVM (@kvm svm.h struct vcpu_svm). */

import { NestedSvmState, VmcbInfo } from './nested-svm-state.ts';
import type { VcpuSev } from './sev/vm-sev.ts';
import type { CpuData } from './tlb.ts';

export class VcpuSvm {
  /** The VMCB of the guest itself, and the one that L2 runs on, which KVM makes of L1's VMCB for L2. */
  readonly vmcb01 = new VmcbInfo();
  readonly vmcb02 = new VmcbInfo();
  /** Which of them is in use. */
  currentVmcb: VmcbInfo = this.vmcb01;
  /** The 32-bit words of physical memory, and where in them the VMCB in use starts. */
  words: Int32Array = new Int32Array(0);
  vmcb = 0;
  readonly nested = new NestedSvmState();
  /** First frame of the MSR permission map (of two), -1 before creation. */
  msrpmPfn = -1;
  /** MSRs that the guest would reach without exits if no filter kept it from them. */
  readonly directMsrs = new Map<number, { readonly read: boolean; readonly write: boolean }>();
  /** The processor's ASIDs, after the first entry. */
  cpuData: CpuData | null = null;
  asid = 0;
  /** RIP after an intercepted instruction, halves; 0 when hardware did not say. */
  nextRipLo = 0;
  nextRipHi = 0;
  /** The soft interrupt or exception that the last entry injected (INT3, INTO, INT n), to be undone if its delivery faulted. */
  softIntCsbaseLo = 0;
  softIntCsbaseHi = 0;
  softIntOldRipLo = 0;
  softIntOldRipHi = 0;
  softIntNextRipLo = 0;
  softIntNextRipHi = 0;
  softIntInjected = false;
  /** The NMI that the last entry injected was L1's for L2, and masks nothing of L1's. */
  nmiL1ToL2 = false;
  nmiSinglestep = false;
  nmiSinglestepGuestRflags = 0;
  nmiMasked = false;
  awaitingIretCompletion = false;
  nmiIretRipLo = 0;
  nmiIretRipHi = 0;
  gif = true;
  /** The processor's FS, GS, TR, LDTR and SYSCALL registers are newer than the VMCB's save area. */
  saveAreaStale = false;
  /** The save area is newer than the processor. */
  saveAreaDirty = true;
  /** Of an SNP guest's vCPU. */
  sev: VcpuSev | null = null;
  vmCr = 0;
  hsaveLo = 0;
  hsaveHi = 0;
  sysenterEipHi = 0;
  sysenterEspHi = 0;
  msrDecfgLo = 0;
  virtSpec = 0;
}
