/** What a vCPU keeps of the VMCB that its guest, L1, has for L2 (@kvm svm.h struct svm_nested_state). */

/** A VMCB of KVM's own (@kvm svm.h struct kvm_vmcb_info). */
export class VmcbInfo {
  /** Frame, physical address, and position in the int32 view of memory; -1 before there is one. */
  pfn = -1;
  pa = 0;
  word = -1;
  /** Generation of the ASID that it was last run with. */
  asidGeneration = 0;

  place(pfn: number): void {
    this.pfn = pfn;
    this.pa = pfn * 4096;
    this.word = pfn * 1024;
  }
}

export class NestedSvmState {
  /** VMCB02 and the merged permission map are there: EFER.SVME was set. */
  initialized = false;
  /** Where L1's VMCB of the L2 that runs is, and the one before; -1 for none. */
  vmcb12Gpa = -1;
  lastVmcb12Gpa = -1;
  /** A VMRUN has passed its checks, and L2 has not been entered yet. */
  runPending = false;
  /** First of the two frames of the MSR permission map that holds KVM's intercepts and L1's. */
  msrpmPfn = -1;
  /**
   * What was read from L1's VMCB at VMRUN, in the VMCB's layout: the controls, and of the save area what is checked. L1 cannot change it
   * meanwhile (@kvm svm.h struct vmcb_ctrl_area_cached, vmcb_save_area_cached).
   */
  readonly cached = new Int32Array(1024);
}
