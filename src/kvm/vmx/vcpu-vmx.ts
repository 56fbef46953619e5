/** A vCPU's state that belongs to VMX (@kvm vmx.h struct vcpu_vmx). */
export class VcpuVmx {
  /** The 32-bit words of physical memory, and where in them the VMCS starts. */
  words: Int32Array = new Int32Array(0);
  vmcs = 0;
  /** Frames of the VMCS, the MSR bitmap, the log of modified pages and the virtual APIC's registers; -1 before creation or for none. */
  vmcsPfn = -1;
  msrBitmapPfn = -1;
  pmlPfn = -1;
  virtualApicPfn = -1;
  vpid = 0;
  /** Task priority when KVM last looked: with a TPR shadow the guest changes it without exits. */
  lastTpr = 0;
  /** The VMCS has been entered since it was cleared. @kvm vmcs.h struct loaded_vmcs launched */
  launched = false;
  /** What VMLAUNCH or VMRESUME failed with, VM_SUCCEED when it did not. */
  fail = 0;
  exitReason = 0;
  idtVectoringInfo = 0;
  /** Bytes of the instruction whose software interrupt or exception is injected again. @kvm kvm_host.h event_exit_inst_len */
  eventExitInstLen = 0;
  /** Bits of CR0 and CR4 that the guest changes without exits. */
  cr0GuestOwnedBits = 0;
  cr4GuestOwnedBits = 0;
  /** MSRs that the guest would reach without exits if no filter kept it from them. */
  readonly directMsrs = new Map<number, { readonly read: boolean; readonly write: boolean }>();
  /** STAR, LSTAR, CSTAR, SFMASK and KERNEL_GS_BASE, halves, while another vCPU has the processor. */
  readonly syscallMsrs = new Int32Array(10);
  featureControlLo = 0;
  spec = 0;
}
