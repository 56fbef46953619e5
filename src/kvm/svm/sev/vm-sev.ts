/** What SVM keeps of a VM that is an SNP guest (@kvm svm.h struct kvm_sev_info), and of its vCPUs (struct vcpu_sev_es_state). */

export class VmSev {
  /** KVM_SEV_INIT2 has not been called. */
  needInit = true;
  active = false;
  asid = 0;
  vmsaFeatures = 0;
  ghcbVersion = 0;
  /** Frame of the firmware's context page, -1 without one. */
  context = -1;
  apJumpTableLo = 0;
  apJumpTableHi = 0;
}

/** A page-state change of several ranges that userspace is working on. */
export class PscInFlight {
  index = 0;
  count = 0;
  large = false;
}

export class VcpuSev {
  /** Frame of the VMSA that KVM allocated, -1 before. */
  vmsaPfn = -1;
  /** The VMSA is encrypted: registers are the guest's secret. */
  stateProtected = false;
  /** Physical address of the GHCB while an exit by it is being handled, else -1. */
  ghcb = -1;
  ghcbRegisteredGfn = -1;
  /** Valid bits of the GHCB of the exit at hand. */
  readonly valid = new Int32Array(4);
  scratchLo = 0;
  scratchHi = 0;
  /** Byte address in memory of the scratch area, and its length. */
  scratchAt = 0;
  scratchBytes = 0;
  readonly psc = new PscInFlight();
  /** AP creation: frames of VMSAs in guest memory, -1 for none. */
  pendingVmsaGfn = -1;
  waitingForReset = false;
  hasGuestVmsa = false;
}
