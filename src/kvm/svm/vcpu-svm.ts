/** A vCPU's state that belongs to SVM (@kvm svm.h struct vcpu_svm). */

export class VcpuSvm {
  /** Physical address of the VMCB; 0 before creation. */
  vmcbPa = 0;
  /** Index of the VMCB in the Int32Array view of physical memory. */
  vmcb32 = 0;
  /** Physical address of this vCPU's MSR permission map. */
  msrpmPa = 0;
  asidGeneration = 0;
  asid = 0;
  /** Low 32 bits of the instruction pointer after an intercepted instruction, halves; 0 when hardware does not say. */
  nextRipLo = 0;
  nextRipHi = 0;
  /** The soft interrupt or exception that the last entry injected (INT3, INTO, INT n), to be done again if delivery faulted. */
  softIntCsbaseLo = 0;
  softIntCsbaseHi = 0;
  softIntOldRipLo = 0;
  softIntOldRipHi = 0;
  softIntNextRipLo = 0;
  softIntNextRipHi = 0;
  softIntInjected = false;
  nmiSinglestep = false;
  nmiSinglestepGuestRflags = 0;
  nmiMasked = false;
  awaitingIretCompletion = false;
  nmiIretRipLo = 0;
  nmiIretRipHi = 0;
  /** The guest's part of SYSENTER MSRs that the VMCB holds. */
  guestStateLoaded = false;
  /** The processor's FS, GS, TR, LDTR and SYSCALL registers are newer than the VMCB's save area. */
  saveAreaStale = false;
  /** EFER.LMA and CR4 as KVM put them differ from the guest's: EFER in the VMCB always has SVME. */
  tscAuxMsr = 0;
  /** TLB flush that the next VMRUN does (TLB_CONTROL_*). */
  tlbControl = 0;
  vmDebugMsr = 0;
  /** Halves of MSR_VM_HSAVE_PA, VM_CR. */
  hsaveMsr = 0;
  vmCr = 0;
}
